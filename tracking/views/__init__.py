"""Saved views of MLflow's experiment page: which columns and charts it shows of a sweep."""
