"""A sweep's settings by the names of their options: what command line, file and Python share.

An option is called `--keep-models` on the command line, `keep-models` in a file, and `keep_models`
in Python; its setting may have yet another name.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, fields
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from pipelines.data.custom.sources import absolute_dataset
from pipelines.images.options import BROKEN, COLORS, RESIZES
from pipelines.runtime.surroundings import warnings_shown
from pipelines.training.options import OptionInfo, TrainingOptions, option_infos
from search_spaces.errors import InputError, unknown_name
from search_spaces.hyperparameters.narrowing import check_names, merged_rules
from search_spaces.registry import SPACES, stored_name
from sweeps.option_values import (
    ValueRuleError,
    duration,
    duration_or_auto,
    first_rung,
    gpu_indices,
    image_size,
    limits,
    names,
    natural_int,
    objective,
    or_auto,
    parallel_int,
    path,
    positive_int,
    rules,
    switch,
    text,
    timeout,
)
from sweeps.settings import (
    DEFAULT_STORAGE,
    ENGINES,
    EXECUTORS,
    RETRAIN,
    STORAGE_VARIABLE,
    SweepSettings,
    chosen_search,
)

_SEARCH = ("engine", "sampler", "oracle", "pruner")
"""Those whose defaults depend on each other."""


@dataclass(frozen=True)
class Option:
    """One option of a sweep.

    Attributes:
        setting: the field of `SweepSettings`, or of its `training`, that it gives.
        read: turns a text or a Python value into what the field holds; raises `ValueRuleError`.
        choices: its values, where they are few.
    """

    setting: str
    read: Callable[[Any], Any]
    choices: tuple[str, ...] = ()


_count, _natural = positive_int, natural_int
_count_or_auto, _parallel_or_auto = or_auto(positive_int), or_auto(parallel_int)


def _training_option(name: str, info: OptionInfo, default: object) -> Option:
    if info.choices:
        return Option(name, text, info.choices)
    return Option(name, switch if isinstance(default, bool) else _count)


OPTIONS: dict[str, Option] = {
    "space": Option("space", text),
    "dataset": Option("dataset", text),
    "trials": Option("num_trials", _count),
    "epochs": Option("num_epochs", _count_or_auto),
    "timeout": Option("timeout_seconds", timeout),
    "objective": Option("objective", objective),
    "sampler": Option("sampler", text),
    "seed": Option("seed", _natural),
    "name": Option("name", text),
    "workers": Option("num_workers", _parallel_or_auto),
    "image_size": Option("image_size", image_size),
    "resize": Option("resize", text, RESIZES),
    "color": Option("color", text, COLORS),
    "broken": Option("broken", text, BROKEN),
    "set": Option("narrowed", rules),
    "fix": Option("fixed", rules),
    "limit": Option("limits", limits),
    "engine": Option("engine", text, ENGINES),
    "oracle": Option("oracle", text),
    "pruner": Option("pruner", text),
    "min_epochs": Option("min_epochs", first_rung),
    "reduction_factor": Option("reduction_factor", _count),
    "protect_baselines": Option("protect_baselines", switch),
    # What is the default now: older commands and files may still say it.
    "prune_baselines": Option("protect_baselines", switch),
    "audit": Option("num_audited", _natural),
    "max_total_epochs": Option("max_total_epochs", _count),
    "target": Option("target", text),
    "no_improvement": Option("patience_trials", _count),
    "retries": Option("num_retries", _natural),
    "trial_timeout": Option("stall_seconds", duration_or_auto),
    "finalists": Option("num_finalists", _natural),
    "finalist_seeds": Option("num_finalist_seeds", _count),
    "retrain": Option("retrain", text, RETRAIN),
    "no_baselines": Option("baselines", switch),
    "threads": Option("num_threads", _parallel_or_auto),
    "gpus": Option("gpus", gpu_indices),
    "trials_per_gpu": Option("trials_per_gpu", _parallel_or_auto),
    "tracking_uri": Option("tracking_uri", text),
    "experiment": Option("experiment", text),
    "storage": Option("storage", text),
    "work_dir": Option("work_dir", path),
    "keep_models": Option("num_kept_models", _natural),
    "offline": Option("offline", switch),
    "pass_env": Option("pass_env", names),
    "executor": Option("executor", text, EXECUTORS),
    "ray_address": Option("ray_address", text),
    "ray_insecure": Option("ray_insecure", switch),
    "node_cache": Option("node_cache", text),
    "node_wait": Option("node_wait_seconds", duration),
    **{
        f.name: _training_option(f.name, f.metadata["option"], f.default)
        for f in fields(TrainingOptions)
    },
}
"""Name -> option, with underscores."""


def default_storage() -> str:
    """The study's storage where no option names one."""
    return os.environ.get(STORAGE_VARIABLE) or DEFAULT_STORAGE


