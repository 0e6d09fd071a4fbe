"""Where and how a job runs: processes now, other machines later. No search, no MLflow."""
