"""What sweeps have recorded, read from their own files without MLflow, Optuna or Keras."""
