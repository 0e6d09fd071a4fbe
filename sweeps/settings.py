"""The settings of a sweep, validated, before anything is started."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field, fields, replace
from fractions import Fraction
from typing import Any, Literal

from pipelines.data.custom.sources import check_dataset
from pipelines.images.options import ImageOptions
from pipelines.objectives import check_measured, check_target, get_objective
from pipelines.training.options import TrainingOptions, option_infos
from search_spaces.errors import InputError, shown, unknown_name
from search_spaces.hyperparameters.narrowing import merged_rules, narrowed
from search_spaces.registry import get_space
from sweeps.engines.keras_tuner_oracles.protocol import DEFAULT_ORACLE, check_oracle
from sweeps.engines.limits import parse_limits
from sweeps.engines.optuna_study.samplers import check_sampler
from sweeps.engines.pruners.registry import HALVING, check_pruner
from sweeps.engines.pruners.rungs import (
    Rungs,
    check_min_epochs,
    default_min_epochs,
    make_rungs,
    parse_min_epochs,
)

DEFAULT_NUM_TRIALS = 24
"""Where there is no time limit either."""
DEFAULTS = 3
"""Of `SweepSettings.defaults`, for new sweeps."""
ENGINES = ("optuna", "keras-tuner")
DEFAULT_SAMPLER, DEFAULT_PRUNER = "prior", "asha"
DEFAULT_STORAGE = "sqlite:///optuna.db"
STORAGE_VARIABLE = "SWEEPS_STORAGE"
"""The study's storage where no option names one, as `MLFLOW_TRACKING_URI` is for MLflow."""
EXECUTORS = ("local", "ray")
LOCAL_NOTE = "; on this machine, because only the trials of a search use a cluster"
ADDRESS_VARIABLE = "RAY_ADDRESS"
"""The cluster where no option names one, as for Ray's own programs."""
DEFAULT_NODE_CACHE = "~/.cache/keras-sweeps"
DEFAULT_NODE_WAIT_SECONDS = 600.0
DEFAULT_NUM_FINALISTS = 3
DEFAULT_NUM_SEEDS = 5
RETRAIN = ("all", "none")
LARGE_DATA_IMAGES = 20_000
MAX_EXPERIMENT = 500
"""Characters that MLflow takes as the name of an experiment."""
ALL, NONE = "all", "none"
"""All GPUs, or none of them."""
_GPU = re.compile(r"[0-9]{1,4}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True)
class SweepSettings:
    """What a user asked for; None means that the sweep chooses.

    Attributes:
        dataset: a named data set, or a source of the user's own with an absolute path; None for
            MNIST, or the bundled digits where it cannot be had.
        num_trials: points to try at most; None for as many as the time limit allows.
        num_epochs: budget of every trial; None for one that fits the data set's size.
        timeout_seconds: no trial starts after it, running ones end with their epoch; None for no
            limit, `auto` for one that fits the data set's size.
        engine: who proposes: `optuna` with its `sampler`, or `keras-tuner` with its `oracle`.
        sampler, oracle: one of the two; None for the engine that does not use it.
        num_workers, num_threads: trials at once and threads of each; None for automatic.
        gpus: `all`, `none`, or indices with commas between, as `nvidia-smi` counts.
        trials_per_gpu: trials at once on each GPU; None measures what is fastest.
        num_kept_models: models in MLflow; those of the best trials.
        pruner, min_epochs, reduction_factor: which trials go on beyond which epochs; the first
            rung is a number of epochs or a fraction such as `1/9`, None for what fits the data.
        protect_baselines: whether baselines are trained in full whatever they reach.
        max_total_epochs, target, patience_trials: further rules that end the sweep.
        num_retries: further tries of a trial that failed where another try can help.
        stall_seconds: how long a trial may report nothing; None for automatic.
        num_audited: pruned trials that are trained to the end afterwards.
        num_finalists: configurations that are compared on fresh seeds afterwards; 0 for none.
        num_finalist_seeds: trainings of each.
        retrain: whether the winner is trained on all training data: `all` or `none`.
        offline: whether nothing is sent to the tracking store until it is asked for.
        image_size, resize, color, broken: as `pipelines.images.options.ImageOptions`, for a source
            of the user's own.
        narrowed: what is left of some parameters, as `NAME=A,B` or `NAME=LOW..HIGH`.
        fixed: parameters with one value, as `NAME=VALUE`.
        limits: what points may cost, as `parameters<=200k`.
        pass_env: names of variables that workers get although they are secrets.
        executor: where trials run: `local`, or on the nodes of a Ray cluster with `ray`.
        ray_address: HOST:PORT of its head, or `auto`; None for what the environment says.
        ray_insecure: whether a cluster without authentication is taken.
        node_cache: the folder for data and running trials on each node.
        node_wait_seconds: how long trials wait where the cluster has no node.
        training: how trials train.
        defaults: which release's rules hold where none was given; 1 for sweeps that began before
            rungs below an epoch, 2 for those in which `counts_untrained` is true.
    """

    space: str
    dataset: str | None = None
    num_trials: int | None = None
    num_epochs: int | None = None
    timeout_seconds: float | Literal["auto"] | None = "auto"
    objective: str = "val_accuracy"
    sampler: str | None = DEFAULT_SAMPLER
    seed: int = 0
    name: str | None = None
    baselines: bool = True
    num_workers: int | None = None
    num_threads: int | None = None
    gpus: str = ALL
    trials_per_gpu: int | None = None
    tracking_uri: str | None = None
    storage: str = DEFAULT_STORAGE
    experiment: str | None = None
    num_kept_models: int = 3
    work_dir: str = ".sweeps"
    pruner: str = DEFAULT_PRUNER
    min_epochs: int | str | None = None
    reduction_factor: int = 3
    protect_baselines: bool = False
    max_total_epochs: int | None = None
    target: str | None = None
    patience_trials: int | None = None
    num_retries: int = 2
    stall_seconds: float | None = None
    num_audited: int = 0
    num_finalists: int = 0
    num_finalist_seeds: int = DEFAULT_NUM_SEEDS
    retrain: str = "none"
    offline: bool = False
    image_size: str | None = None
    resize: str = ImageOptions.resize
    color: str = ImageOptions.color
    broken: str = ImageOptions.broken
    narrowed: tuple[str, ...] = ()
    fixed: tuple[str, ...] = ()
    limits: tuple[str, ...] = ()
    pass_env: tuple[str, ...] = ()
    engine: str = "optuna"
    oracle: str | None = None
    executor: str = EXECUTORS[0]
    ray_address: str | None = None
    ray_insecure: bool = False
    node_cache: str = DEFAULT_NODE_CACHE
    node_wait_seconds: float = DEFAULT_NODE_WAIT_SECONDS
    training: TrainingOptions = field(default_factory=TrainingOptions)
    defaults: int = DEFAULTS

    def __post_init__(self) -> None:
        # Lists, where they were read from a file.
        for name in ("narrowed", "fixed", "limits", "pass_env"):
            object.__setattr__(self, name, tuple(getattr(self, name)))

    @property
    def narrowing(self) -> tuple[str, ...]:
        """What is left of the space, one rule for a parameter.

        Raises:
            InputError: Two for one.
        """
        both = {r.partition("=")[0] for r in self.narrowed} & {
            r.partition("=")[0] for r in self.fixed
        }
        if both:
            raise InputError(f"--set and --fix both name '{min(both)}'. Leave one of them out.")
        return merged_rules((*self.narrowed, *self.fixed), "--set")

    @property
    def image_options(self) -> ImageOptions:
        """How custom images are read."""
        return ImageOptions(self.image_size, self.resize, self.color, self.broken)

    def validate(self, *, resumed: bool = False) -> None:
        """Raises InputError for the first rule that a setting breaks.

        Args:
            resumed: whether the sweep has begun: then its data are prepared, and their source may
                have moved.
        """
        space = get_space(self.space)
        get_objective(self.objective)
        if not space.reference:  # A user's is only known where Keras is.
            narrowed(space, self.narrowing)
            check_measured(self.objective, space.own_metrics, self.space)
        self.validate_common(resumed=resumed)
        check_pruner(self.pruner)
        self._validate_engine()
        if self.target is not None:
            check_target(self.target, get_objective(self.objective))
        if self.reduction_factor < 2:
            raise InputError(
                "--reduction-factor must be at least 2: the best 1/N of a rung continue. "
                f"Received: {self.reduction_factor}."
            )
        self._validate_rungs()
        self._validate_limits()
        check_num_seeds(self.num_finalist_seeds)

    def _validate_limits(self) -> None:
        parse_limits(self.limits)
        if self.limits and self.engine != "optuna":
            raise InputError(
                "--limit goes with --engine optuna. Received: --engine keras-tuner. Leave it out."
            )

    def _validate_rungs(self) -> None:
        if self.min_epochs is None:
            return
        first = parse_min_epochs(str(self.min_epochs))
        if self.num_epochs is not None and first > self.num_epochs:
            raise InputError(
                f"--min-epochs must be at most --epochs. Received: {first} and {self.num_epochs}."
            )
        if first < 1 and not self.has_early_rungs:
            raise InputError(
                "--min-epochs below 1 needs --engine optuna and a pruner with rungs. Received: "
                f"{first}, with --engine {self.engine} and --pruner {self.pruner}. Choose --pruner "
                "asha or hyperband, or a whole number of epochs."
            )

    @property
    def counts_untrained(self) -> bool:
        """Whether points that are not trained, because they repeat or break a limit, count as
        trials.
        """
        return self.defaults < 3

    @property
    def has_early_rungs(self) -> bool:
        """Whether trials can be compared below a whole epoch."""
        return self.engine == "optuna" and self.pruner in HALVING

    def _validate_engine(self) -> None:
        if self.engine not in ENGINES:
            raise unknown_name("engine", self.engine, ENGINES)
        if self.engine == "optuna":
            if self.oracle is not None:
                raise InputError(
                    f"--oracle goes with --engine keras-tuner. Received: {self.oracle}, with "
                    "--engine optuna. Add --engine keras-tuner, or name a --sampler instead."
                )
            assert self.sampler is not None
            check_sampler(self.sampler)
            return
        if self.sampler is not None:
            raise InputError(
                f"--sampler goes with --engine optuna. Received: {self.sampler}, with --engine "
                "keras-tuner. Leave it out, or name an --oracle instead."
            )
        assert self.oracle is not None
        check_oracle(self.oracle)
        if self.oracle == "hyperband" and (
            self.pruner != "none" or self.min_epochs not in (None, 1)
        ):
            raise InputError(
                "The oracle hyperband has rungs of its own, from one epoch on. Received: --pruner "
                f"{self.pruner} and --min-epochs {self.min_epochs}. Leave both out, or choose "
                "another: --oracle random."
            )

    def validate_common(self, *, resumed: bool = False) -> None:
        """The rules that hold without a search, too."""
        check_gpus(self.gpus)
        if self.gpus == NONE and self.trials_per_gpu is not None:
            raise InputError(
                "--trials-per-gpu needs a GPU. Received: "
                f"{self.trials_per_gpu}, and --gpus none. Leave one of them out."
            )
        self._validate_executor(resumed=resumed)
        self.training.check(get_space(self.space) if self.space else None)
        check_dataset(self.dataset, self.image_options, exists=not resumed)
        if self.name is not None:
            check_name(self.name)
        name = self.experiment
        if name is not None and not (name.strip() and len(name) <= MAX_EXPERIMENT):
            raise InputError(
                f"--experiment must have 1 to {MAX_EXPERIMENT} characters. Received: {shown(name)}."
            )

    def _validate_executor(self, *, resumed: bool) -> None:
        if self.executor not in EXECUTORS:
            raise unknown_name("executor", self.executor, EXECUTORS)
        if self.executor == "local":
            if self.ray_address is not None and not resumed:
                raise InputError(
                    f"--ray-address goes with --executor ray. Received: {self.ray_address}, "
                    "without it. Add --executor ray, or leave the address out."
                )
            return
        if self.gpus not in (ALL, NONE):
            raise InputError(
                "--gpus numbers the GPUs of one machine, so with --executor ray it must be all or "
                f"none. Received: {self.gpus}."
            )
        if self.pass_env:
            raise InputError(
                "--pass-env gives variables to workers of this machine; none travels to the nodes "
                f"of a cluster. Received: {', '.join(self.pass_env)} with --executor ray. Leave "
                "--pass-env out."
            )
        if self.ray_address is not None:
            check_ray_address(self.ray_address)

    def values(self) -> dict[str, Any]:
        """Name -> value of every setting, the training options among the others."""
        own = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "training"}
        return own | vars(self.training)

    def with_values(self, **changes: Any) -> SweepSettings:
        """The settings with some of `values` changed."""
        of_training = {name: changes.pop(name) for name in option_infos() if name in changes}
        return replace(self, **changes, training=replace(self.training, **of_training))

    def stored(self) -> dict[str, Any]:
        """The settings as sweep.json and the sweep's run have them."""
        own = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "training"}
        return own | self.training.stored()

    def as_params(self) -> dict[str, object]:
        """The settings for the record, without addresses, which may hold secrets."""
        hidden = {
            "tracking_uri", "storage", "work_dir", "experiment", "name", "defaults", "pass_env",
            "executor", "ray_address", "ray_insecure", "node_cache", "node_wait_seconds",
        }  # fmt: skip
        return {key: value for key, value in self.stored().items() if key not in hidden}


