"""What is recorded of a sweep while it runs: in the spool, in MLflow's notes, on its page."""
