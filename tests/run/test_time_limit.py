"""A run under a time limit, on a clock that is made up: its plan, its file, and what is refused."""

import json
import types

import pytest
from tiny_run import TINY

from neas_tf.common.errors import NeasError
from neas_tf.config.parse import load_config
from neas_tf.config.settings import search_space
from neas_tf.cost.cost_table import CostTable
from neas_tf.run.parts.pacing import StagePace, SupernetPace, choose_start, reserve, search_end
from neas_tf.run.parts.time_limit import TimePlan, open_plan, parse_limit, told
from neas_tf.run.pipeline import run_pipeline
from neas_tf.space.architecture import Architecture
from neas_tf.space.sampling import draws_for_steps
from neas_tf.space.shrunk_space import ShrunkSpace

CLUSTER = types.SimpleNamespace(worker=(1, 0), is_chief=True)
INFO = types.SimpleNamespace(
    sizes={"train": 10_000, "supernet": 8_000, "search": 2_000, "test": 10_000}
)


class Machine:
    """A clock, and a training loop whose steps take their time on it.

    Args:
      step_seconds: (stage, clock) → of a step.
      tracing: seconds of a graph.
    """

    def __init__(self, step_seconds, tracing=15.0):
        self.clock, self.step, self.total = 8.0, 0, 0  # the libraries took their time
        self._seconds, self._tracing = step_seconds, tracing

    def begin(self, stage):
        self.stage, self.step, self._traced = stage, 0, False

    def set_total(self, total):
        self.total = total

    def train_to(self, step, save=True):
        self.clock += 0.0 if self._traced else self._tracing
        self._traced = True
        for _ in range(self.step, step):
            self.clock += self._seconds(self.stage, self.clock)
        self.step = step

    def save(self):
        self.clock += 0.5


@pytest.fixture
def config():
    return load_config("neas_quickstart", params_override={"retrain": {"batch_size": 128}})


def whole_run(config, folder, machine, limit, generation=9.0, shrink=6.0):
    """All stages; returns the plan after the end."""
    plan = open_plan(limit, folder, 0.0, clock=lambda: machine.clock)
    machine.begin("supernet")
    boundaries = [2500, 5000, 7500]
    pace = SupernetPace(config, INFO, plan, 7500, 62.5, CLUSTER, boundaries)
    pace.begin()
    for index, boundary in enumerate(boundaries, 1):
        pace.train(machine, lambda b=boundary: pace.step_of(b))
        machine.save()
        if not pace.skips(index):
            machine.clock += shrink
            pace.took(shrink)
    pace.train(machine, lambda: pace.course.total)
    enough = search_end(config, INFO, plan, CLUSTER)
    search, over = config.search, False
    for number in range(search.generations):
        for first in range(0, search.population, search.parents):
            scored = min(first + search.parents, search.population)
            machine.clock += generation * (scored - first) / search.population
            if not number and scored < search.population and (over := bool(enough(0, scored))):
                break
        if over or enough(number, 0):
            break
    machine.begin("retrain")
    pace = StagePace("retrain", config, INFO, plan, 12_000, 78.125, CLUSTER)
    pace.begin()
    pace.train(machine, lambda: pace.course.total)
    machine.save()
    machine.clock += reserve(config, INFO, plan)
    plan.save()
    return plan


SPEEDS = {
    "steady": lambda stage, t: 0.1,
    "half as fast from the middle of the supernet": lambda stage, t: 0.1 if t < 80 else 0.2,
    "half as fast while it is trained": lambda stage, t: 0.1 if t < 230 else 0.2,
    "twice as fast from the search on": lambda stage, t: 0.2 if stage == "supernet" else 0.1,
    "to and fro": lambda stage, t: 0.1 if t % 60 < 30 else 0.2,
}


@pytest.mark.parametrize("name", SPEEDS)
@pytest.mark.parametrize("limit", [300, 1200, 3600])
def test_the_whole_run_ends_in_time(name, limit, config, tmp_path):
    machine = Machine(SPEEDS[name])
    plan = whole_run(config, tmp_path, machine, limit)
    assert 0.8 * limit <= machine.clock <= 1.1 * limit
    found = json.loads((tmp_path / "time_plan.json").read_text())
    assert found["format"] == "neas-time-plan/1" and found["limit"] == limit
    assert found["used"] == pytest.approx(machine.clock, abs=0.1)
    assert list(found["stages"]) == ["supernet", "search", "retrain"]
    assert plan.note().endswith("left")


def test_a_slow_generation_leaves_the_retraining_its_time(config, tmp_path):
    """A generation that would take half of the limit ends after its first part."""
    machine = Machine(SPEEDS["steady"])
    plan = whole_run(config, tmp_path, machine, 300, generation=150.0)
    assert 0.8 * 300 <= machine.clock <= 1.1 * 300
    search, retrain = (plan.stages[name]["begin"] for name in ("search", "retrain"))
    part = 150.0 * config.search.parents / config.search.population
    assert retrain - search == pytest.approx(part, abs=1)
    assert plan.course("retrain", 12_000).total * 0.1 > 60  # seconds of training


def test_shrinks_without_time_are_left_out(config, tmp_path, capsys):
    machine = Machine(lambda stage, t: 0.1)
    plan = whole_run(config, tmp_path, machine, 300, shrink=40.0)
    skipped = plan.stages["supernet"]["skipped_shrinks"]
    assert skipped and machine.clock <= 330
    assert f"Shrink {skipped[0]} is left out: it would take about" in capsys.readouterr().err


