"""The ways of timing, with a clock that the test turns."""

import pytest

from benchmarks.parts import timing


@pytest.fixture
def hand(monkeypatch):
    """A clock in seconds that calls push forward."""
    state = {"now": 0.0}
    monkeypatch.setitem(timing.CLOCKS, "cpu", lambda: state["now"])
    return state


def test_candidates_take_turns_and_warm_up(hand):
    order, ticks = [], []

    def call(name, seconds):
        def run():
            order.append(name)
            hand["now"] += seconds

        return run

    calls = {"slow": call("slow", 0.2), "quick": call("quick", 0.1)}
    times = timing.interleaved(calls, rounds=2, runs=3, tick=lambda: ticks.append(1))
    # An unmeasured call and three measured ones a turn; one round more than is reported.
    assert order == (["slow"] * 4 + ["quick"] * 4) * 3
    assert len(ticks) == 6
    assert times["slow"] == pytest.approx([200.0, 200.0])
    assert times["quick"] == pytest.approx([100.0, 100.0])


def test_the_first_round_and_the_first_call_of_a_turn_do_not_count(hand):
    costs = iter([5.0, 5.0, 5.0, 1.0, 7.0, 2.0])  # (warm-up, measured) in three rounds

    def run():
        hand["now"] += next(costs)

    assert timing.interleaved({"x": run}, rounds=2, runs=1)["x"] == pytest.approx([1000.0, 2000.0])


def test_ratios_are_taken_within_a_round():
    busy = [10.0, 20.0, 40.0]  # the machine was busier from round to round
    assert timing.ratio(busy, [5.0, 10.0, 20.0]) == 2.0
    with pytest.raises(ValueError):
        timing.ratio(busy, [1.0])
    assert timing.spread([3.0, 1.0, 2.0, 5.0, 4.0]) == {"ms": 3.0, "ms_p10": 1.4, "ms_p90": 4.6}


def test_the_machine_is_described():
    found = timing.machine()
    assert found["processor"] and found["cores"] >= 1 and found["architecture"]
    assert isinstance(found["vectors"], list)
