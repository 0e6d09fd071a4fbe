"""What sweeps were run with, where they differ."""

from __future__ import annotations

from collections.abc import Sequence

from sweeps.history.recorded_sweep import RecordedSweep

_SAID_ELSEWHERE = {
    "space", "dataset", "objective", "seed", "num_finalists", "num_finalist_seeds",
}  # fmt: skip


def differing_settings(sweeps: Sequence[RecordedSweep]) -> dict[str, list[object]]:
    """Setting -> its value in each sweep, None where it has none; space, data, seed left out."""
    names = dict.fromkeys(name for sweep in sweeps for name in sweep.params)
    found = {name: [sweep.params.get(name) for sweep in sweeps] for name in names}
    return {
        name: values
        for name, values in found.items()
        if name not in _SAID_ELSEWHERE and len({repr(value) for value in values}) > 1
    }
