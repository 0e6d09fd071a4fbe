"""Data to trained model to measured model. Knows Keras and NumPy; no Optuna, no MLflow."""
