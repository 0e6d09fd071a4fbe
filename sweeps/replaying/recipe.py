"""What a recorded run was trained with, and the task that trains it again."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

from pipelines.data.prepared import PreparedData
from pipelines.objectives import Objective, get_objective
from pipelines.runtime.compute import Compute
from pipelines.training.options import TrainingOptions
from pipelines.training.reports import Reports
from pipelines.training.trial import Schedule, TrainOn, TrialTask
from search_spaces.errors import InputError
from search_spaces.hyperparameters import HyperParameters, Parameter, Params, Value
from search_spaces.hyperparameters.parameter import (
    INACTIVE,
    RUN_PARAMS,
    recorded_name,
    recorded_value,
)
from search_spaces.registry import SPACES, get_space, recorded_space
from search_spaces.space import Space
from search_spaces.user_spaces.reference import Sources
from sweeps.executors.base import Slot
from sweeps.formatting import count
from sweeps.resources.machine import Machine, allot
from sweeps.setup.space import tagged_space
from sweeps.state.recorded_options import recorded_options
from tracking.tags import Tag

if TYPE_CHECKING:
    from tracking.runs.run_reader import RecordedRun

TRAINED_KINDS = ("trial", "finalist", "retrained")
TRAINED_ON = ("train", "train+validation")


@dataclass(frozen=True)
class Device:
    """What a run is trained on: `gpu` is the name of one, None for the cores.

    `num_threads` is None where it is not known: that of a GPU's run is not recorded, nor that of a
    trial that died.
    """

    gpu: str | None
    num_threads: int | None

    @property
    def text(self) -> str:
        """As people read it."""
        if self.gpu is not None:
            return f"GPU {self.gpu}"
        if self.num_threads is None:
            return "CPU with an unknown number of threads"
        return f"CPU with {count(self.num_threads, 'thread')}"


@dataclass(frozen=True)
class Recipe:
    """All that the numbers of a run follow from, but for libraries, code and machine.

    Attributes:
        num_epochs: the span of its schedule, whether or not it was trained so far.
        reports: when it reported.
        training: the options; what ended a trial early is none of them.
        deterministic: None where the run of its sweep, which knew it, is gone.
        num_workers, num_threads: what the sweep was told of sharing the machine.
    """

    space: str
    params: Params
    seed: int
    num_epochs: int
    reports: Reports
    train_on: TrainOn
    objective: Objective
    training: TrainingOptions
    deterministic: bool | None
    data_name: str
    data_fingerprint: str
    device: Device
    num_workers: int | None = None
    num_threads: int | None = None
    sources: Sources = ()

    @property
    def compute(self) -> Compute:
        """With what numbers were computed."""
        return self.training.compute

    def task(
        self, data: PreparedData, folder: str, last_step: int, *, deterministic: bool
    ) -> TrialTask:
        """What a worker needs to train up to `last_step`, or to the end of its epoch.

        No patience ends it early: what was recorded is trained again, neither less nor more.
        """
        return TrialTask(
            number=0,
            space=self.space,
            params=self.params,
            data=data,
            schedule=Schedule(
                self.num_epochs,
                self.train_on,
                math.ceil(self.reports.epochs(last_step)),
                reports=self.reports,
            ),
            seed=self.seed,
            objective=self.objective,
            folder=folder,
            training=replace(self.training, deterministic=deterministic, early_stopping=None),
            sources=self.sources,
        )


def recipe_of(
    run: RecordedRun, trusted: Collection[str] = (), pass_env: tuple[str, ...] = ()
) -> Recipe:
    """How a run was trained.

    Args:
        trusted: references of the user's own spaces whose code may be run.
        pass_env: as `start_workers` takes it, for that code.

    Raises:
        InputError: It cannot be trained again; the message says why.
    """
    _check_trained(run)
    tags, parent = run.tags, run.parent_params or {}
    space = _space_of(run, trusted, pass_env)
    train_on = run.params.get("train_on", "train")
    if train_on not in TRAINED_ON:
        raise _unfit(run, f"param train_on '{train_on}', not one of {', '.join(TRAINED_ON)}")
    data_name = tags.get(Tag.DATA) or parent.get("dataset")
    if data_name is None:
        raise _unfit(run, f"neither its tag {Tag.DATA} nor the run of its sweep names a data set")
    known = run.parent_params is not None
    return Recipe(
        space=space.key,
        params=params_of(space, run.params),
        seed=_whole(run, f"tag {Tag.SEED}", tags.get(Tag.SEED)),
        num_epochs=_whole(run, "param max_epochs", run.params.get("max_epochs")),
        reports=_reports(run),
        train_on=cast(TrainOn, train_on),
        objective=get_objective(parent.get("objective", "val_accuracy")),
        deterministic=parent.get("deterministic") == "True" if known else None,
        data_name=data_name,
        data_fingerprint=tags.get(Tag.DATA_FINGERPRINT, ""),
        device=parse_device(tags.get(Tag.DEVICE, "cpu")),
        num_workers=_optional(parent.get("num_workers")),
        num_threads=_optional(parent.get("num_threads")),
        training=recorded_options(tags, parent),
        sources=space.sources,
    )


def _reports(run: RecordedRun) -> Reports:
    """When the run reported; the steps within its first epoch are those that it has."""
    text = run.params.get("steps_per_epoch", "1")
    per_epoch = _whole(run, "param steps_per_epoch", text)
    return Reports(per_epoch, tuple(step for step in sorted(run.epochs) if step < per_epoch))


def params_of(space: Space, recorded: Mapping[str, str]) -> Params:
    """The point of the space that a run's params tell.

    Raises:
        InputError: It is none, or not the whole one: the space has changed.
    """
    texts = {name: text for name, text in recorded.items()
             if text != INACTIVE and name not in RUN_PARAMS}  # fmt: skip
    hp = _RecordedHyperParameters(space.name, texts)
    params = space.sample(hp)
    for name in texts:
        if name not in map(recorded_name, params):
            known = name in {recorded_name(parameter.name) for parameter in hp.space}
            state = (
                f"'{name}' is inactive at this point of space '{space.name}' now"
                if known
                else f"space '{space.name}' has no parameter '{name}' now"
            )
            raise InputError(
                f"The run's params do not fit its space: {state}. Replay the run with the code "
                "that it ran with."
            )
    if hp.missing:
        raise InputError(
            f"The run's params do not fit its space: they lack {', '.join(hp.missing)}, which "
            f"space '{space.name}' has now. Replay the run with the code that it ran with."
        )
    return params


class _RecordedHyperParameters(HyperParameters):
    """Returns the values that a run's params hold as texts."""

    def __init__(self, space: str, texts: Mapping[str, str]) -> None:
        super().__init__()
        self._space_name, self._texts = space, texts
        self.missing: list[str] = []

    def suggest(self, parameter: Parameter) -> Value:
        """The value that is written so, as its parameter reads it."""
        text = self._texts.get(recorded_name(parameter.name))
        if text is None:
            self.missing.append(parameter.name)
            return parameter.default
        value = _parsed(parameter, text)
        if value is None or not parameter.contains(value):
            raise InputError(
                f"The run's '{parameter.name}' is '{text}', but the space has "
                f"{parameter.range_text()} now. Replay the run with the code that it ran with."
            )
        return value


