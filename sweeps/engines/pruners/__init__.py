"""Which trials go on beyond which epochs."""
