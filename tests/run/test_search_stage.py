"""The search stage under a bound on latency, with scores that cost no time."""

import json
import linecache
import pathlib
import shutil
import sys

import pytest
import tensorflow as tf
from latency_tables import made_up_table
from tiny_run import TINY, QuickEvaluator, contents, give_supernet

from neas_tf.common.errors import NeasError
from neas_tf.common.paths import literal_path
from neas_tf.config.parse import load_config
from neas_tf.cost.latency_table import NANOSECONDS
from neas_tf.ensemble.deployed_costs import file_size
from neas_tf.report.reading import read_run
from neas_tf.report.summary import format_summary, summarise
from neas_tf.report.writing import write_report
from neas_tf.run import search_stage
from neas_tf.run.context import open_run
from neas_tf.run.supernet_stage import load_supernet
from neas_tf.supernet.model import Supernet


def opened(folder: pathlib.Path, override: str):
    (folder / "tiny.yaml").write_text(json.dumps(TINY))
    config = load_config("neas_quickstart", [str(folder / "tiny.yaml")], override)
    return open_run(config, str(folder / "run"), tf.distribute.get_strategy())


@pytest.fixture(autouse=True)
def evaluator(monkeypatch):
    monkeypatch.setattr(search_stage, "_LazyEvaluator", QuickEvaluator)


@pytest.fixture
def lut(tmp_path) -> str:
    """A table of the tiny run's space."""
    table = made_up_table(opened(tmp_path, "").space)
    table.save(tmp_path / "lut.json")
    return str(tmp_path / "lut.json")


def bounded(tmp_path, lut, share=0.3, more=""):
    """A run whose bound leaves a share of the range of latencies."""
    free = opened(tmp_path, f"search.max_macs=0,search.latency_table={lut}")
    low, high = free.table.attainable_range(free.full, "latency_ns")
    limit = (low + share * (high - low)) / NANOSECONDS
    override = f"search.max_macs=0,search.latency_table={lut},search.max_latency_ms={limit}{more}"
    return opened(tmp_path, override), round(limit * NANOSECONDS)


def test_search_under_a_bound_on_latency(tmp_path, lut, capsys):
    run, limit = bounded(tmp_path, lut)
    give_supernet(run)
    with run.writing():
        result = search_stage.search(*run.inputs)
    printed = capsys.readouterr().err
    assert "budget: at most 0." in printed and "latency as measured on a phone" in printed
    assert " ms, " in printed.splitlines()[-1]
    latencies = [c.costs["latency_ns"] for c in result.candidates]
    assert len(latencies) > 8 and max(latencies) <= limit
    for candidate in result.candidates:
        expected = run.table.latency.predict_ns(candidate.architecture, run.space)
        assert candidate.costs["latency_ns"] == expected
    best = json.loads(run.folder("search", "best.json").read_text())
    assert best["x_latency_ns"] == result.best.costs["latency_ns"]
    context = json.loads(run.folder("search", "state.json").read_text())["search"]["context"]
    assert context["latency_table"] == run.table.latency.identity()
    files = read_run(run.model_dir)
    assert files.latency == run.table.latency and not files.problems
    assert files.cost()["latency_ns"] == result.best.costs["latency_ns"]
    text = format_summary(summarise(files))
    assert "predicted latency" in text and "ms" in text.split("budget")[1].split("\n")[0]


def test_another_table_is_another_search(tmp_path, lut):
    run, limit = bounded(tmp_path, lut)
    give_supernet(run)
    with run.writing():
        search_stage.search(*run.inputs)
    before = contents(run.model_dir)
    made_up_table(run.space, device="another phone", scale=1.2).save(lut)
    other = opened(
        tmp_path, f"search.max_macs=0,search.latency_table={lut},"
        f"search.max_latency_ms={limit / NANOSECONDS}"
    )  # fmt: skip
    with pytest.raises(NeasError) as caught:
        search_stage.search(*other.inputs)
    text = str(caught.value)
    assert 'latency_table.device: was "a phone", is "another phone"' in text
    assert "latency_table.fingerprint: was" in text and "scale: was 1.25, is 1.2" in text
    with pytest.raises(NeasError, match="max_latency_ms: was"):
        search_stage.search(*bounded(tmp_path, lut, 0.5)[0].inputs)
    assert contents(run.model_dir) == before


@pytest.mark.parametrize(
    ("override", "text"),
    [
        ("search.max_latency_ms=5", "search.max_latency_ms: received 5.* without a search.latency"),
        ("search.max_latency_ms=-5", "search.max_latency_ms: received -5"),
        ("search.latency_table=none.json", "search.latency_table: no file at"),
        ("search.latency_table=LUT,num_paths=3", "with 2 paths, but num_paths is 3"),
        ("search.latency_table=LUT,space.operators=[k3e1,k7e1,k5e2]", "lacks 'k7e1 8>8"),
        ("search.latency_table=LUT,search.max_latency_ms=1e-5", "expected at least 0"),
        (
            "search.objective=pareto,search.pareto_cost=latency",
            "pareto_cost: received 'latency' with",
        ),
        (
            "search.objective=pareto,search.pareto_cost=lat",
            "search.pareto_cost: unknown name 'lat'",
        ),
        ("search.latency_tabel=LUT", "Did you mean 'latency_table'"),
    ],
)
def test_bad_settings_are_refused_before_anything_is_written(tmp_path, lut, override, text):
    with pytest.raises(NeasError, match=text):
        opened(tmp_path, override.replace("LUT", lut))
    assert not (tmp_path / "run").exists()


