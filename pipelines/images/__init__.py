"""Image files as arrays of one shape."""
