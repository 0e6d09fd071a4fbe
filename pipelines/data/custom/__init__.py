"""Data of a user's own: folders, arrays, lists and functions."""