def settings_of(options: Mapping[str, Any]) -> SweepSettings:
    """The settings that some options mean; for those that are left out, or None, their defaults.

    Args:
        options: name -> value: a text as on the command line, or a Python value. Durations are in
            seconds; a `timeout` of None is no limit.

    Raises:
        InputError: There is no such option, a value that it cannot have, or no such space.
    """
    found: dict[str, Any] = {}
    for given, value in options.items():
        name = given.replace("-", "_")
        option = _option(name)
        if value is None and name != "timeout":
            continue
        found[name] = _read(name, option, value)
    return _settings(found)


def settings_given(options: Collection[str]) -> set[str]:
    """The names of the settings that options give; a name that is no option's stays."""
    names = (name.replace("-", "_") for name in options)
    return {OPTIONS[name].setting if name in OPTIONS else name for name in names}


def _option(name: str) -> Option:
    if name not in OPTIONS:
        raise unknown_name("option", name, sorted(OPTIONS))
    return OPTIONS[name]


def _read(name: str, option: Option, value: object) -> Any:
    try:
        found = option.read(value)
    except ValueRuleError as error:
        raise InputError(f"'{name}' {error}.") from None
    if option.choices and found not in option.choices:
        raise unknown_name(name, found, option.choices)
    return found


def _rules(option: str, texts: Collection[str], space: str) -> tuple[str, ...]:
    """The rules of `set` or `fix`, one for a name.

    Raises:
        InputError: One has another form; where its name is unknown, too, that is said.
    """
    try:
        return merged_rules(texts, f"--{option}")
    except InputError:
        known = SPACES.get(stored_name(space)) if space else None
        if known is not None:
            check_names(known, texts)
        raise


def _settings(found: dict[str, Any]) -> SweepSettings:
    """The settings of options that have been read."""
    search = chosen_search(
        found.pop("engine", "optuna"), *(found.pop(name, None) for name in _SEARCH[1:])
    )
    space, dataset = found.pop("space", ""), found.pop("dataset", None)
    if found.pop("prune_baselines", False):
        found["protect_baselines"] = False
    if "no_baselines" in found:
        found["no_baselines"] = not found["no_baselines"]
    for name in ("set", "fix"):
        if name in found:
            found[name] = _rules(name, found[name], space)
    found.setdefault("storage", default_storage())
    training = {name: found.pop(name) for name in option_infos() if name in found}
    return SweepSettings(
        space=stored_name(space) if space else "",
        dataset=absolute_dataset(dataset),
        training=TrainingOptions(**training),
        **{OPTIONS[name].setting: value for name, value in found.items()},
        **search,
    )


# Commands in a message stay as they are.
_OPTION = re.compile(r"`[^`]*`|(?:keras-sweeps|mlflow|pip) [^.]*|--([a-z]+(?:-[a-z]+)*)")
_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


def named_as_in_python(
    function: Callable[_Arguments, _Result],
) -> Callable[_Arguments, _Result]:
    """A function of a program: its errors call options by the names of arguments.

    `--min-epochs must be ...` becomes `min_epochs must be ...`. Warnings that the program makes
    errors are shown.
    """

    @wraps(function)
    def called(*positional: _Arguments.args, **named: _Arguments.kwargs) -> _Result:
        try:
            with warnings_shown():
                return function(*positional, **named)
        except InputError as error:
            error.args = (_OPTION.sub(_argument, str(error)),)
            raise

    return called


def _argument(match: re.Match[str]) -> str:
    return match[0] if match[1] is None else match[1].replace("-", "_")
