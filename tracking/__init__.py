"""What is remembered, in MLflow. The only place that imports it."""

import os

# MLflow reads it at import: nothing is sent anywhere that was not asked for.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
