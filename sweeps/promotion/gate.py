"""The gate of a promotion: what a candidate must show before it becomes the champion. Pure.

Both models name the same images; who is right where, and whether that can be chance, decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipelines.models.scoring import Score

NUM_RESAMPLES = 10_000
DEFAULT_ALPHA = 0.05


@dataclass(frozen=True)
class PairedTest:
    """A candidate against a champion on the same `num` images.

    Attributes:
        challenger_only, champion_only: images that only the candidate, only the champion classifies
            correctly. Recorded gate reports have these names, so they stay.
        difference: accuracy of the candidate minus that of the champion.
        low, high: its interval by paired bootstrap.
        p_value: of McNemar's exact test against "the candidate is not better", one-sided.
    """

    num: int
    challenger_only: int
    champion_only: int
    difference: float
    low: float
    high: float
    p_value: float


def paired_test(
    candidate_right: np.ndarray, champion_right: np.ndarray, *, seed: int, confidence: float = 0.95
) -> PairedTest:
    """Compares two models image by image.

    McNemar's exact test (McNemar 1947, Psychometrika 12:153-157) asks whether the images on which
    the two differ fall to the candidate more often than a fair coin would have it. The interval is
    the percentile interval of the paired bootstrap (Efron and Tibshirani 1993, "An Introduction to
    the Bootstrap", chapter 13) over images.

    Args:
        candidate_right, champion_right: (n,) bool.
        seed: of the resamples.

    Raises:
        ValueError: The lengths differ, or there is no image.
    """
    num = len(candidate_right)
    if num == 0 or num != len(champion_right):
        raise ValueError(f"Both must name the same images. Received: {num}, {len(champion_right)}.")
    from scipy.stats import binomtest

    gained = int((candidate_right & ~champion_right).sum())
    lost = int((champion_right & ~candidate_right).sum())
    discordant = gained + lost
    p_value = 1.0
    if discordant:
        p_value = float(binomtest(gained, discordant, 0.5, alternative="greater").pvalue)
    # Resampling images is drawing how many fall into each of the three kinds.
    shares = np.array([gained, lost, num - discordant]) / num
    draws = np.random.default_rng(seed).multinomial(num, shares, NUM_RESAMPLES)
    differences = (draws[:, 0] - draws[:, 1]) / num
    tail = (1 - confidence) / 2
    low, high = np.quantile(differences, [tail, 1 - tail])
    return PairedTest(num, gained, lost, (gained - lost) / num, float(low), float(high), p_value)


@dataclass(frozen=True)
class Limits:
    """What is required of a candidate; None for a limit that is not set.

    Attributes:
        alpha: level of the paired test.
        margin: how much lower the accuracy may be; None requires that it is significantly higher.
        max_recall_drop: how much any class's recall may fall below the champion's.
    """

    alpha: float = DEFAULT_ALPHA
    margin: float | None = None
    min_accuracy: float | None = None
    max_latency_ms: float | None = None
    max_parameters: int | None = None
    max_bytes: int | None = None
    max_recall_drop: float | None = None


@dataclass(frozen=True)
class Rule:
    """One rule with its verdict: `text` says what was asked, what was found, and the gap."""

    name: str
    passed: bool
    text: str


def gate(
    candidate: Score,
    champion: Score | None,
    test: PairedTest | None,
    limits: Limits,
    class_names: Sequence[str],
) -> list[Rule]:
    """Every rule that applies. Without a champion only the limits do.

    Args:
        test: the paired test; None exactly where there is no champion.
    """
    rules = []
    if test is not None:
        if limits.margin is None:
            rules.append(_better(test, limits.alpha))
        else:
            rules.append(_not_worse(test, limits.margin))
    if limits.min_accuracy is not None:
        gap = candidate.accuracy - limits.min_accuracy
        text = f"test accuracy {candidate.accuracy:.4f}, required >= {limits.min_accuracy:.4f}"
        rules.append(_rule("--min-accuracy", gap >= 0, text, f"{-gap:.4f} too low"))
    for name, found, most, form in (
        ("--max-latency-ms", candidate.latency_ms, limits.max_latency_ms, "{:.2f} ms per image"),
        ("--max-parameters", candidate.num_parameters, limits.max_parameters, "{:,} parameters"),
        ("--max-bytes", candidate.num_bytes, limits.max_bytes, "{:,} bytes"),
    ):
        if most is not None:
            text = f"{form.format(found)}, required <= {form.format(most)}"
            rules.append(_rule(name, found <= most, text, f"{form.format(found - most)} too much"))
    if limits.max_recall_drop is not None and champion is not None:
        rules.append(_recalls(candidate, champion, limits.max_recall_drop, class_names))
    return rules


def _better(test: PairedTest, alpha: float) -> Rule:
    text = f"{_effect(test)}; exact McNemar p = {test.p_value:.2g}, required <= {alpha:g}"
    gap = "not significantly better"
    return _rule("better than the champion", test.p_value <= alpha, text, gap)


def _not_worse(test: PairedTest, margin: float) -> Rule:
    gap = test.low + margin
    text = f"{_effect(test)}; required: at most {margin:.4f} lower (--margin)"
    return _rule("not worse than the champion", gap >= 0, text, f"{-gap:.4f} beyond the margin")


def same_data(candidate: str, champion: str) -> Rule:
    """That both come from one data set; else the champion may have been trained on these images.

    Args:
        candidate, champion: data set and fingerprint of each, for people.
    """
    text = f"the champion comes from {champion}, the candidate from {candidate}"
    gap = "their test splits differ; register the candidate under another name with --model"
    return _rule("one data set", candidate == champion, text, gap)


def as_recorded(measured: float, recorded: float, num_images: int) -> Rule:
    """That the model reaches what its training recorded; two images may differ.

    Another machine rounds sums differently, and an image near a decision boundary may change class.
    """
    text = f"test accuracy {measured:.4f}, its training recorded {recorded:.4f}"
    apart = abs(measured - recorded) * num_images
    return _rule("as its training recorded", apart <= 2.001, text, f"{apart:.0f} images apart")


def _effect(test: PairedTest) -> str:
    return (
        f"accuracy {test.difference:+.4f} ({test.low:+.4f} to {test.high:+.4f}, 95% interval); of "
        f"{test.num:,} images only the candidate classifies {test.challenger_only} correctly, only "
        f"the champion {test.champion_only}"
    )


def _recalls(candidate: Score, champion: Score, most: float, class_names: Sequence[str]) -> Rule:
    drops = [old - new for new, old in zip(candidate.recalls, champion.recalls, strict=True)]
    worst = max(range(len(drops)), key=lambda k: drops[k])
    text = (
        f"recall of class {class_names[worst]} {candidate.recalls[worst]:.4f}, champion's "
        f"{champion.recalls[worst]:.4f}, required: at most {most:.4f} lower"
    )
    # Recalls are ratios: what is equal on paper may differ in the last bit.
    passed = drops[worst] <= most + 1e-12
    return _rule("--max-recall-drop", passed, text, f"{drops[worst] - most:.4f} too much")


def _rule(name: str, passed: bool, text: str, gap: str) -> Rule:
    return Rule(name, bool(passed), text if passed else f"{text}: {gap}")
