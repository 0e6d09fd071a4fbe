"""MLflow runs: written and read."""
