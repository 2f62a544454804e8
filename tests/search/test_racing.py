"""Racing: who stops, who never does, and how often the test is wrong."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neas_tf.common.errors import NeasError
from neas_tf.search.racing import Race, RaceSettings, run_race


def results(abilities, images, seed):
    """bool (C, N): images differ in difficulty, which all candidates feel alike."""
    rng = np.random.default_rng(seed)
    ease = rng.normal(0, 2.0, images)
    chance = 1 / (1 + np.exp(-(np.asarray(abilities)[:, None] + ease)))
    return rng.random(chance.shape) < chance


def race(correct, finished, parents, batch, error=0.001):
    """(images seen by each, those that finished)."""
    count, total = correct.shape
    alive = set(range(count))
    race = Race(RaceSettings(parents, error), total, batch, finished)
    assert sorted(race.order) == list(range(total))
    correct = correct[:, race.order]

    def batches():
        for first in range(0, total, batch):
            ongoing = np.isin(range(count), list(alive))[:, None, None]
            yield alive, correct[:, None, first : first + batch] & ongoing

    found, seen = run_race(race, batches(), count)
    for c in range(count):
        np.testing.assert_array_equal(found[c, -1, : seen[c]], correct[c, : seen[c]])
        assert not found[c, -1, seen[c] :].any()
    return seen, np.flatnonzero(seen == total)


@given(
    st.integers(1, 12), st.integers(0, 6), st.integers(1, 6), st.integers(1, 40), st.integers(0, 99)
)
def test_enough_candidates_always_finish(count, references, parents, batch, seed):
    rng = np.random.default_rng(seed)
    rows = results(rng.normal(0, 3, count + references), 60, seed)
    seen, finished = race(rows[:count], rows[count:], parents, batch, error=0.4)
    assert len(finished) + references >= min(parents, count + references)
    assert set(seen) <= {min(60, n) for n in range(batch, 60 + batch, batch)}


def test_clear_losers_stop_and_the_best_finish():
    abilities = np.concatenate([np.full(5, 2.0), np.full(15, -1.0)])
    rows = results(abilities, 2000, 1)
    seen, finished = race(rows, np.zeros((0, 2000), bool), 5, 100)
    assert finished.tolist() == [0, 1, 2, 3, 4]
    assert seen[5:].mean() < 400


def test_the_best_before_stop_a_generation_of_worse_ones():
    rows = results(np.concatenate([np.full(5, 2.0), np.full(4, 0.0)]), 2000, 2)
    seen, finished = race(rows[5:], rows[:5], 5, 100)
    assert not len(finished) and seen.max() <= 500
    _, finished = race(rows[5:6], rows[:4], 5, 100)  # the fifth best, whatever it does
    assert len(finished) == 1


def test_known_results_of_others_decide_earlier():
    """The finished candidates tell which images are contested, so fewer images are needed."""
    ease = np.random.default_rng(4).normal(0, 6.0, 4000)  # half of them are hardly in doubt
    abilities = np.concatenate([np.full(10, 1.0), np.full(30, 0.6)])[:, None]
    rows = np.random.default_rng(5).random((40, 4000)) < 1 / (1 + np.exp(-abilities - ease))
    unrelated = np.stack([np.random.default_rng(i).permutation(row) for i, row in enumerate(rows)])
    known, _ = race(rows[10:], rows[:10], 5, 100)
    blind, _ = race(rows[10:], unrelated[:10], 5, 100)
    assert known.mean() < 0.8 * blind.mean()


def test_a_candidate_among_the_best_hardly_ever_stops():
    """Of all candidates that end among the best, in many races of close competitors."""
    wrong = chances = saved = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        rows = results(rng.normal(0, 0.3, 24), 1000, seed)
        finished, correct = rows[:4], rows[4:]
        seen, _ = race(correct, finished, 4, 50, error=0.01)
        ranking = np.argsort(-rows.mean(1), kind="stable")
        best = {int(i) - 4 for i in ranking[:4] if i >= 4}
        chances += len(best)
        wrong += sum(seen[c] < 1000 for c in best)
        saved += 1 - seen.mean() / 1000
    assert wrong <= 0.02 * chances, (wrong, chances)
    assert saved / 60 > 0.15


def test_equal_results_stop_nobody():
    rows = np.tile(np.random.default_rng(0).random(400) < 0.5, (8, 1))
    seen, _ = race(rows, rows[:2], 2, 50)
    assert (seen == 400).all()


def test_the_end_is_no_look():
    rows = results([2.0, -2.0], 50, 0)
    race = Race(RaceSettings(1), 50, 10, rows[:1])
    assert not race.stopped(rows[1:, race.order]).any()


@pytest.mark.parametrize("references", [0, 1, 10])
def test_estimates_are_without_bias_and_end_exact(references):
    """Though contested images come first: over many sets of images the mean error is about 0."""
    errors, plain = [], []
    for seed in range(200):
        rows = results(np.full(references + 1, 1.0), 300, seed)
        race = Race(RaceSettings(3), 300, 50, rows[:references])
        shown = rows[-1, race.order]
        truth = shown.mean()
        assert race.estimates(shown) == pytest.approx(truth, abs=1e-12)
        errors.append(race.estimates(shown[:100]) - truth)
        plain.append(shown[:100].mean() - truth)
    assert abs(np.mean(errors)) < 0.01
    if references == 10:  # what the order does to the plain mean, and the strata to the error
        assert np.mean(plain) < -0.01
        assert np.std(errors) < 0.9 * np.std(plain)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: RaceSettings(0), "search.parents: received 0"),
        (lambda: RaceSettings(3, 0.0), "search.racing_error: received 0.0"),
        (lambda: Race(RaceSettings(3), 0, 1, np.zeros((0, 0), bool)), "validation_images"),
        (lambda: Race(RaceSettings(3), 5, 0, np.zeros((0, 5), bool)), "search.batch_size"),
        (lambda: Race(RaceSettings(3), 5, 1, np.zeros((2, 4), bool)), r"expected a shape \(R, 5"),
    ],
)
def test_refuses(make, text):
    with pytest.raises(NeasError, match=text):
        make()
