"""Which configuration next, and which trial goes on? No processes, no MLflow."""
