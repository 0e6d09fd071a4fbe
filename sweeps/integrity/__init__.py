"""Study, spool and MLflow held against each other."""
