"""`mlflow server` with `guard.Guard` before its users, run as `python -m`.

MLflow makes its first user only for the application that is called `basic-auth`, and takes that
name from its own package: it is told here which one it is.
"""

from __future__ import annotations

import mlflow.server
from mlflow.cli import cli

GUARDED = "tracking.mlflow_server.guard:create_app"


def _guarded(app_name: str) -> str:
    del app_name
    return GUARDED


def main() -> None:
    """Runs MLflow's command line.

    Raises:
        AttributeError: This MLflow finds its applications in another way.
    """
    _ = mlflow.server._find_app
    mlflow.server._find_app = _guarded
    cli()


if __name__ == "__main__":
    main()
