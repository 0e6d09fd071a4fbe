"""Rolling back: the champion before the present one becomes the champion again."""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from search_spaces.errors import InputError
from sweeps.interrupts import Interrupts
from sweeps.outcome import Outcome
from sweeps.promotion.promotion import PromotionResult, who
from sweeps.resources.machine import allot, detect_machine
from sweeps.state.recorded_options import tagged_compute
from sweeps.workers.jobs import check_job
from sweeps.workers.start import JobFailedError, run_job, start_workers

if TYPE_CHECKING:
    from tracking.models.model_store import StoredModel
    from tracking.models.registry import ChampionChange, ChampionHistory, Registry


def version_before(
    changes: Sequence[ChampionChange],
    current: int,
    exists: Callable[[int], bool] = lambda version: True,
) -> int | None:
    """The version to go back to; None for the first champion.

    A promotion puts a champion on top of the ones before, a rollback takes the top one away: so a
    further rollback goes back further, never to and fro. An alias that was set by other means
    goes back to the history's last champion.

    Args:
        exists: whether a version is there still; one that was deleted is passed over.
    """
    champions: list[int] = []
    for entry in changes:
        if entry.kind == "rollback":
            champions = champions[: len(champions) - champions[::-1].index(entry.version)]
        else:
            champions.append(entry.version)
    if champions and champions[-1] == current:
        champions.pop()
    return next((version for version in reversed(champions) if exists(version)), None)


def roll_back(
    uri: str, registry: Registry, name: str, why: str, interrupts: Interrupts
) -> PromotionResult:
    """Moves the alias back, once the version has been fetched, verified and loaded.

    Raises:
        InputError: There is nothing to go back to, or it cannot be loaded any more.
    """
    from tracking.models.model_store import ModelStore

    registry.settle(name)
    history = registry.champion_history(name)
    if history.champion is None:
        raise InputError(f"'{name}' has no champion, so there is nothing to roll back.")
    current = history.champion
    target = version_before(
        history.changes, current, lambda number: registry.version(name, number) is not None
    )
    if target is None:
        raise _first(name, history, current)
    store = ModelStore(uri)
    model = store.registered(f"{name}/{target}")
    if not _loads(store.fetch, model, interrupts):
        return PromotionResult(Outcome.INTERRUPTED, name, target, tracking_uri=uri)
    if not registry.set_champion(name, target, history, kind="rollback", by=who(), why=why):
        raise InputError(
            f"The champion of '{name}' was changed during the rollback and is no longer version "
            f"{current}; nothing was rolled back. Look at `keras-sweeps promote --history --model "
            f"{shlex.quote(name)}` and decide again."
        )
    text = f"champion   {name} version {target}, was version {current}"
    return PromotionResult(
        Outcome.DONE, name, target, changed=True, text=text, tracking_uri=uri,
        backend=tagged_compute(model.tags).backend,
    )  # fmt: skip


def _first(name: str, history: ChampionHistory, current: int) -> InputError:
    """Why nothing can be rolled back to."""
    if not history.changes:
        return InputError(
            f"'{name}' has no earlier champion that is known: version {current} got its alias "
            "outside keras-sweeps, which leaves no history. Set the alias there, or promote a run."
        )
    why = f"version {current} was the first"
    if version_before(history.changes, current) is not None:
        why = f"those before version {current} were deleted"
    return InputError(
        f"'{name}' has no earlier champion: {why}. `keras-sweeps promote --history --model "
        f"{shlex.quote(name)}` lists all."
    )


def _loads(fetch: Callable[..., Path], model: StoredModel, interrupts: Interrupts) -> bool:
    """Whether the model loads in a clean process; False after an interrupt."""
    with tempfile.TemporaryDirectory(prefix="keras-sweeps-rollback-") as scratch:
        path = fetch(model, Path(scratch))
        executor = start_workers(Path(scratch) / "server.log", tagged_compute(model.tags).backend)
        slot = allot(replace(detect_machine(), gpus=()), 1, None).slots[0]
        try:
            log_path = str(Path(scratch) / "output.log")
            done = run_job(
                executor, check_job, str(path), slot, log_path, lambda message: message, interrupts
            )
        except JobFailedError as error:
            raise InputError(error.reason) from error
        finally:
            executor.close()
    return done is not None
