"""What a promotion leaves to be read: the gate's report, the model card, a version's tags. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from pipelines.data.prepared import PreparedData
from pipelines.models.scoring import Score
from sweeps.promotion.gate import Limits, PairedTest, Rule
from sweeps.promotion.model_card import Card, render_card
from tracking.tags import Tag

if TYPE_CHECKING:
    from tracking.models.model_store import RunFacts

MAX_CHARACTERS = 4_900
"""MLflow's columns for a version's description and its tags hold 5,000 characters."""


@dataclass(frozen=True)
class Verdict:
    """What was decided, upon what.

    Attributes:
        kind: `promotion`, `forced`, `refused`, or `overtaken` where another version became champion
            first.
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
            text = f"test accuracy {self.candidate_score.accuracy:.4f}, no champion to compare with"
        else:
            text = (
                f"accuracy {self.test.difference:+.4f} ({self.test.low:+.4f} to "
                f"{self.test.high:+.4f}) against {self.champion}, exact McNemar p = "
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
            background=tags.get(Tag.BACKGROUND, "mixed"),
            origin=origin_of(facts),
            params=dict(facts.params),
            intervals=seed_intervals(facts),
            retrained=facts.tags.get(Tag.KIND) == "retrained",
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
    if commit and tags.get(Tag.GIT_DIRTY) == "true":
        commit += " (with changes)"
    found = {
        "sweep": tags.get(Tag.SWEEP, ""),
        "run": f"{facts.name}, {facts.run_id}",
        "trial": tags.get(Tag.FINALIST_OF, tags.get(Tag.TRIAL, "")),
        "kind": tags.get(Tag.KIND, ""),
        "published baseline": tags.get(Tag.BASELINE, ""),
        "seed": tags.get(Tag.SEED, ""),
        "seeds of the intervals": parent.get(Tag.WINNER_SEEDS, ""),
        "compared finalists (trials)": parent.get(Tag.FINALISTS, ""),
        "device": tags.get(Tag.DEVICE, ""),
        "commit": commit,
        "versions": ", ".join(
            f"{key.removeprefix(Tag.VERSION_PREFIX)} {value}"
            for key, value in sorted(tags.items())
            if key.startswith(Tag.VERSION_PREFIX)
        ),
    }
    return {name: value for name, value in found.items() if value}


def seed_intervals(facts: RunFacts) -> dict[str, str]:
    """Metric -> `0.9912 (0.9904 to 0.9920, n = 5)`; empty where the run has no finalists."""
    metrics, found = facts.parent_metrics, {}
    num = int(metrics.get("winner_num_seeds", facts.parent_tags.get(Tag.NUM_SEEDS, 0)))
    for key in metrics:
        if key.startswith("winner_") and key.endswith("_mean"):
            name = key.removeprefix("winner_").removesuffix("_mean")
            low, high = metrics[f"winner_{name}_low"], metrics[f"winner_{name}_high"]
            found[name] = f"{metrics[key]:.4f} ({low:.4f} to {high:.4f}, n = {num})"
    return found


def version_tags(facts: RunFacts, model_tags: Mapping[str, str], score: Score) -> dict[str, str]:
    """The tags of a version: where it comes from, what it was trained on, and what it reached."""
    found = {key: value for key, value in model_tags.items() if key.startswith(Tag.PREFIX)}
    found.pop(Tag.RECORD, None)
    for name in (Tag.SWEEP, Tag.TRIAL, Tag.KIND, Tag.BASELINE, Tag.SEED, Tag.SPACE):
        if name in facts.tags:
            found[name] = facts.tags[name]
    if Tag.FINALIST_OF in facts.tags:  # The trial that people know, not the training's number.
        found[Tag.TRIAL] = facts.tags[Tag.FINALIST_OF]
    if Tag.WINNER_SEEDS in facts.parent_tags:
        found[Tag.FINALIST_SEEDS] = facts.parent_tags[Tag.WINNER_SEEDS]
    if "mlflow.source.git.commit" in facts.tags:
        found[Tag.COMMIT] = facts.tags["mlflow.source.git.commit"]
    found |= {
        Tag.PARAMS: json.dumps(dict(facts.params)),
        Tag.TEST_ACCURACY: f"{score.accuracy:.6g}",
        Tag.TEST_LOSS: f"{score.loss:.6g}",
        Tag.NUM_PARAMETERS: str(score.num_parameters),
        **{
            f"{Tag.PREFIX}{name}{Tag.OVER_SEEDS_SUFFIX}": text
            for name, text in seed_intervals(facts).items()
        },
    }
    # What does not fit is in the run and in the model card; half of it would be no JSON.
    return {key: value for key, value in found.items() if len(value) <= MAX_CHARACTERS}
