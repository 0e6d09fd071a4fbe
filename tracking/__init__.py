"""What is remembered, in MLflow. The only place that imports it."""

import os
import warnings

# MLflow reads it at import: nothing is sent anywhere that was not asked for.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
# With MLflow's own seven retries one call to a server that is gone blocks for four minutes. The
# spool repeats what failed, so one attempt is enough, and it must not hang.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
# A bar per file between the lines of a command tells nobody anything.
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
# Libraries hide these while they are imported. That is lost where a thread imports them while
# another one is inside `warnings.catch_warnings`, which puts back what it found (Python < 3.14).
for _message in ("SOCKS support in urllib3", ".*Any type hint is inferred"):
    warnings.filterwarnings("ignore", message=_message)
