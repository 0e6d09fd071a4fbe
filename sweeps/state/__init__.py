"""A sweep on disk: its paths, its description and its lock."""
