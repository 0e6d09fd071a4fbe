"""Under which name a user's metric is recorded: MLflow refuses some, and ours are beside it."""

from __future__ import annotations

import posixpath
import re
import zlib

_ACCEPTED = re.compile(r"[/\w.\- :]{1,250}")
"""MLflow's rule; beside it a name must be a normalised relative path."""
_READABLE = 100
OURS = (
    "epoch", "epoch_seconds", "images_per_second", "compile_seconds", "best_epoch", "num_epochs",
    "num_parameters", "model_bytes", "training_seconds", "test_accuracy", "test_loss",
)  # fmt: skip
"""What a run holds of every trial. `learning_rate` means the same, whoever logs it."""


def recorded_metric(name: str) -> str:
    """The name of a user's metric in every record: its own wherever that is possible.

    It follows from the name alone, so it is the same in every epoch and trial, and two names never
    become one.
    """
    return _renamed(name) if name in OURS else accepted_metric(name)


def accepted_metric(name: str, section: str = "") -> str:
    """The name itself where MLflow takes it; else what it takes of it, with a checksum.

    Args:
        section: what stands before it in MLflow, slash included; it never changes.
    """
    path = posixpath.normpath(name)
    is_plain = path == name and path != "." and not path.startswith(("..", "/"))
    is_accepted = is_plain and _ACCEPTED.fullmatch(section + name)
    return section + (name if is_accepted else _renamed(name))


def _renamed(name: str) -> str:
    readable = re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_")[:_READABLE] or "metric"
    return f"{readable}-{zlib.crc32(name.encode(errors='surrogatepass')):08x}"
