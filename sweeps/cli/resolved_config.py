"""The settings of a sweep as it resolved them, as a file that starts the same sweep again."""

from __future__ import annotations

from typing import Any

from pipelines.data.custom.sources import is_own
from pipelines.data.prepared import PreparedData
from search_spaces.registry import short_name
from sweeps.cli.config_file import config_text
from sweeps.cli.main import make_parser
from sweeps.cli.run_options import SETTING_OF
from sweeps.settings import SweepSettings, budget_for
from tracking.addresses import redacted
from tracking.stores import resolve_uri

CONFIG_FILE = "sweep.yaml"
_SWITCHED = {"no_baselines": "baselines", "prune_baselines": "protect_baselines"}
_AUTOMATIC = ("workers", "threads", "trials_per_gpu", "trial_timeout")


def resolved_config(settings: SweepSettings, data: PreparedData) -> str:
    """The file, with what depends on the data filled in; passwords in addresses are left out."""
    parser = make_parser("run")
    return config_text(parser, option_values(settings, data))


def option_values(settings: SweepSettings, data: PreparedData) -> dict[str, Any]:
    """Option -> value as its file has it; None for one that is not set."""
    budget = budget_for(settings, data.num_images["train"])
    options = {setting: option for option, setting in SETTING_OF.items()}
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
        "dataset": settings.dataset if is_own(settings.dataset) else data.name,
        "epochs": budget.num_epochs,
        "timeout": "none" if limit is None else f"{limit:.15g}s",
        "tracking_uri": redacted(resolve_uri(settings.tracking_uri)),
        "storage": redacted(settings.storage),
        "experiment": settings.experiment or f"{short_name(settings.space)}-{data.name}",
        "finalists": settings.num_finalists or None,
    }
    for option in ("set", "fix"):
        values[option] = dict(rule.split("=", 1) for rule in values[option]) or None
    if isinstance(values["trial_timeout"], float):
        values["trial_timeout"] = f"{values['trial_timeout']:.15g}s"
    return values
