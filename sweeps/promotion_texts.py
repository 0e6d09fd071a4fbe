"""What a registered version tells of its origin, from what MLflow holds of its run. Pure."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from pipelines.scoring import Score

if TYPE_CHECKING:
    from tracking.stored_models import RunFacts

_LIBRARIES = "sweeps.version."


def origin_of(facts: RunFacts) -> dict[str, str]:
    """Sweep, trial, run, seeds, commit, versions; what is not known is left out."""
    tags, parent = facts.tags, facts.parent_tags
    commit = tags.get("mlflow.source.git.commit", "")
    if commit and tags.get("sweeps.git_dirty") == "true":
        commit += " (with changes)"
    found = {
        "sweep": tags.get("sweeps.sweep", ""),
        "run": f"{facts.name}, {facts.run_id}",
        "trial": tags.get("sweeps.finalist_of", tags.get("sweeps.trial", "")),
        "kind": tags.get("sweeps.kind", ""),
        "published baseline": tags.get("sweeps.baseline", ""),
        "seed": tags.get("sweeps.seed", ""),
        "seeds of the intervals": parent.get("sweeps.winner_seeds", ""),
        "compared finalists (trials)": parent.get("sweeps.finalists", ""),
        "device": tags.get("sweeps.device", ""),
        "commit": commit,
        "versions": ", ".join(
            f"{key.removeprefix(_LIBRARIES)} {value}"
            for key, value in sorted(tags.items())
            if key.startswith(_LIBRARIES)
        ),
    }
    return {name: value for name, value in found.items() if value}


def seed_intervals(facts: RunFacts) -> dict[str, str]:
    """Metric -> `0.9912 (0.9904 to 0.9920, n = 5)`; empty where the run has no finalists."""
    metrics, found = facts.parent_metrics, {}
    num = facts.parent_tags.get("sweeps.num_seeds", "")
    for key in metrics:
        if key.startswith("winner_") and key.endswith("_mean"):
            name = key.removeprefix("winner_").removesuffix("_mean")
            low, high = metrics[f"winner_{name}_low"], metrics[f"winner_{name}_high"]
            found[name] = f"{metrics[key]:.4f} ({low:.4f} to {high:.4f}, n = {num})"
    return found


def version_tags(facts: RunFacts, score: Score, intervals: dict[str, str]) -> dict[str, str]:
    """The tags of a version: where it comes from and what it reached."""
    origin = {
        f"sweeps.{name}": facts.tags[f"sweeps.{name}"]
        for name in ("sweep", "trial", "kind", "baseline", "seed", "space")
        if f"sweeps.{name}" in facts.tags
    }
    if "sweeps.finalist_of" in facts.tags:  # The trial that people know, not the training's number.
        origin["sweeps.trial"] = facts.tags["sweeps.finalist_of"]
    if "sweeps.winner_seeds" in facts.parent_tags:
        origin["sweeps.finalist_seeds"] = facts.parent_tags["sweeps.winner_seeds"]
    commit = facts.tags.get("mlflow.source.git.commit")
    return {
        **origin,
        **({"sweeps.commit": commit} if commit else {}),
        "sweeps.params": json.dumps(facts.params)[:5000],
        "sweeps.test_accuracy": f"{score.accuracy:.6g}",
        "sweeps.test_loss": f"{score.loss:.6g}",
        "sweeps.num_parameters": str(score.num_parameters),
        **{f"sweeps.{name}_over_seeds": text for name, text in intervals.items()},
    }
