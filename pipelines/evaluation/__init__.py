"""What a model is worth: metrics, tests and figures."""