def check_name(name: str) -> None:
    """Raises InputError for a name that a sweep cannot have: it becomes a folder's."""
    if not _NAME.fullmatch(name):
        raise InputError(
            "--name must be at most 100 letters, digits, dots, dashes and underscores, and "
            f"start with a letter or digit. Received: {shown(name)}."
        )


def check_gpus(text: str) -> None:
    """Raises InputError unless `text` is `all`, `none` or indices with commas between."""
    if text in (ALL, NONE):
        return
    parts = text.split(",")
    if not all(map(_GPU.fullmatch, parts)) or len(set(parts)) < len(parts):
        raise InputError(
            "--gpus must be all, none, or different numbers as nvidia-smi counts them, such as "
            f"0,1. Received: {shown(text)}."
        )


def check_ray_address(address: str) -> None:
    """Raises InputError unless an address is HOST:PORT or `auto`."""
    host, _, port = address.rpartition(":")
    if address != "auto" and (not host or "/" in host or not port.isdecimal()):
        raise InputError(
            "--ray-address must be HOST:PORT of the cluster's head, or auto for the cluster that "
            f"this machine is a node of. Received: {address}."
        )


def check_num_seeds(num_seeds: int | None) -> None:
    """Raises InputError for a number of seeds from which nothing can be judged."""
    if num_seeds is not None and num_seeds < 2:
        raise InputError(
            f"--finalist-seeds must be at least 2: one value has no spread. Received: {num_seeds}."
        )