def parse_device(text: str) -> Device:
    """The device that a run's tag names: `cpu, 2 threads`, `gpu 0: NAME`, or `cpu` alone."""
    if text.startswith("gpu"):
        return Device(text.partition(": ")[2] or "of unknown name", None)
    match = re.search(r"(\d+) thread", text)
    return Device(None, int(match[1]) if match else None)


def slot_like(recipe: Recipe, machine: Machine) -> tuple[Slot, Device]:
    """The share of this machine that is most like what the run was trained on."""
    was, cores_only = recipe.device, replace(machine, gpus=())
    num_workers = recipe.num_workers
    if was.gpu is None or not machine.gpus:
        automatic = allot(cores_only, num_workers, recipe.num_threads).slots[0]
        # As many as then, whatever cores there are: sums are split by them.
        slot = Slot(0, was.num_threads or automatic.num_threads)
        return slot, Device(None, slot.num_threads)
    gpu = next((gpu for gpu in machine.gpus if gpu.name == was.gpu), machine.gpus[0])
    workers = min(num_workers, len(machine.gpus)) if num_workers else None
    threads = allot(machine, workers, recipe.num_threads).slots[0].num_threads
    return Slot(0, threads, gpu.index, gpu_bytes=gpu.memory_bytes), Device(gpu.name, None)


