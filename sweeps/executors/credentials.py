"""Keeps secrets of the driver, and of the user, out of the environment of its workers.

Nothing in a worker talks to a store, and a user's space runs there: code that prints or logs its
environment must have nothing to tell. It is no wall: what runs as the same user can read the
driver's own.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Collection, Iterator, Mapping, MutableMapping
from fnmatch import fnmatchcase

from search_spaces.errors import InputError
from tracking.addresses import holds_password, is_readable

SECRETS = (
    "MLFLOW_TRACKING_USERNAME",
    # Whole families: which of a provider's variables are secret changes with its versions.
    "AWS_*", "AZURE_*", "ARM_*", "GOOGLE_*", "GCP_*", "GCLOUD_*", "CLOUDSDK_*", "DATABRICKS_*",
    "SNOWFLAKE_*", "KAGGLE_*",
    # Kinds of names, of hubs (HF_TOKEN, WANDB_API_KEY, GITHUB_TOKEN) and others (PGPASSWORD).
    "*TOKEN", "*_TOKEN_*", "*PASSWORD*", "*PASSWD*", "*PASSPHRASE*", "*SECRET*", "*CREDENTIAL*",
    "*API_KEY*", "*APIKEY*", "*ACCESS_KEY*", "*PRIVATE_KEY*", "*ACCOUNT_KEY*", "*ENCRYPTION_KEY*",
)  # fmt: skip
"""Patterns of names, listed in docs/security.md; withheld, too, is every address with a secret."""
_ADDRESS = re.compile(r"[A-Za-z][\w+.-]*://\S")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def credentials(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that are withheld. Pure."""
    return {name: value for name, value in environment.items() if _is_secret(name, value)}


def _is_secret(name: str, value: str) -> bool:
    if any(fnmatchcase(name.upper(), pattern) for pattern in SECRETS):
        return True
    if not _ADDRESS.match(value):
        return False
    return holds_password(value) or not is_readable(value)


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


def check_passed(names: Collection[str], environment: Mapping[str, str] = os.environ) -> None:
    """Raises InputError for a name in `--pass-env` that is no variable here."""
    for name in names:
        if not _NAME.fullmatch(name) or name not in environment:
            is_pair = "=" in name  # Whose value may be the secret.
            shown = f"{name.partition('=')[0]}=..." if is_pair else name
            raise InputError(
                "--pass-env must be the name of a variable that is set in the environment. "
                f"Received: {shown}. Set it first (export NAME=...), and give its name alone."
            )


def passed(names: Collection[str], environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The variables of those names that are set here: what workers get back."""
    return {name: environment[name] for name in names if name in environment}