@dataclass(frozen=True)
class FinalOptions:
    """What was asked of a comparison of finalists; None for what it began with, or the default."""

    num_finalists: int | None = None
    num_seeds: int | None = None
    retrain: str | None = None


@dataclass(frozen=True)
class DefaultBudget:
    """Epochs of every trial and seconds in all, where none were given."""

    num_epochs: int
    timeout_seconds: float


DEFAULT_BUDGETS = {
    1: (DefaultBudget(4, 15 * 60.0), DefaultBudget(10, 3 * 60.0)),
    2: (DefaultBudget(8, 15 * 60.0), DefaultBudget(30, 3 * 60.0)),
}
DEFAULT_BUDGETS[3] = DEFAULT_BUDGETS[2]
"""For large and for small data sets, by `SweepSettings.defaults`. On two cores fifteen minutes try
some thirty points on MNIST and train a few of them in full (docs/search.md)."""
LARGE_DATA_BUDGET, SMALL_DATA_BUDGET = DEFAULT_BUDGETS[DEFAULTS]


@dataclass(frozen=True)
class Budget:
    """What a sweep may spend.

    Attributes:
        num_epochs: of every trial that is trained in full.
        timeout_seconds: in all; None for no limit.
        num_trials: points to try at most; None for as many as the time allows.
        rungs: where trials are compared.
        warmup_epochs: before them Optuna's own pruners stop nothing.
    """

    num_epochs: int
    timeout_seconds: float | None
    num_trials: int | None
    rungs: Rungs
    warmup_epochs: int = 1


