"""The gate of a promotion: what a challenger must show before it becomes the champion. Pure.

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
    """A challenger against a champion on the same `num` images.

    Attributes:
        challenger_only, champion_only: images that only one of them names rightly.
        difference: accuracy of the challenger minus that of the champion.
        low, high: its interval by paired bootstrap.
        p_value: of McNemar's exact test against "the challenger is not better", one-sided.
    """

    num: int
    challenger_only: int
    champion_only: int
    difference: float
    low: float
    high: float
    p_value: float


def paired_test(
    challenger_right: np.ndarray, champion_right: np.ndarray, *, seed: int, confidence: float = 0.95
) -> PairedTest:
    """Compares two models image by image.

    McNemar's exact test (McNemar 1947, Psychometrika 12:153-157) asks whether the images on which
    the two differ fall to the challenger more often than a fair coin would have it. The interval is
    the percentile interval of the paired bootstrap (Efron and Tibshirani 1993, "An Introduction to
    the Bootstrap", chapter 13) over images.

    Args:
        challenger_right, champion_right: (n,) bool.
        seed: of the resamples.

    Raises:
        ValueError: The lengths differ, or there is no image.
    """
    num = len(challenger_right)
    if num == 0 or num != len(champion_right):
        raise ValueError(f"Both must name the same images. Received: {num}, {len(champion_right)}.")
    from scipy.stats import binomtest

    gained = int((challenger_right & ~champion_right).sum())
    lost = int((champion_right & ~challenger_right).sum())
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
    """What is asked of a challenger; None for a limit that is not set.

    Attributes:
        alpha: level of the paired test.
        margin: how much worse than the champion may be tolerated; None asks for proof of better.
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
    challenger: Score,
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
        gap = challenger.accuracy - limits.min_accuracy
        text = f"test accuracy {challenger.accuracy:.4f}, at least {limits.min_accuracy:.4f} wanted"
        rules.append(_rule("--min-accuracy", gap >= 0, text, f"{-gap:.4f} too low"))
    for name, found, most, form in (
        ("--max-latency-ms", challenger.latency_ms, limits.max_latency_ms, "{:.2f} ms an image"),
        ("--max-parameters", challenger.num_parameters, limits.max_parameters, "{:,} parameters"),
        ("--max-bytes", challenger.num_bytes, limits.max_bytes, "{:,} bytes"),
    ):
        if most is not None:
            text = f"{form.format(found)}, at most {form.format(most)} wanted"
            rules.append(_rule(name, found <= most, text, f"{form.format(found - most)} too much"))
    if limits.max_recall_drop is not None and champion is not None:
        rules.append(_recalls(challenger, champion, limits.max_recall_drop, class_names))
    return rules


def _better(test: PairedTest, alpha: float) -> Rule:
    text = (
        f"{_effect(test)}; better at level {alpha:g} wanted: McNemar's exact p = {test.p_value:.4g}"
    )
    return _rule("better than the champion", test.p_value <= alpha, text, "not shown")


def _not_worse(test: PairedTest, margin: float) -> Rule:
    gap = test.low + margin
    text = f"{_effect(test)}; at most {margin:.4f} worse wanted (--margin)"
    return _rule("not worse than the champion", gap >= 0, text, f"{-gap:.4f} beyond the margin")


def same_data(challenger: str, champion: str) -> Rule:
    """That both come from one data set; else the champion may have been trained on these images.

    Args:
        challenger, champion: data set and fingerprint of each, for people.
    """
    text = f"the champion comes from {champion}, the candidate from {challenger}"
    gap = "their test splits differ; give the candidate a --model name of its own"
    return _rule("one data set", challenger == champion, text, gap)


def as_recorded(measured: float, recorded: float, num_images: int) -> Rule:
    """That the model reaches what its training recorded, but for two images.

    On another machine sums are rounded otherwise, and an image on the edge may change sides.
    """
    text = f"test accuracy {measured:.4f}, its training recorded {recorded:.4f}"
    apart = abs(measured - recorded) * num_images
    return _rule("as its training recorded", apart <= 2.001, text, f"{apart:.0f} images apart")


def _effect(test: PairedTest) -> str:
    return (
        f"accuracy {test.difference:+.4f} ({test.low:+.4f} to {test.high:+.4f}, 95% interval); of "
        f"{test.num:,} images {test.challenger_only} are right only with the challenger, "
        f"{test.champion_only} only with the champion"
    )


def _recalls(challenger: Score, champion: Score, most: float, class_names: Sequence[str]) -> Rule:
    drops = [old - new for new, old in zip(challenger.recalls, champion.recalls, strict=True)]
    worst = max(range(len(drops)), key=lambda k: drops[k])
    text = (
        f"recall of class {class_names[worst]} {challenger.recalls[worst]:.4f}, champion's "
        f"{champion.recalls[worst]:.4f}, at most {most:.4f} less wanted"
    )
    # Recalls are ratios: what is equal on paper may differ in the last bit.
    passed = drops[worst] <= most + 1e-12
    return _rule("--max-recall-drop", passed, text, f"{drops[worst] - most:.4f} too much")


def _rule(name: str, passed: bool, text: str, gap: str) -> Rule:
    return Rule(name, bool(passed), text if passed else f"{text}: {gap}")
