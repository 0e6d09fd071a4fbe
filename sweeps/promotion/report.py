"""What a promotion leaves to be read: the gate's report, the model card, a version's tags. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from pipelines.data.prepared import PreparedData
from pipelines.evaluation.paired_test import PairedTest
from pipelines.models.scoring import Score
from sweeps.promotion.gate import Limits, Rule
from sweeps.promotion.model_card import Card, render_card

if TYPE_CHECKING:
    from tracking.models.model_store import RunFacts

MAX_CHARACTERS = 4_900
"""MLflow's columns for a version's description and its tags hold 5,000 characters."""
_LIBRARIES = "sweeps.version."


@dataclass(frozen=True)
class Verdict:
    """What was decided, upon what.

    Attributes:
        kind: `promotion`, `forced`, `refused`, or `overtaken` where another one was crowned first.
        force: the reason that was given for ignoring the gate.
        champion: how people call the version that it was compared with; empty without one.
    """

    name: str
    version: int
    kind: str
    by: str
    force: str | None
    champion: str
    candidate_score: Score
    champion_score: Score | None
    test: PairedTest | None
    rules: tuple[Rule, ...]
    limits: Limits
    at: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def why(self) -> str:
        """What the history tells; the gate's report has the rest."""
        if self.test is None:
            text = f"test accuracy {self.candidate_score.accuracy:.4f}, limits only"
        else:
            text = (
                f"accuracy {self.test.difference:+.4f} ({self.test.low:+.4f} to "
                f"{self.test.high:+.4f}) against {self.champion}, McNemar's p = "
                f"{self.test.p_value:.2g}"
            )
        if self.kind != "forced":
            return text
        refused = ", ".join(rule.name for rule in self.rules if not rule.passed)
        return f"{self.force} (refused: {refused}; {text})"


def promotion_texts(
    verdict: Verdict, facts: RunFacts, tags: Mapping[str, str], data: PreparedData
) -> tuple[dict[str, str], str]:
    """The artifacts by path, and the text for the version's page.

    Args:
        tags: those of the logged model.
    """
    card = render_card(
        Card(
            title=f"{verdict.name}: {facts.name}",
            data=data,
            background=tags.get("sweeps.background", "mixed"),
            origin=origin_of(facts),
            params=dict(facts.params),
            intervals=seed_intervals(facts),
            retrained=facts.tags.get("sweeps.kind") == "retrained",
            score=verdict.candidate_score,
            rules=verdict.rules,
            champion=verdict.champion,
            verdict=f"{verdict.kind} by {verdict.by}, {verdict.at:%Y-%m-%d %H:%M:%S} UTC"
            + (f": {verdict.force}" if verdict.kind == "forced" else ""),
        )
    )
    report = {
        "model": verdict.name,
        "version": verdict.version,
        "decision": verdict.kind,
        "by": verdict.by,
        "at": verdict.at.isoformat(timespec="seconds"),
        "force": verdict.force,
        "champion": verdict.champion or None,
        "limits": asdict(verdict.limits),
        "rules": [asdict(rule) for rule in verdict.rules],
        "paired_test": asdict(verdict.test) if verdict.test else None,
        "candidate_score": asdict(verdict.candidate_score),
        "champion_score": asdict(verdict.champion_score) if verdict.champion_score else None,
    }
    folder = f"promotion/{verdict.name}-version-{verdict.version}"
    brief = card if len(card) <= MAX_CHARACTERS else card.partition("\n## Parameters")[0]
    texts = {
        f"{folder}/model_card.md": card,
        # A name of its own: no verdict is overwritten by a later one.
        f"{folder}/gate-{verdict.at:%Y%m%d-%H%M%S-%f}.json": json.dumps(report, indent=1),
    }
    return texts, brief[:MAX_CHARACTERS]


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
    num = int(metrics.get("winner_num_seeds", facts.parent_tags.get("sweeps.num_seeds", 0)))
    for key in metrics:
        if key.startswith("winner_") and key.endswith("_mean"):
            name = key.removeprefix("winner_").removesuffix("_mean")
            low, high = metrics[f"winner_{name}_low"], metrics[f"winner_{name}_high"]
            found[name] = f"{metrics[key]:.4f} ({low:.4f} to {high:.4f}, n = {num})"
    return found


def version_tags(facts: RunFacts, model_tags: Mapping[str, str], score: Score) -> dict[str, str]:
    """The tags of a version: where it comes from, what it was trained on, and what it reached."""
    found = {key: value for key, value in model_tags.items() if key.startswith("sweeps.")}
    found.pop("sweeps.record", None)
    for name in ("sweep", "trial", "kind", "baseline", "seed", "space"):
        if f"sweeps.{name}" in facts.tags:
            found[f"sweeps.{name}"] = facts.tags[f"sweeps.{name}"]
    if "sweeps.finalist_of" in facts.tags:  # The trial that people know, not the training's number.
        found["sweeps.trial"] = facts.tags["sweeps.finalist_of"]
    if "sweeps.winner_seeds" in facts.parent_tags:
        found["sweeps.finalist_seeds"] = facts.parent_tags["sweeps.winner_seeds"]
    if "mlflow.source.git.commit" in facts.tags:
        found["sweeps.commit"] = facts.tags["mlflow.source.git.commit"]
    found |= {
        "sweeps.params": json.dumps(dict(facts.params)),
        "sweeps.test_accuracy": f"{score.accuracy:.6g}",
        "sweeps.test_loss": f"{score.loss:.6g}",
        "sweeps.num_parameters": str(score.num_parameters),
        **{f"sweeps.{name}_over_seeds": text for name, text in seed_intervals(facts).items()},
    }
    # What does not fit is in the run and in the model card; half of it would be no JSON.
    return {key: value for key, value in found.items() if len(value) <= MAX_CHARACTERS}
