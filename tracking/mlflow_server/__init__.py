"""An MLflow server for one machine: options, process, schema lock and users."""
