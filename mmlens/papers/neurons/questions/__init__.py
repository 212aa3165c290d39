"""What is asked of every list: `lists.silenced_lists`, of one picture, and its summary."""
