"""Models in MLflow: their files, their store, the registry."""
