"""Keeps what the driver signs in with out of the environment of its workers.

Nothing in a worker talks to a store, and a user's space runs there: code that prints or logs its
environment must have nothing to tell. It is no wall: what runs as the same user can read the
driver's own.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, MutableMapping

from tracking.addresses import holds_password

SECRETS = (
    "MLFLOW_TRACKING_USERNAME",
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_TOKEN",
    "PGPASSWORD",
)
ADDRESSES = ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "SWEEPS_STORAGE")
"""Withheld where a password stands in them."""


def credentials(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that are withheld. Pure."""
    names = [name for name in SECRETS if name in environment]
    names += [name for name in ADDRESSES if holds_password(environment.get(name, ""))]
    return {name: environment[name] for name in names}


def drop_credentials(environment: MutableMapping[str, str] = os.environ) -> None:
    """Removes them from this process' environment."""
    for name in credentials(environment):
        del environment[name]


@contextlib.contextmanager
def without_credentials() -> Iterator[None]:
    """Processes that are started meanwhile never have them; no other thread may need them then."""
    taken = credentials(os.environ)
    drop_credentials()
    try:
        yield
    finally:
        os.environ.update(taken)
