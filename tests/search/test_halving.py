"""Successive halving: the best of a generation are looked at again, and a resumed search ends alike."""

import itertools

import pytest
from search_folders import BUDGET, SHRUNK, Crash, contents, scored, with_fitness
from toy_search import toy_search

from neas_tf.search.candidate import Score
from neas_tf.search.halving import Look, halve
from neas_tf.space.architecture import Architecture


def looks_of(tables):
    """Looks by what each says of the candidates, by key; how many were asked each time."""
    asked = []

    def make(table, images):
        def evaluate(architectures, progress):
            asked.append([a.key for a in architectures])
            progress(0.5)
            progress(1.0)
            return [
                Score(table[a.key], (table[a.key],), numbers={"log_likelihood": -table[a.key]})
                for a in architectures
            ]

        return lambda: Look(evaluate, images)

    return [make(table, images) for table, images in tables], asked


def test_halving_by_hand():
    """Five candidates: three are looked at again, two a third time; means by images."""
    names = ("k3e1", "k3e2", "k3e3", "k3e4", "k3e5")
    architectures = [Architecture(1, ((name,),)) for name in names]
    keys = [a.key for a in architectures]
    first = dict(zip(keys, (0.1, 0.5, 0.4, 0.4, 0.3), strict=True))
    second = dict(zip(keys, (0.9, 0.1, 0.4, 0.5, 0.9), strict=True))
    third = dict.fromkeys(keys, 0.8)
    looks, asked = looks_of([(first, 100), (second, 300), (third, 300)])
    shares = []
    scores = halve(architectures, looks, shares.append)
    assert asked == [keys, keys[1:4], keys[2:4]]  # the second, lucky at first, is found out
    assert [score.looks for score in scores] == [1, 2, 3, 3, 1]
    expected = [0.1, 0.2, (40 + 120 + 240) / 700, (40 + 150 + 240) / 700, 0.3]
    assert [s.accuracy for s in scores] == pytest.approx(expected)
    assert [s.path_accuracies[0] for s in scores] == pytest.approx(expected)
    assert [-s.numbers["log_likelihood"] for s in scores] == pytest.approx(expected)
    assert shares == pytest.approx([0.25, 0.5, 0.65, 0.8, 0.9, 1.0])
    (alone,) = halve(architectures[:1], looks)
    assert alone.looks == 3 and halve([], looks) == []


def by_halves(crash_after=None):
    """Scores that depend on the whole generation."""
    calls, given = [], itertools.count()

    def evaluate(architectures):
        calls.append(len(architectures))
        table = {a.key: scored(a).accuracy for a in architectures}
        looks, _ = looks_of([(table, 10), ({k: 0.9 * v for k, v in table.items()}, 10)])
        for score in halve(architectures, looks):
            if next(given) == crash_after:
                raise Crash
            yield Score(score.accuracy, score.path_accuracies * 2, looks=score.looks)

    return evaluate, calls


@pytest.mark.parametrize("crash_after", [0, 3, 5, 14])
def test_a_resumed_search_by_halving_ends_alike(tmp_path, crash_after):
    """The generation that was interrupted is scored again, as a whole."""
    search = lambda name, evaluate: toy_search(  # noqa: E731
        tmp_path / name,
        with_fitness("halving"),
        SHRUNK,
        BUDGET,
        evaluate,
        whole_generations=True,
    )
    evaluate, calls = by_halves()
    expected = search("whole", evaluate)
    assert calls == [5, 5, 5] and expected.best.looks == 2
    with pytest.raises(Crash):
        search("broken", by_halves(crash_after)[0])
    evaluate, calls = by_halves()
    assert search("broken", evaluate) == expected
    assert calls == [5] * (3 - crash_after // 5)
    assert contents(tmp_path / "broken") == contents(tmp_path / "whole")
