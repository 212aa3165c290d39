"""What is asked of every list: `silenced_lists`, a question about one picture, and its summary."""
