"""Begins the comparison of a sweep's finalists, once."""

from __future__ import annotations

import uuid

from pipelines.objectives import get_objective
from search_spaces.errors import InputError
from search_spaces.space import Space
from sweeps.finalists.selection import (
    FinalistsFile,
    finalists_path,
    fresh_seed,
    pick_finalists,
    read_finalists,
    write_finalists,
)
from sweeps.settings import DEFAULT_NUM_FINALISTS, FinalOptions, budget_for
from sweeps.state.stored_sweep import StoredSweep


def begin_finalists(
    sweep: StoredSweep, space: Space, options: FinalOptions, num_train_images: int
) -> FinalistsFile:
    """The comparison of a sweep: the one that began already, or a new one.

    Raises:
        InputError: One began with other options, or the sweep has nothing to compare.
    """
    path = finalists_path(sweep.paths)
    found = read_finalists(path)
    if found is not None:
        _check_same(found, options)
        return found
    from sweeps.engines.optuna_study.storage import open_storage, read_study

    settings = sweep.file.settings
    try:
        trials = read_study(
            open_storage(settings.storage), sweep.paths.name, space,
            settings.sampler,
        )  # fmt: skip
    except KeyError:
        raise InputError(
            f"A sweep's study must be in its storage. Received: '{sweep.paths.name}', which that "
            "--storage does not hold."
        ) from None
    num_finalists = options.num_finalists or settings.num_finalists or DEFAULT_NUM_FINALISTS
    picked = pick_finalists(trials, get_objective(settings.objective), num_finalists)
    file = FinalistsFile(
        uid=uuid.uuid4().hex,
        seed=fresh_seed(settings.seed),
        num_seeds=options.num_seeds or settings.num_finalist_seeds,
        num_epochs=budget_for(settings, num_train_images).num_epochs,
        num_asked=num_finalists,
        num_trials=len(trials),
        retrain=options.retrain or settings.retrain,
        finalists=picked,
    )
    write_finalists(path, file)
    return file


def _check_same(file: FinalistsFile, options: FinalOptions) -> None:
    for option, asked, began in (
        ("--finalists", options.num_finalists, file.num_asked),
        ("--finalist-seeds", options.num_seeds, file.num_seeds),
        ("--retrain", options.retrain, file.retrain),
    ):
        if asked not in (None, began):
            raise InputError(
                "A sweep's finalists are compared once, because their test results are known "
                f"then. Received: {option} {asked}, and the comparison began with {began}. Leave "
                "the option out."
            )
