"""From a winner to the champion, and back."""
