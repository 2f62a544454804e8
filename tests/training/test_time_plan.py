"""Lengths of trainings by a clock that is made up: on time on machines that change their speed."""

import itertools
import math

import pytest

from neas_tf.training.time_plan import Course, Pacer, Segment, most_steps


@pytest.mark.parametrize(
    "segments", [(), (Segment(5, 40),), (Segment(5, 40), Segment(20, 29)), (Segment(4, 300),)]
)
def test_a_course_runs_through_the_whole_recipe(segments):
    course = Course(100, segments)
    places = [course.recipe_step(step) for step in range(course.total + 1)]
    assert places[0] == 0 and places[-1] == pytest.approx(100)
    assert all(a < b for a, b in itertools.pairwise(places))
    # What a later segment says changes nothing before it, so that a resumed run repeats it.
    for count in range(len(segments)):
        earlier, at = Course(100, segments[:count]), segments[count].step
        assert [earlier.recipe_step(s) for s in range(at + 1)] == places[: at + 1]
    for recipe_step in (1, 3, 37, 99, 100):
        step = course.steps_until(recipe_step)
        assert places[step] >= recipe_step - 1e-6 > places[step - 1] - 1e-6
    changes, step = [], 0
    while (step := course.next_change(step)) < course.total:
        changes.append(step)
    assert changes == [segment.step for segment in segments]


class Machine:
    """Steps that take their time on a clock of its own."""

    def __init__(self, seconds, tracing=12.0, overhead=0.02):
        self.clock, self._seconds = 0.0, seconds
        self._tracing, self._overhead = tracing, overhead

    def train(self, pacer, step=0, stop=math.inf):
        """Trains as `Pace.train` does; returns the steps done and the pieces of the course seen."""
        if step == 0 or math.isinf(stop):
            pacer.restart()
        traced = False
        while step < min(stop, pacer.course.total):
            end = min(pacer.next_look(step), pacer.course.total)
            self.clock += self._overhead + (0.0 if traced else self._tracing)
            traced = True
            for _ in range(step, end):
                self.clock += self._seconds(self.clock)
            step = end
            pacer.look(step)
        return step


SPEEDS = {
    "steady": lambda t: 0.05,
    "becomes half as fast": lambda t: 0.05 if t < 60 else 0.1,
    "half as fast at the very end": lambda t: 0.05 if t < 160 else 0.1,
    "becomes twice as fast": lambda t: 0.1 if t < 60 else 0.05,
    "to and fro": lambda t: 0.05 if t % 50 < 25 else 0.1,
    "to and fro, quickly": lambda t: 0.05 if t % 4 < 2 else 0.1,
    "slow at first": lambda t: 0.4 if t < 14 else 0.05,
    "long steps": lambda t: 2.5 if t < 90 else 5.0,
}


@pytest.mark.parametrize("name", SPEEDS)
@pytest.mark.parametrize("recipe", [300, 30_000])
def test_it_ends_in_time_whatever_the_machine_does(name, recipe):
    machine = Machine(SPEEDS[name])
    pacer = Pacer(Course(recipe), 0.0, 180.0, lambda: machine.clock, 4 * recipe)
    steps = machine.train(pacer)
    course = pacer.course
    assert steps == course.total and course.recipe_step(steps) == pytest.approx(recipe)
    assert machine.clock <= 1.05 * 180.0
    capped = course.total == 4 * recipe
    assert capped or machine.clock >= 0.9 * 180.0
    assert len(course.segments) < 40
    # No jump through the recipe at the end: the learning rate goes down, it does not break off.
    assert recipe - course.recipe_step(steps - max(1, steps // 20)) < 0.25 * recipe or steps < 40


def test_a_long_limit_ends_where_more_steps_bring_nothing():
    """Four times the recipe, or 300 epochs if that is more."""
    assert most_steps(470, 78.125) == 23_437  # 6 epochs of 10,000 images in batches of 128
    assert most_steps(100_000, 78.125) == 400_000
    machine = Machine(lambda t: 0.001)
    pacer = Pacer(Course(470), 0.0, 7200.0, lambda: machine.clock, most_steps(470, 78.125))
    assert machine.train(pacer) == pacer.course.total == 23_437
    assert pacer.course.recipe_step(23_437) == pytest.approx(470)


def test_a_resumed_training_repeats_its_course():
    """It was killed after its last checkpoint: what was planned since then counts."""
    first = Machine(SPEEDS["to and fro"])
    whole = Pacer(Course(3000), 0.0, 180.0, lambda: first.clock, 12_000)
    reached = first.train(whole, stop=1200)
    before = whole.course
    later = [segment.step for segment in before.segments][-1]
    second = Machine(SPEEDS["steady"])
    second.clock = first.clock
    resumed = Pacer(before, 0.0, 180.0, lambda: second.clock, 12_000)
    steps = second.train(resumed, step=later - 5)
    kept = resumed.course.segments[: len(before.segments)]
    assert kept[:-1] == before.segments[:-1] and reached >= later
    for step in range(later):
        assert resumed.course.recipe_step(step) == before.recipe_step(step)
    assert steps == resumed.course.total and second.clock <= 1.05 * 180.0


def test_other_work_has_its_time():
    """Shrinks of 15 seconds, of which two are left after a third of the recipe."""
    machine = Machine(lambda t: 0.05)
    due = [1000, 2000]

    def after(step):
        return 15.0 * sum(pacer.course.steps_until(b) > step for b in due)

    pacer = Pacer(Course(3000), 0.0, 180.0, lambda: machine.clock, 12_000, after)
    step = 0
    for boundary in [*due, 3000]:
        step = machine.train(pacer, step, stop=0)  # nothing, but the graph is the same
        while step < pacer.course.steps_until(boundary):
            end = min(pacer.next_look(step), pacer.course.steps_until(boundary))
            machine.clock += 0.05 * (end - step)
            step = end
            pacer.look(step)
        if boundary < 3000:
            machine.clock += 15.0
            pacer.pause(15.0)
    assert step == pacer.course.total
    assert 170 <= machine.clock <= 185
    assert pacer.step_seconds == pytest.approx(0.05)
