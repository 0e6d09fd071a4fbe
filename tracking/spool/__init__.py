"""The durable queue before MLflow: records, the queue itself, and its sender."""
