"""What is done with recorded models: promotion, and training a run again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search_spaces.errors import InputError, unknown_name
from sweeps import option_values as values
from sweeps.api.arguments import check_text, pass_on, space_name
from sweeps.interrupts import Interrupts
from sweeps.options import named_as_in_python, settings_of
from sweeps.setup.data import SILENT

if TYPE_CHECKING:
    from sweeps.promotion.promotion import PromotionResult
    from sweeps.replaying.replay import ReplayResult

_LIMITS = {
    "alpha": values.level,
    "margin": values.margin,
    "min_accuracy": values.fraction,
    "max_recall_drop": values.fraction,
    "max_latency_ms": values.positive_number,
    "max_parameters": values.positive_int,
    "max_bytes": values.positive_int,
}


@named_as_in_python
def promote(
    name: str | None = None,
    *,
    model: str | None = None,
    tracking_uri: str | None = None,
    work_dir: str | Path = ".sweeps",
    force: str | None = None,
    dry_run: bool = False,
    **limits: float | None,
) -> PromotionResult:
    """Registers a model, and makes it the champion if the gate lets it, as `keras-sweeps promote`.

    A refusal is a result, not an error: `result.outcome == "refused"`, and `result.rules` say why.

    Args:
        name: a sweep, whose winner is meant, or a run's id; None for the sweep that began last.
        model: the registered model; None for one that follows from space and data set.
        tracking_uri: the store; None for the sweep's own.
        force: why the gate is to be ignored; this and your user name are recorded.
        dry_run: compare and tell, write nothing.
        limits: of the gate: alpha or margin, min_accuracy, max_recall_drop, max_latency_ms,
            max_parameters, max_bytes.

    Raises:
        InputError: There is no such sweep, run or store, or it has nothing to promote.
    """
    from sweeps.promotion.gate import Limits
    from sweeps.promotion.start import SilentPromotion, exclusive
    from sweeps.promotion.start import promote as start

    check_text("name", name)
    given = {key: _limit(key, value) for key, value in limits.items() if value is not None}
    if {"alpha", "margin"} <= given.keys():
        raise exclusive("alpha", "margin")
    with Interrupts() as interrupts:
        result = start(
            name, interrupts, SilentPromotion(), model=model, tracking_uri=tracking_uri,
            work_dir=Path(work_dir), limits=Limits(**given), force=force, dry_run=dry_run,
            data_progress=SILENT,
        )  # fmt: skip
    pass_on(interrupts.first)
    return result


def _limit(name: str, value: object) -> Any:
    if name not in _LIMITS:
        raise unknown_name("option", name, sorted(_LIMITS))
    try:
        return _LIMITS[name](value)
    except values.ValueRuleError as error:
        raise InputError(f"'{name}' {error}.") from None


@named_as_in_python
def replay(
    run_id: str,
    *,
    epochs: int | None = None,
    deterministic: bool = False,
    space: object = None,
    tracking_uri: str | None = None,
    work_dir: str | Path = ".sweeps",
    pass_env: str | Sequence[str] = (),
) -> ReplayResult:
    """Trains a recorded run again and compares it with itself, as `keras-sweeps replay` does.

    Args:
        run_id: the run, as MLflow names it, or how its id begins.
        epochs: how many are trained and compared; None for all that were recorded.
        deterministic: use only operations that repeat bit for bit; else as recorded.
        space: a custom space whose code may be run, where no sweep in `work_dir` is over it; the
            object itself, where the run's sweep was given one.
        pass_env: names of variables that it gets although they look like those of credentials.

    Raises:
        InputError: There is no such run, or it cannot be trained again.
    """
    from sweeps.replaying.replay import open_replay, train_and_compare

    found = open_replay(
        run_id, epochs=epochs, deterministic=deterministic,
        space=None if space is None else space_name(space), tracking_uri=tracking_uri,
        work_dir=Path(work_dir), pass_env=settings_of({"pass_env": pass_env}).pass_env,
        data_progress=SILENT,
    )  # fmt: skip
    with Interrupts() as interrupts:
        result = train_and_compare(found, interrupts)
    pass_on(interrupts.first)
    return result
