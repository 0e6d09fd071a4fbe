"""The one way to open an MLflow store: its tables are made by whoever comes first, alone."""

from __future__ import annotations

from mlflow import MlflowClient

from tracking.mlflow_server.schema_lock import first_alone
from tracking.stores import absolute_uri


def open_client(uri: str) -> MlflowClient:
    """A client of the store; makes the tables of a database that has none.

    MLflow itself does not mind others that make them at the same moment, and leaves a database that
    nothing can open any more.

    Raises:
        Exception: The store cannot be used; each kind of store raises its own.
    """
    with first_alone(uri):
        return MlflowClient(absolute_uri(uri))
