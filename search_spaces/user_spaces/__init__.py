"""A user's own HyperModels and build functions as spaces."""
