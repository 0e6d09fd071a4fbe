"""A sweep's options as they resolve: what starts the same sweep again."""

from __future__ import annotations

import json
from typing import Any

from pipelines.data.custom.sources import is_custom
from pipelines.data.prepared import PreparedData
from search_spaces.registry import short_name
from search_spaces.user_spaces.reference import is_given
from sweeps.options import OPTIONS
from sweeps.settings import SweepSettings, budget_for
from tracking.addresses import redacted
from tracking.stores import resolve_uri

CONFIG_FILE = "sweep.yaml"
_SWITCHED = {"no_baselines": "baselines", "prune_baselines": "protect_baselines"}
_AUTOMATIC = ("workers", "threads", "trials_per_gpu", "trial_timeout")


def option_values(settings: SweepSettings, data: PreparedData) -> dict[str, Any]:
    """Option -> value as a file has it; None for one that is not set.

    What depends on the data is filled in; passwords in addresses are left out.
    """
    budget = budget_for(settings, data.num_images["train"])
    # Of two options of one setting the first one is in the file.
    options = {option.setting: name for name, option in reversed(OPTIONS.items())}
    values: dict[str, Any] = {
        options.get(name, name): value for name, value in settings.values().items()
    }
    for option, setting in _SWITCHED.items():
        values[option] = not getattr(settings, setting)
    for option in _AUTOMATIC:
        if values[option] is None:
            values[option] = "auto"
    limit = budget.timeout_seconds
    values |= {
        "dataset": settings.dataset if is_custom(settings.dataset) else data.name,
        "epochs": budget.num_epochs,
        "timeout": "none" if limit is None else f"{limit:.15g}s",
        "tracking_uri": redacted(resolve_uri(settings.tracking_uri)),
        "storage": redacted(settings.storage),
        "experiment": settings.experiment or f"{short_name(settings.space)}-{data.name}",
        "finalists": settings.num_finalists or None,
    }
    for option in ("set", "fix"):
        values[option] = dict(rule.split("=", 1) for rule in values[option]) or None
    values["limit"] = dict(rule.split("<=", 1) for rule in values["limit"]) or None
    values["pass_env"] = ",".join(values["pass_env"]) or None
    if isinstance(values["trial_timeout"], float):
        values["trial_timeout"] = f"{values['trial_timeout']:.15g}s"
    return values


def config_lines(settings: SweepSettings, data: PreparedData) -> str:
    """The options that are set as a file for `--config`, without further words."""
    values = option_values(settings, data)
    lines = [
        f"{name.replace('_', '-')}: {json.dumps(values[name], ensure_ascii=False)}"
        for name in OPTIONS
        if values.get(name) is not None
    ]
    head = ["# Settings of a sweep: keras-sweeps run --config FILE"]
    if is_given(settings.space):
        head.append(
            "# The space is an object of a program: ks.run(space=...) takes it, no file does."
        )
    return "\n".join([*head, *lines]) + "\n"
