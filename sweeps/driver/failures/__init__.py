"""What is done about trials that fail: tried again, on another machine, or ended."""
