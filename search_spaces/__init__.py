"""Search spaces: what may be tried, and what model a point of a space means."""
