"""A promotion from the name of a sweep or a run to its result."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.models.scoring import Score
from pipelines.runtime.filesystem import check_writable
from search_spaces.errors import InputError, shown
from sweeps.interrupts import Interrupts
from sweeps.promotion.gate import Limits, Rule
from sweeps.setup.data import SHOWN, DataProgress
from sweeps.state.sweep_file import (
    SEARCH,
    check_addresses,
    find_sweep,
    read_sweep_file,
    with_passwords,
)
from tracking.stores import check_existing_store, resolve_uri

if TYPE_CHECKING:
    from sweeps.promotion.promotion import PromotionResult, PromotionView


class SilentPromotion:
    """Shows nothing of a promotion that runs."""

    def say(self, text: str) -> None:
        """Does nothing."""

    def compared(self, candidate: Score, champion: Score | None) -> None:
        """Does nothing."""

    def judged(self, rules: Sequence[Rule]) -> None:
        """Does nothing."""


def promote(
    name: str | None,
    interrupts: Interrupts,
    view: PromotionView,
    *,
    model: str | None = None,
    tracking_uri: str | None = None,
    work_dir: Path = Path(".sweeps"),
    limits: Limits | None = None,
    force: str | None = None,
    dry_run: bool = False,
    data_progress: DataProgress = SHOWN,
) -> PromotionResult:
    """Registers a model, and makes it the champion if it is better than the one there is.

    Args:
        name: a sweep, whose winner is meant, or a run's id; None for the sweep that began last.
        model: the registered model; None for one that follows from space and data set.
        tracking_uri: the store; None for the sweep's own.
        work_dir: prepared data, and the sweeps' own files.
        limits: the gate's; None for its defaults.
        force: why the gate is to be ignored; None to heed it.
        dry_run: whether only to tell what would happen.

    Raises:
        InputError: There is no such sweep, run or store, or it has nothing to promote.
    """
    check_reason("force", force)
    if force is not None and dry_run:
        raise exclusive("force", "dry_run")
    uri, source = _source(name, work_dir, tracking_uri)
    check_existing_store(uri)
    if not dry_run:
        check_writable(work_dir / "data", "--work-dir")
    from sweeps.promotion.promotion import Promotion, PromotionRequest
    from tracking.errors import store_errors
    from tracking.models.model_store import ModelStore
    from tracking.models.registry import check_model_name

    if model is not None:
        check_model_name(model)
    with store_errors(uri):
        run_id, what = source, "the model of that run"
        if not re.fullmatch(r"[0-9a-f]{32}", source):
            run_id, what = ModelStore(uri).run_of_sweep(source)
        request = PromotionRequest(
            uri=uri,
            run_id=run_id,
            what=what,
            work_dir=work_dir,
            name=model,
            limits=limits or Limits(),
            force=force,
            dry_run=dry_run,
            data_progress=data_progress,
        )
        return Promotion(request, interrupts, view).run()


def check_reason(option: str, why: str | None) -> None:
    """Raises InputError for a reason that says nothing."""
    if why is not None and not why.strip():
        raise InputError(f"--{option} must say why. Received: an empty text.")


def exclusive(one: str, other: str) -> InputError:
    """The error for two options that exclude each other."""
    names = " and ".join(f"--{name.replace('_', '-')}" for name in (one, other))
    return InputError(f"{names} exclude each other. Leave one out.")


def _source(name: str | None, work_dir: Path, uri: str | None) -> tuple[str, str]:
    """The tracking store, and the sweep or run in it."""
    # A sweep of another machine, or a run's id, is no sweep here.
    if name is not None and not re.fullmatch(r"[A-Za-z0-9._-]{1,100}", name):
        raise InputError(f"NAME must be a sweep's name or a run's id. Received: {shown(name)}.")
    if name is None or (work_dir / "sweeps" / name / "sweep.json").exists():
        paths = find_sweep(work_dir, name, finished=True, kind=SEARCH)
        settings = with_passwords(read_sweep_file(paths.state).settings)
        if uri is None:
            check_addresses(settings, ["tracking_uri"])
        return uri or resolve_uri(settings.tracking_uri), paths.name
    return resolve_uri(uri), name
