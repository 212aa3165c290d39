"""The text encoder of a dual encoder as a tower: its tokens, and where its points are."""