def _check_trained(run: RecordedRun) -> None:
    """Raises InputError unless the run was trained by a sweep, for an epoch at least."""
    kind = run.tags.get(Tag.KIND)
    if kind is None:
        raise _unfit(run, f"no tag {Tag.KIND}: keras-sweeps did not record it")
    if kind not in TRAINED_KINDS:
        choice = f"Choose one of its children: {', '.join(run.related)}." if run.related else ""
        raise InputError(
            f"Run {run.run_id} ({run.name}) cannot be replayed: it is of kind '{kind}', a parent "
            f"of the runs that were trained. {choice}"
        )
    if run.epochs:
        return
    number = run.tags.get(Tag.DUPLICATE_OF)
    if number is not None:
        first = run.related[0] if run.related else f"that of trial {number}"
        raise InputError(
            f"Run {run.run_id} ({run.name}) cannot be replayed: it was not trained, because it "
            f"repeats the point of trial {number}. Replay {first}."
        )
    why = run.tags.get(Tag.REASON, "")
    raise InputError(
        f"Run {run.run_id} ({run.name}) cannot be replayed: it has no recorded epoch to compare "
        f"with ({run.tags.get(Tag.STATE, 'no state')}{f': {why}' if why else ''})."
    )


def _space_of(run: RecordedRun, trusted: Collection[str], pass_env: tuple[str, ...]) -> Space:
    """The run's space; raises InputError where the present code has another one or none."""
    name = recorded_space(run.tags.get(Tag.SPACE, ""), run.params)
    space = tagged_space(run.tags, run.params, trusted, pass_env)
    if space is None:
        if name not in SPACES:
            raise _unfit(run, f"unknown space '{name}'; there are {', '.join(SPACES)}")
        space = get_space(name)
    # The runs of `--baselines-only` have none: there the params alone must fit.
    fingerprint = run.tags.get(Tag.SPACE_FINGERPRINT, space.fingerprint)
    if fingerprint != space.fingerprint:
        commit = run.tags.get("mlflow.source.git.commit")
        raise InputError(
            f"Run {run.run_id} cannot be replayed: its space '{name}' has changed (fingerprint "
            f"{fingerprint}, here {space.fingerprint}). Replay it with the code that it ran with"
            f"{f', commit {commit}' if commit else ''}."
        )
    return space


def _parsed(parameter: Parameter, text: str) -> Value | None:
    if parameter.kind in ("choice", "boolean", "fixed"):
        return next(
            (choice for choice in parameter.choices if recorded_value(choice) == text), None
        )
    try:
        return int(text) if parameter.kind == "int" else float(text)
    except ValueError:
        return None


def _whole(run: RecordedRun, what: str, text: str | None) -> int:
    if text is None or not text.isdecimal():
        raise _unfit(run, f"{what} {'missing' if text is None else repr(text)}, not a number")
    return int(text)


def _optional(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdecimal() else None


def _unfit(run: RecordedRun, what: str) -> InputError:
    return InputError(f"Run {run.run_id} ({run.name}) cannot be replayed: {what}.")
