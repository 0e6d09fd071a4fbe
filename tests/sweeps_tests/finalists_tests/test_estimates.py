"""The choice among finalists: what it promises, shown on planted noise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sweeps.finalists.estimates import Scale, compare, estimate, median_key

NUM_SWEEPS = 400
NUM_CONFIGURATIONS, NUM_FINALISTS, NUM_SEEDS = 24, 3, 5


def planted_sweep(generator: np.random.Generator):
    """True means, one noisy value of each (the search), and fresh values on demand.

    The spread of the means and of the seeds are those of good CNNs on MNIST, in percentage points.
    """
    means = generator.normal(99.2, 0.08, NUM_CONFIGURATIONS)
    found = means + generator.normal(0, 0.06, NUM_CONFIGURATIONS)
    return means, found, lambda k: means[k] + generator.normal(0, 0.06, NUM_SEEDS)


def test_fresh_seeds_pick_the_truly_best_configuration_more_often_than_the_best_trial():
    generator = np.random.default_rng(5)
    single, chosen, lost_single, lost_chosen = 0, 0, 0.0, 0.0
    for _ in range(NUM_SWEEPS):
        means, found, fresh = planted_sweep(generator)
        best, highest = int(means.argmax()), int(found.argmax())
        finalists = np.argsort(-found)[:NUM_FINALISTS]
        ranking = compare({int(k): fresh(k) for k in finalists}, maximize=True, seed=0)
        winner = ranking[0].key
        single += highest == best
        chosen += winner == best
        lost_single += means[best] - means[highest]
        lost_chosen += means[best] - means[winner]
    # Standard error of each rate: at most 0.025.
    assert chosen / NUM_SWEEPS > single / NUM_SWEEPS + 0.1
    assert lost_chosen < 0.7 * lost_single


def test_the_winners_fresh_value_is_honest_where_its_search_value_is_not():
    """The best score of many trials is too high; the mean of fresh seeds hardly is."""
    generator = np.random.default_rng(6)
    promised, delivered = [], []
    for _ in range(NUM_SWEEPS):
        means, found, fresh = planted_sweep(generator)
        finalists = np.argsort(-found)[:NUM_FINALISTS]
        finalist = compare({int(k): fresh(k) for k in finalists}, maximize=True, seed=0)[0]
        promised.append(found.max() - means[found.argmax()])
        delivered.append(finalist.estimate.mean - means[finalist.key])
    assert np.mean(promised) > 0.04
    assert abs(np.mean(delivered)) < 0.4 * np.mean(promised)


@pytest.mark.parametrize("confidence", [0.8, 0.95])
@pytest.mark.parametrize("num_seeds", [2, 5])
def test_intervals_cover_at_their_nominal_rate(confidence, num_seeds):
    generator = np.random.default_rng([num_seeds, int(100 * confidence)])
    num, hits = 3000, 0
    for _ in range(num):
        found = estimate(generator.normal(0.99, 0.002, num_seeds), confidence)
        hits += found.low <= 0.99 <= found.high
    # Three standard errors of a rate over 3,000 draws.
    assert abs(hits / num - confidence) < 3 * (confidence * (1 - confidence) / num) ** 0.5


def test_the_probability_of_being_best_is_calibrated():
    """Among winners said to be best with about 80 %, about 80 % are."""
    generator = np.random.default_rng(7)
    said, true = [], []
    for _ in range(NUM_SWEEPS):
        means = generator.normal(0.0, 1.0, 3)
        values = {k: means[k] + generator.normal(0, 1.0, 5) for k in range(3)}
        for finalist in compare(values, maximize=True, seed=0):
            said.append(finalist.probability_best)
            true.append(finalist.key == int(means.argmax()))
    said, true = np.array(said), np.array(true)
    for low, high in ((0.0, 0.2), (0.2, 0.6), (0.6, 0.9), (0.9, 1.01)):
        inside = (said >= low) & (said < high)
        assert inside.sum() > 60
        # The prior of these means is not the flat one that the interval implies.
        assert abs(true[inside].mean() - said[inside].mean()) < 0.12


def test_direction_ties_and_seed():
    values = {4: [0.2, 0.3], 7: [0.1, 0.2], 9: [0.2, 0.3]}
    assert [s.key for s in compare(values, maximize=True, seed=0)] == [4, 9, 7]
    assert [s.key for s in compare(values, maximize=False, seed=0)] == [7, 4, 9]
    again = compare(values, maximize=True, seed=0)
    assert again == compare(values, maximize=True, seed=0)
    assert again != compare(values, maximize=True, seed=1)


def test_equal_values_and_single_configurations_have_a_choice():
    (only,) = compare({3: [0.5, 0.5, 0.5]}, maximize=True, seed=0)
    assert (only.probability_best, only.estimate.sd, only.estimate.low) == (1.0, 0.0, 0.5)


def test_equal_configurations_share_the_probability():
    found = compare({0: [0.5, 0.5], 1: [0.5, 0.5]}, maximize=True, seed=0)
    assert [s.probability_best for s in found] == [0.5, 0.5]
    found = compare({0: [0.5, 0.5], 1: [0.5, 0.5]}, maximize=False, seed=0)
    assert [s.probability_best for s in found] == [0.5, 0.5]


def test_two_equal_accuracies_do_not_make_certainty():
    """With 288 images two trainings often agree to the image."""
    found = estimate([0.6632, 0.6632], scale=Scale(1 / 288, 0.0, 1.0))
    assert found.low < 0.66 and found.high > 0.665
    assert found.sd == pytest.approx(1 / 288 / 12**0.5)


def test_the_least_sd_of_rounded_values_says_that_it_is_that():
    scale = Scale(resolution=1 / 288)
    equal, apart = estimate([0.9, 0.9], scale=scale), estimate([0.9, 0.8], scale=scale)
    assert equal.is_least and equal.sd == pytest.approx(1 / 288 / 12**0.5)
    assert not apart.is_least and not estimate([0.9, 0.9]).is_least


def test_an_interval_ends_where_the_metric_does():
    found = estimate([0.2, 1.0], scale=Scale(0.0, 0.0, 1.0))
    assert (found.low, found.mean, found.high) == (0.0, 0.6, 1.0)
    found = estimate([0.01, 0.4], scale=Scale(low=0.0))
    assert found.low == 0.0 and found.high > 1


@pytest.mark.parametrize("num_images", [30, 288, 10_000])
def test_intervals_cover_also_where_accuracies_are_rounded_to_images(num_images):
    generator = np.random.default_rng(num_images)
    num, hits = 3000, 0
    for _ in range(num):
        values = np.round(generator.normal(0.97, 0.004, 5) * num_images) / num_images
        found = estimate(values, scale=Scale(1 / num_images, 0.0, 1.0))
        hits += found.low <= 0.97 <= found.high
    assert hits / num > 0.95 - 3 * (0.95 * 0.05 / num) ** 0.5


def test_what_cannot_be_judged_is_refused():
    with pytest.raises(ValueError, match="at least two values"):
        estimate([0.5])
    with pytest.raises(ValueError, match="Received: none"):
        compare({}, maximize=True, seed=0)


@settings(max_examples=200, deadline=None)
@given(
    st.dictionaries(
        st.integers(0, 50),
        st.lists(st.floats(0, 1), min_size=2, max_size=8),
        min_size=1, max_size=6,
    ),
    st.booleans(),
)  # fmt: skip
def test_any_values_give_a_whole_ranking(values, maximize):
    ranking = compare(values, maximize=maximize, seed=0)
    assert sorted(s.key for s in ranking) == sorted(values)
    assert sum(s.probability_best for s in ranking) == pytest.approx(1)
    means = [s.estimate.mean for s in ranking]
    assert means == sorted(means, reverse=maximize)
    assert all(s.estimate.low <= s.estimate.mean <= s.estimate.high for s in ranking)


def test_the_median_stands_for_what_may_be_expected():
    assert median_key({1: 0.3, 2: 0.1, 3: 0.2}) == 3
    assert median_key({1: 0.4, 2: 0.1, 3: 0.2, 4: 0.3}) == 3
    assert median_key({5: 0.2, 1: 0.2, 3: 0.2}) == 3
