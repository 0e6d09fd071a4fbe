"""Sweeps as programs see them: started, gone on with, and read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.data.prepared import PreparedData
from pipelines.objectives import Objective, get_objective
from search_spaces.errors import InputError
from search_spaces.hyperparameters import Params
from search_spaces.registry import get_space
from search_spaces.user_spaces.import_guard import check_may_train
from search_spaces.user_spaces.reference import GivenSpace, is_reference, other_object
from sweeps.api.arguments import (
    Callbacks,
    check_text,
    functions_of,
    output_of,
    pass_on,
    progress_of,
    space_name,
)
from sweeps.driver.board.trial import Trial, stored_trial
from sweeps.interrupts import Interrupts
from sweeps.options import named_as_in_python, settings_given, settings_of
from sweeps.outcome import Outcome
from sweeps.prediction.model import Model, load_model
from sweeps.reporting.console import speaker, warn, warnings_shown
from sweeps.reporting.leaderboard import print_summary
from sweeps.settings import FinalOptions, SweepSettings, budget_for
from sweeps.setup.data import SILENT, reopen_data
from sweeps.setup.given_arrays import stored_dataset
from sweeps.setup.resolved import CONFIG_FILE, config_lines
from sweeps.setup.resume import in_names_of_now, sweep_to_resume
from sweeps.setup.stores import check_locations
from sweeps.state.lock import is_driven
from sweeps.state.sweep_file import (
    BASELINES,
    FINISHED,
    INTERRUPTED,
    RUNNING,
    SEARCH,
    StoredSweep,
    check_addresses,
    passing,
    read_sweep_file,
    stored_sweep,
)
from tracking.addresses import redacted
from tracking.stores import absolute_uri

if TYPE_CHECKING:
    import pandas

    from sweeps.driver.search import SweepResult
    from sweeps.engines.optuna_study.storage import Study
    from sweeps.finalists.session import ComparisonResult
    from sweeps.finalists.start import RunResult
    from sweeps.setup.start import StartedSweep

_RUN_DEFAULTS = {"timeout": "auto", "seed": 0}


class SweepError(RuntimeError):
    """A sweep, or the comparison of its finalists, failed; what it has is stored.

    Attributes:
        sweep: the sweep as it is stored; where it can continue, `sweep.resume()` continues it.
    """

    def __init__(self, message: str, sweep: Sweep) -> None:
        super().__init__(message)
        self.sweep = sweep


@named_as_in_python
def run(
    space: object,
    dataset: object = None,
    *,
    trials: int | None = None,
    epochs: int | None = None,
    timeout: float | str | None = "auto",
    objective: str | None = None,
    sampler: str | None = None,
    pruner: str | None = None,
    seed: int = 0,
    name: str | None = None,
    on_trial_end: Callbacks = None,
    verbose: int = 1,
    resume: bool = False,
    accept_changes: bool = False,
    **options: Any,
) -> Sweep:
    """Runs a sweep to its end, as `keras-sweeps run` does.

    An interrupt ends it in order, so that it can be resumed, and reaches the program then: Ctrl-C
    raises KeyboardInterrupt.

    Args:
        space: what to search: a name, `FILE.py:NAME`, a space that `get_space` returned, a
            keras_tuner.HyperModel (class or instance), or a function `build(hp)`. What has no file
            of its own reaches the workers by value and is not stored. None only with `resume`.
        dataset: a name, a path, `(x, y)`, or a mapping with the names of an .npz (`x_train`,
            `y_train`, ...). Arrays are written once under the work folder, and are a custom .npz
            from there on.
        trials: points to try at most; None for as many as the time allows.
        epochs: full budget of a trial; None for what fits the data.
        timeout: seconds, or a text such as `15m`; None for no limit, `auto` for what fits the data.
        objective: what is optimised on the validation images; None for `val_accuracy`, or for the
            number that a HyperModel's own `fit` returns. A metric of your own is `NAME:max` or
            `NAME:min`.
        on_trial_end: called in this process with each `Trial` that ends; several are called in
            their order. One that raises ends the sweep, which can be resumed.
        verbose: 0 prints nothing.
        resume: continue the sweep of that `name`, or the latest unfinished one. Arguments that
            have their default count as not given then.
        accept_changes: with `resume`: accept settings that differ from the sweep's own.
        options: further options of `keras-sweeps run`, with underscores: `keep_models=5`.

    Raises:
        InputError: An option or the data cannot be used; nothing was started.
        SweepError: No trial completed, or the sweep broke off.
    """
    asked = {
        "trials": trials, "epochs": epochs, "timeout": timeout, "objective": objective,
        "sampler": sampler, "pruner": pruner, "seed": seed, "name": name,
    }  # fmt: skip
    given: dict[str, Any] = {
        key: value
        for key, value in asked.items()
        if (value is not None or key == "timeout") and _RUN_DEFAULTS.get(key) != value
    }
    given |= options
    if space is not None:
        given["space"] = space_name(space)
    if dataset is not None:
        given["dataset"] = dataset
    return _run(given, on_trial_end, verbose, resume=resume, accept_changes=accept_changes)


def _run(
    options: Mapping[str, Any],
    on_trial_end: Callbacks,
    verbose: int,
    *,
    resume: bool,
    accept_changes: bool,
) -> Sweep:
    from sweeps.finalists.start import run_sweep
    from sweeps.setup.start import Start

    check_may_train("runs a sweep")  # A program whose own file is the space.
    functions, given = functions_of(on_trial_end), settings_given(options)
    dataset = options.get("dataset")
    named = str(dataset) if isinstance(dataset, str | Path) else None
    settings = settings_of({**options, "dataset": named})
    if settings.space:
        settings = in_names_of_now(settings, given, resume=resume)
        # A name may be that of a sweep to continue, whose source may have moved.
        settings.validate(resumed=resume or "name" in given)
    elif not resume:
        raise InputError("space is required, such as ks.run('cnn'); only resume=True does without.")
    earlier = sweep_to_resume(settings, given, resume=resume)
    if earlier is not None and earlier.kind == BASELINES:
        raise InputError(
            f"The name '{earlier.settings.name}' belongs to a sweep of published models. Choose "
            "another name."
        )
    if dataset is not None and named is None:
        # Only now: gigabytes are not written for a misspelt option.
        if earlier is None:
            check_locations(settings, resume=False)
        settings = replace(settings, dataset=stored_dataset(dataset, Path(settings.work_dir)))
    start = Start(
        say=speaker(not verbose),
        config=lambda settings, data: {CONFIG_FILE: config_lines(settings, data)},
        given=given,
        earlier=earlier,
        accept_changes=accept_changes,
        data_progress=progress_of(verbose),
    )
    with warnings_shown() if verbose else nullcontext():
        result = run_sweep(
            settings, start, output_of(verbose), partial(_print_search, verbose), functions
        )
    sweep = Sweep(result.sweep, _given(settings))
    pass_on(result.signal)
    _raise_failure(result, sweep)
    return sweep


def _print_search(verbose: int, result: SweepResult, started: StartedSweep) -> None:
    if verbose:
        print_summary(result.board, result.reason)
        for line in result.problems:
            warn(line)


def _raise_failure(result: RunResult, sweep: Sweep) -> None:
    """Raises SweepError where the search or the comparison failed."""
    search, comparison = result.search, result.comparison
    if search.outcome is Outcome.FAILED:
        failed = search.failed_trial
        latest = f" Latest: {failed.reason}" if failed is not None else ""
        message = search.error or f"No trial completed: {search.reason}.{latest}"
        raise SweepError(message, sweep) from search.cause
    if comparison is not None and comparison.outcome is Outcome.FAILED:
        raise SweepError(comparison.error, sweep) from comparison.cause


def _given(settings: SweepSettings) -> GivenSpace | None:
    return settings.space if isinstance(settings.space, GivenSpace) else None


@named_as_in_python
def load_sweep(name: str | None = None, work_dir: str | Path = ".sweeps") -> Sweep:
    """The stored sweep of that name, or the one that began last.

    Raises:
        InputError: There is none.
    """
    check_text("name", name)
    return Sweep(stored_sweep(Path(work_dir), name, needed=(), kind=SEARCH))


@dataclass(frozen=True)
class Sweep:
    """A sweep as it is stored: properties read what there is now, also while it runs elsewhere.

    A relative address of a store means the folder that the program was in when it got the sweep.
    """

    stored: StoredSweep
    _space: GivenSpace | None = field(default=None, repr=False, compare=False)
    _folder: Path = field(default_factory=Path.cwd, repr=False, compare=False)

    @property
    def name(self) -> str:
        """Its name, which is its study's, too."""
        return self.stored.paths.name

    @property
    def state(self) -> str:
        """`running` where a process drives it, `interrupted` if it can continue, or `finished`."""
        if is_driven(self.stored.paths):
            return RUNNING
        return FINISHED if read_sweep_file(self.stored.paths.state).is_finished else INTERRUPTED

    @property
    def objective(self) -> Objective:
        """What it optimises, and which way is better."""
        return get_objective(self._settings.objective)

    @property
    def trials(self) -> list[Trial]:
        """All trials so far, by number."""
        from sweeps.engines.optuna_study.storage import open_storage, read_study, study_errors

        settings, name = self._settings, self.name
        space = None if is_reference(settings.space) else get_space(settings.space)
        reports = budget_for(settings, self.data.num_images["train"]).rungs.reports
        try:
            with study_errors(self._storage):
                found = read_study(
                    open_storage(self._storage, existing=True), name, space, settings.sampler
                )
        except KeyError:
            raise InputError(
                f"The storage {redacted(settings.storage)} has no study '{name}'. Load the sweep "
                "in the folder that it was started in."
            ) from None
        return [stored_trial(trial, reports) for trial in found]

    @property
    def best_trial(self) -> Trial:
        """The best complete trial; of equals the earlier one.

        Raises:
            InputError: No trial is complete.
        """
        complete = [t for t in self.trials if t.value is not None and t.duplicate_of is None]
        if not complete:
            raise InputError(f"Sweep '{self.name}' has no complete trial, so it has no best one.")
        key = self.objective.sort_key
        return min(complete, key=lambda trial: (key(trial.value or 0.0), trial.number))

    @property
    def best_params(self) -> Params:
        """The active parameters of `best_trial`."""
        return self.best_trial.params

    @property
    def best_value(self) -> float:
        """The objective of `best_trial`."""
        value = self.best_trial.value
        assert value is not None
        return value

    def trials_dataframe(self) -> pandas.DataFrame:
        """One row per trial, and a column `params_NAME` for each parameter."""
        import pandas

        rows = [
            {
                "number": trial.number,
                "state": trial.state.value,
                "value": trial.value,
                "best_epoch": trial.best_epoch,
                "epochs": max(trial.curve, default=0.0),
                "seconds": trial.seconds,
                "num_parameters": trial.num_parameters,
                "baseline": trial.baseline,
                "proposed_by": trial.proposed_by,
                "reason": trial.reason,
                **{f"params_{name}": value for name, value in trial.params.items()},
            }
            for trial in self.trials
        ]
        return pandas.DataFrame(rows)

    @property
    def study(self) -> Study:
        """The Optuna study, for Optuna's own functions; it belongs to the sweep's driver."""
        from sweeps.engines.optuna_study.storage import open_study

        return open_study(self._storage, self.name)

    @property
    def run_id(self) -> str | None:
        """The sweep's run in MLflow; None where nothing was sent yet."""
        from sweeps.finalists.selection import sweep_run_id

        return sweep_run_id(self.stored.paths)

    def trial_run_id(self, number: int) -> str | None:
        """A trial's run in MLflow, by the trial's number; None where it was not sent yet."""
        from sweeps.finalists.selection import sweep_run_id

        return sweep_run_id(self.stored.paths, number)

    @property
    def tracking_uri(self) -> str:
        """The MLflow store that it is recorded in, for `MlflowClient`."""
        return absolute_uri(self.stored.uri, self._folder)

    @cached_property
    def data(self) -> PreparedData:
        """The data set that it began with.

        Raises:
            InputError: It is not prepared any more, and its source is gone or has changed.
        """
        file, paths = self.stored.file, self.stored.paths
        return reopen_data(
            file.data_name, file.data_fingerprint, paths.data, file.settings, progress=SILENT
        )

    @named_as_in_python
    def resume(
        self,
        *,
        space: object = None,
        on_trial_end: Callbacks = None,
        verbose: int = 1,
        accept_changes: bool = False,
        **options: Any,
    ) -> Sweep:
        """Goes on with the sweep; a finished one needs more of something: `trials=50`.

        Args:
            space: the object that `run` was given, where another process gave it and it has no file
                of its own.
            options: those of `run` that are to be different now.

        Raises:
            InputError: An option cannot change any more, or as `run`.
            SweepError: As `run`.
        """
        own = {"name": self.name, "work_dir": self._settings.work_dir}
        for name in own.keys() & options.keys():
            raise InputError(
                f"'{name}' is the sweep's own: leave it out. Received: {options[name]!r}."
            )
        self._check_folder()
        given = options | own
        known = self._space if space is None else space_name(space)
        if known is not None:
            given["space"] = known
        return _run(given, on_trial_end, verbose, resume=True, accept_changes=accept_changes)

    @named_as_in_python
    def finalize(
        self,
        finalists: int | None = None,
        finalist_seeds: int | None = None,
        retrain: str | None = None,
        *,
        unfinished: bool = False,
        space: object = None,
        pass_env: str | Sequence[str] | None = None,
        verbose: int = 1,
    ) -> ComparisonResult:
        """Compares the best configurations on fresh seeds, as `keras-sweeps finalize` does.

        Args:
            finalists, finalist_seeds: configurations, and trainings of each; None for what the
                sweep was given.
            retrain: `all` to train the winner on all training data.
            unfinished: whether the best so far of an unfinished sweep will do.
            space: as in `resume`.
            pass_env: names of variables that trainings get although they look like those of
                credentials; None for those that the sweep was started with.

        Raises:
            InputError: The sweep has not ended, or a comparison with other options began.
            SweepError: The comparison failed.
        """
        from sweeps.finalists.start import finalize_stored

        asked = {"finalists": finalists, "finalist_seeds": finalist_seeds, "retrain": retrain}
        names = settings_of(asked | {"pass_env": pass_env or ()}).pass_env  # Checks them all.
        options = FinalOptions(finalists, finalist_seeds, retrain)
        self._check_folder()
        check_addresses(self._settings, ("tracking_uri", "storage"))
        interrupts, output = Interrupts(), output_of(verbose)
        with warnings_shown() if verbose else nullcontext():
            result = finalize_stored(
                passing(self._with_space(space), None if pass_env is None else names),
                options, output, interrupts, unfinished=unfinished,
            )  # fmt: skip
        if verbose and result.report:
            speaker(quiet=False)(result.report)
        pass_on(interrupts.first)
        if result.outcome is Outcome.FAILED:
            raise SweepError(result.error, self) from result.cause
        return result

    @named_as_in_python
    def load_model(self) -> Model:
        """The model of its finalists' winner, or else of its best trial, out of MLflow.

        Raises:
            InputError: It is not there, or cannot be loaded.
        """
        from tracking.errors import store_errors
        from tracking.models.model_store import ModelStore
        from tracking.stores import check_existing_store

        uri = self.tracking_uri
        check_existing_store(uri)
        with store_errors(uri):
            run_id, _ = ModelStore(uri).run_of_sweep(self.name)
        return load_model(run_id, tracking_uri=uri)

    @property
    def _storage(self) -> str:
        return absolute_uri(self._settings.storage, self._folder)

    def _check_folder(self) -> None:
        """Raises InputError where the sweep's relative addresses would mean other stores now."""
        is_relative = (
            self.tracking_uri != self.stored.uri or self._storage != self._settings.storage
        )
        if is_relative and Path.cwd() != self._folder:
            raise InputError(
                f"Sweep '{self.name}' is in {self._folder}, and this program is in {Path.cwd()} "
                "now. Change back with os.chdir."
            )

    def _with_space(self, space: object) -> StoredSweep:
        """The stored sweep, with the object that it searches where it is one."""
        known = self._space if space is None else space_name(space)
        if not isinstance(known, GivenSpace):
            return self.stored
        if known != self._settings.space:
            raise other_object(self._settings.space)
        file = self.stored.file
        return replace(
            self.stored, file=replace(file, settings=replace(file.settings, space=known))
        )

    def __repr__(self) -> str:
        return f"<Sweep '{self.name}', {self.state}>"

    @property
    def _settings(self) -> SweepSettings:
        return self.stored.file.settings