def budget_for(settings: SweepSettings, num_train_images: int) -> Budget:
    """The budget: as asked for, else what fits the data set's size.

    Raises:
        InputError: The first rung is too small a part of an epoch.
    """
    large, small = DEFAULT_BUDGETS[settings.defaults]
    default = large if num_train_images >= LARGE_DATA_IMAGES else small
    limit, num_trials = settings.timeout_seconds, settings.num_trials
    seconds = default.timeout_seconds if limit == "auto" else limit
    if num_trials is None and seconds is None:
        num_trials = DEFAULT_NUM_TRIALS
    num_epochs = settings.num_epochs if settings.num_epochs is not None else default.num_epochs
    first = Fraction(1)
    if settings.min_epochs is not None:
        first = parse_min_epochs(str(settings.min_epochs))
        check_min_epochs(first, num_train_images)
    elif settings.has_early_rungs:
        first = default_min_epochs(num_train_images, num_epochs, settings.reduction_factor)
    rungs = make_rungs(first, num_epochs, settings.reduction_factor)
    return Budget(num_epochs, seconds, num_trials, rungs, math.ceil(first))


def chosen_search(
    engine: str, sampler: str | None, oracle: str | None, pruner: str | None
) -> dict[str, Any]:
    """Who proposes and who prunes: what was given, and the engine's own defaults elsewhere."""
    if engine == "keras-tuner":
        oracle = oracle or DEFAULT_ORACLE
    else:
        sampler = sampler or DEFAULT_SAMPLER
    if pruner is None:
        pruner = "none" if oracle == "hyperband" else DEFAULT_PRUNER
    return {"engine": engine, "sampler": sampler, "oracle": oracle, "pruner": pruner}
