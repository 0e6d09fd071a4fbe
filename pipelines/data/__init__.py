"""Data sets: found, checked, split, and prepared as mapped arrays."""
