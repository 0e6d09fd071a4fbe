"""The best configurations of a sweep, compared on fresh seeds."""