def test_the_time_of_all_sessions_counts(tmp_path):
    """And a killed session's, as far as it was noted; a stage keeps the time at which it began."""
    clock = [100.0]
    first = open_plan("10min", tmp_path, 100.0, clock=lambda: clock[0])
    clock[0] = 160.0
    deadline = first.deadline("supernet", 40.0)
    assert deadline == 60 + 0.4 * 500
    first.put("supernet", segments=[[5, 400]], step_seconds=0.1)
    clock[0] = 7000.0  # it was killed, and the machine was off
    second = open_plan("10min", tmp_path, 6990.0, clock=lambda: clock[0])
    assert second.used() == 70.0 and second.left() == 530.0
    assert second.deadline("supernet", 40.0) == deadline
    assert second.course("supernet", 1000).total == 400
    # With another limit what has not ended is planned again.
    assert open_plan("20min", tmp_path, 6990.0).deadline("supernet", 40.0) == 60 + 0.4 * 1100


def test_a_training_that_cannot_be_says_what_it_would_take(config, tmp_path):
    machine = Machine(lambda stage, t: 3.0, tracing=60.0)
    with pytest.raises(
        NeasError, match=r"time_limit: received 2:00 min, but a step .* at least (\d+)s"
    ):
        whole_run(config, tmp_path, machine, 120)


@pytest.mark.parametrize(
    "limit, supernet_steps, expected",
    [
        (300, 20_000, "supernet"),  # some 4 epochs after 320 of the supernet
        (600, 20_000, "supernet"),
        (300, 600, "scratch"),  # after 10 epochs the supernet has hardly learnt anything
        (3600, 20_000, "scratch"),  # more than 64
    ],
)
def test_a_training_short_beside_the_supernets_starts_from_it(
    limit, supernet_steps, expected, config, tmp_path
):
    config.space.input_size, config.space.input_channels = [8, 8], 1
    config.space.num_classes = 10
    space = search_space(config.space)
    shrunk = ShrunkSpace.full(space, 2)
    chosen = Architecture.from_array(draws_for_steps(shrunk, 0, 0, 1)[0], space)
    plan = TimePlan(tmp_path / "plan.json", limit, clock=lambda: 0.5 * limit)
    plan.put("supernet", step_seconds=0.2, traced=10.0, segments=[[5, supernet_steps]])
    choice = choose_start(config, INFO, plan, CostTable(space), chosen, shrunk, CLUSTER)
    assert choice == expected == plan.stages["retrain"]["init"]
    other = TimePlan(tmp_path / "other.json", limit, clock=lambda: 0.5 * limit)
    assert choose_start(config, INFO, other, CostTable(space), chosen, None, CLUSTER) == "scratch"


@pytest.mark.parametrize(
    "value, seconds",
    [("", 0), (300, 300), ("300", 300), ("5min", 300), ("2h", 7200), ("1.5h", 5400)],
)
def test_limits_as_people_write_them(value, seconds):
    assert parse_limit(value) == seconds


def test_durations_as_people_read_them():
    assert [told(s) for s in (44.6, 270, 3900, -3)] == ["45 s", "4:30 min", "1 h 05 min", "0 s"]


@pytest.mark.parametrize(
    "value", ["soon", "-5min", 0.5, "0.5s", -3, True, [1], "5 parsecs", "1e99h"]
)
def test_a_limit_that_is_none_is_one_sentence(value, tmp_path):
    (tmp_path / "tiny.yaml").write_text(json.dumps(TINY))
    config = load_config("neas_quickstart", [str(tmp_path / "tiny.yaml")])
    config.time_limit = value
    with pytest.raises(NeasError, match=r"^time_limit: received .*, expected [^\n]*\.$"):
        run_pipeline(config, str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "limit, files, continues, words",
    [
        ("2h", (), True, "has no plan"),
        ("2h", ("supernet/identity.json",), False, "was begun without a limit"),
        ("", ("time_plan.json",), False, "was begun with 10:00 min"),
    ],
)
def test_a_folder_of_another_kind_is_refused(limit, files, continues, words, tmp_path):
    for name in files:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(
            json.dumps({"format": "neas-time-plan/1", "limit": 600, "used": 3, "stages": {}})
        )
    with pytest.raises(NeasError, match=words) as error:
        open_plan(limit, tmp_path, 0.0, continues=continues)
    assert str(error.value).startswith("time_limit: ") and "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"format": "neas-time-plan/1", "limit": "x"}'])
def test_a_damaged_plan_is_one_sentence(text, tmp_path):
    (tmp_path / "time_plan.json").write_text(text)
    with pytest.raises(NeasError, match="time plan"):
        open_plan("2h", tmp_path, 0.0)


def test_a_resumed_search_decides_as_the_one_session_would(config, tmp_path):
    """Killed after a part, or a generation, whose end leaves no time for another; it has seen little."""

    def session(clock, began):
        plan = open_plan(1000, tmp_path, began, clock=lambda: clock[0])
        return plan, search_end(config, INFO, plan, CLUSTER)

    clock = [50.0]
    plan, enough = session(clock, 0.0)
    kept, graphs = reserve(config, INFO, plan), 0.0  # no supernet was trained
    deadline = plan.deadline("search", kept, graphs)
    clock[0] = 60.0
    assert not enough(0, 4)  # a short part, with time for many
    plan.put("search", part_seconds=30.0)
    clock[0] = deadline - 20  # noted, then killed before it asked
    plan.save()
    clock[0] = 9000.0
    resumed, enough = session(clock, 9000.0)
    assert resumed.used() == pytest.approx(deadline - 20, abs=0.1)
    assert "its time is over after 8 of the" in enough(0, 8)

    resumed.put("search", generation_seconds=30.0)
    _, enough = session(clock, 9000.0)
    assert f"its time is over after 2 of {config.search.generations} generations" in enough(1, 0)