def test_accuracy_against_latency(tmp_path, lut):
    """The front by predicted latency, in the file, the summary and the picture."""
    more = ",search.objective=pareto,search.pareto_cost=latency"
    run, limit = bounded(tmp_path, lut, 0.7, more)
    give_supernet(run)
    with run.writing():
        result = search_stage.search(*run.inputs)
    value = json.loads(run.folder("search", "pareto.json").read_text())
    assert value["cost"] == "latency_ns"
    front = [(row["latency_ns"], row["accuracy"]) for row in value["front"]]
    assert front == sorted(front) and front[-1][1] == result.best.accuracy
    assert front[-1][0] <= limit
    written = write_report(run.model_dir)
    assert written.summary["search"]["pareto_front"] == len(front)
    assert run.folder("report", "search_scatter.png").stat().st_size > 10_000
    assert "on the Pareto front" in format_summary(written.summary)


def test_without_a_table_nothing_changes(tmp_path):
    run = give_supernet(opened(tmp_path, ""))
    with run.writing():
        result = search_stage.search(*run.inputs)
    assert set(result.best.costs) == {"macs", "paper_flops", "params"}
    context = json.loads(run.folder("search", "state.json").read_text())["search"]["context"]
    assert "latency_table" not in context and "max_latency_ms" not in context
    assert not run.folder("search", "latency_table.json").exists()


def test_the_supernet_in_a_folder_that_looks_like_a_pattern(tmp_path):
    place = tmp_path / "rate[0.1]"
    place.mkdir()
    run = give_supernet(opened(place, ""))
    folder = run.folder("supernet")
    shutil.rmtree(folder)
    folder.mkdir()
    source = Supernet(run.space, run.config.num_paths, name="supernet")
    source.variables[0].assign_add(tf.ones_like(source.variables[0]))
    checkpoint = tf.train.Checkpoint(model=source)
    tf.train.CheckpointManager(checkpoint, literal_path(folder), 1).save(checkpoint_number=40)
    loaded = load_supernet(run.config, run.model_dir, run.space)
    for one, other in zip(loaded.variables, source.variables, strict=True):
        assert bool(tf.reduce_all(one == other)), one.name


OWN_BOUND = "def early(architecture, space):\n    return architecture.split_point + {more}\n"


@pytest.fixture
def early(tmp_path, monkeypatch):
    """Writes the module `own_early`; called with what its function adds."""

    def write(more: float) -> None:
        (tmp_path / "own_early.py").write_text(OWN_BOUND.format(more=more))
        linecache.clearcache()
        sys.modules.pop("own_early", None)

    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    write(0.5)
    yield write
    sys.modules.pop("own_early", None)


def test_search_under_constraints(tmp_path, early):
    free = opened(tmp_path, "")
    assert "constraints" not in free._facts()["budget"]
    lines = "search.constraints=['own_early:early<=2.5','file_size<=30kB']"
    run = opened(tmp_path, lines)
    give_supernet(run)
    with run.writing():
        result = search_stage.search(*run.inputs)
    for c in result.candidates:
        assert c.costs["early"] == c.architecture.split_point + 0.5 <= 2.5
        assert c.costs["file_size"] == file_size(c.architecture, run.space) <= 30_000
    assert {"random", "mutation"} <= {c.origin for c in result.candidates}
    best = json.loads(run.folder("search", "best.json").read_text())
    assert best["x_early"] == result.best.costs["early"] and best["x_file_size"] <= 30_000
    context = json.loads(run.folder("search", "state.json").read_text())["search"]["context"]
    texts = [line["constraint"] for line in context["constraints"]]
    assert texts == ["own_early:early<=2.5", "file_size<=30000"]
    before = contents(run.folder("search"))
    (run.folder("search") / "best.json").unlink()
    assert search_stage.search(*opened(tmp_path, lines).inputs) == result  # a finished one, again
    assert contents(run.folder("search")) == before
    text = format_summary(summarise(read_run(run.model_dir)))
    assert "own_early:early<=2.5" in text and "not known yet" in text
    other = opened(tmp_path, lines.replace("2.5", "1.5"))
    with pytest.raises(NeasError, match="constraints"):
        search_stage.search(*other.inputs)
    early(0.25)  # the same name, another function
    with pytest.raises(NeasError, match=r"constraints.*source"):
        search_stage.search(*opened(tmp_path, lines).inputs)
    with pytest.raises(NeasError, match="file_size: received 5,000, expected at least"):
        opened(tmp_path, "search.constraints=['file_size<=5kB']")
