"""The report of whole, partial and damaged runs. Pixels are for people: none is compared here."""

import json
import os
import shutil
import subprocess
import sys
import time

import pytest
import synthetic_run

from neas_tf.ensemble.store import weights_digest
from neas_tf.report import (
    format_markdown,
    format_summary,
    read_run,
    summarise,
    write_report,
)
from neas_tf.report.__main__ import main
from neas_tf.report.charts import curve_charts
from neas_tf.report.run_files import export_reports
from neas_tf.report.summary import count, duration, file_size
from neas_tf.space.architecture import Architecture

PICTURES = (
    "architecture.png",
    "search_scatter.png",
    "alive_operators.png",
    "similarity.png",
    "training_curves.png",
    "risk_coverage.png",
)
SUMMARIES = ("summary.json", "summary.txt", "summary.md", "report.html")
EVENTS = "tensorboard"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = synthetic_run.write_run(tmp_path_factory.mktemp("runs") / "toy")
    return folder, write_report(folder)


@pytest.fixture
def copy(whole, tmp_path):
    """A copy of the run, without its report."""
    ignore = shutil.ignore_patterns("report")
    return shutil.copytree(whole[0], tmp_path / "toy", ignore=ignore)


def png_size(data):
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    return int.from_bytes(data[16:20]), int.from_bytes(data[20:24])


def test_whole_run_gives_every_file(whole):
    folder, report = whole
    assert report.missing == {} and report.problems == ()
    assert [p.name for p in report.written] == [*PICTURES, *SUMMARIES, EVENTS]
    assert {p.name for p in (folder / "report").iterdir()} == {*PICTURES, *SUMMARIES, EVENTS}
    for name in PICTURES:
        data = (folder / "report" / name).read_bytes()
        width, height = png_size(data)
        assert width > 900 and height > 300 and len(data) > 15_000, name
        assert b"tEXt" not in data and b"tIME" not in data, name
    assert json.loads((folder / "report/summary.json").read_text()) == report.summary


def test_summary_holds_the_numbers_of_the_files(whole):
    folder, _ = whole
    lines = [json.loads(x) for x in (folder / "search/history.jsonl").read_text().splitlines()]
    best = max(lines, key=lambda row: row["accuracy"])
    found = summarise(folder)
    assert found["format"] == "neas-summary/1" and found["name"] == "toy"
    assert found["space"] == {
        "name": "digits",
        "fingerprint": synthetic_run.SMALL.fingerprint(),
        "num_layers": 7,
        "input_size": [16, 16],
        "num_classes": 10,
    }
    assert found["architecture"]["key"] == best["key"]
    assert found["architecture"]["num_paths"] == 2
    assert found["accuracy"] == {
        "paths": [0.951, 0.947],
        "ensemble": 0.9585,
        "best_path": 0.951,
        "gain": 0.9585 - 0.951,
        "top5": 0.998,
        "test_examples": 10_000,
    }
    assert found["cost"] == {name: best[name] for name in ("macs", "paper_flops", "params")}
    assert found["search"] == {
        "candidates": len(lines),
        "generations": 4,
        "best_accuracy": best["accuracy"],
        "winner_accuracy": best["accuracy"],
        "min_macs": min(row["macs"] for row in lines),
        "max_macs": max(row["macs"] for row in lines),
    }
    assert list(found["budget"]) == ["max_macs"] and found["budget"]["max_macs"] >= best["macs"]
    # Layers 4, 5, 7 have C(5, 2) combinations, layer 6 has no skip; three shrinks drop 4 each.
    shrinking = found["shrinking"]
    assert (shrinking["combinations_before"], shrinking["combinations_after"]) == (36, 24)
    assert (shrinking["shrinks"], shrinking["metric"]) == (3, "diversity")
    assert shrinking["operators_before"] == 33
    parity = {"max_abs_diff": 3.1e-6, "agreement": 1.0, "examples": 256}
    shared = {"exists": True, "sha256": "ab" * 32, "parity": parity}
    assert found["exports"] == [
        {"file": "model.tflite", "bytes": 3_514_321, **shared},
        {"file": "saved_model", "bytes": 3_000, **shared},
    ]
    assert found["wall_time"]["stages"]["search"] == 312.5
    assert found["wall_time"]["total"] == pytest.approx(7838.0)
    assert found["missing"] == [] and found["problems"] == []


def test_summary_as_text_and_markdown(whole):
    summary = dict(whole[1].summary, cost={"macs": 301_500_768, "params": 8_657_656})
    summary["budget"] = {"max_macs": 310_000_000}
    text = format_summary(summary)
    for line in (
        "NEAS: toy",
        "  path 2                     94.70 %",
        "  ensemble                   95.85 %  (+0.75 points over the best path)",
        "  test images                10,000",
        "  MACs                       301.50 M (301,500,768)",
        "  budget                     ≤ 310.00 M MACs",
        "  combinations alive         24 of 36 (66.7 %), 3 shrinks by diversity",
        "  model.tflite               3.51 MB, max. difference 3.1e-06, same class 100.00 %, "
        "256 images",
        "  supernet                   1 h 23 min",
        "  retrain                    42 min 10 s",
        "  total                      2 h 10 min",
    ):
        assert line in text.split("\n"), line
    assert "Problems" not in text and max(map(len, text.split("\n"))) <= 110
    markdown = format_markdown(summary, ["architecture.png"])
    assert "| ensemble | 95.85 %  (+0.75 points over the best path) |" in markdown
    assert "![architecture](architecture.png)" in markdown
    for line in markdown.split("\n"):
        if line.startswith("|"):
            assert line.replace("\\|", "").count("|") == 3


def test_numbers_are_readable():
    assert [count(v) for v in (12, 8300, 1.2e6)] == ["12", "8.30 k (8,300)", "1.20 M (1,200,000)"]
    assert [file_size(v) for v in (None, 12, 2048, 5e9)] == ["?", "12 bytes", "2.05 kB", "5.00 GB"]
    assert [duration(v) for v in (12.34, 59.99, 3599.7)] == ["12.3 s", "60.0 s", "1 h 00 min"]


def test_empty_folder_names_everything_that_is_missing(tmp_path):
    report = write_report(tmp_path)
    lacking = {*PICTURES} - {"risk_coverage.png"}  # older runs are whole without it
    assert sorted(report.missing) == sorted(lacking) and report.problems == ()
    assert report.missing["search_scatter.png"] == "needs search/history.jsonl"
    assert [p.name for p in report.written] == list(SUMMARIES)
    assert report.summary["accuracy"] is None and report.summary["exports"] == []
    for name in ("params.yaml", "search/best.json", "retrain/results.json", "timing.json"):
        assert name in report.summary["missing"]
        assert name in (tmp_path / "report/summary.txt").read_text()


def test_partial_runs_give_partial_reports(copy):
    shutil.rmtree(copy / "shrink")
    shutil.rmtree(copy / "retrain")
    shutil.rmtree(copy / "supernet")
    report = write_report(copy)
    assert sorted(report.missing) == [
        "alive_operators.png",
        "similarity.png",
        "training_curves.png",
    ]
    assert report.summary["accuracy"] is None and report.summary["search"]["candidates"] > 10
    assert (copy / "report/architecture.png").exists() and report.problems == ()


def test_the_space_may_come_from_the_caller(copy):
    (copy / "params.yaml").unlink()
    assert read_run(copy).space is None and read_run(copy).problems == []
    missing = write_report(copy).missing
    assert list(missing) == ["architecture.png", "alive_operators.png"]
    assert "params.yaml" in missing["architecture.png"]
    assert read_run(copy, synthetic_run.SMALL).alive.num_combinations == 24


BROKEN = (b"{", b"[1, 2]", b"\xff\xfe\x00")
OTHER_KEYS = b'{"layers": 3, "paths": 1}'
# Files that are no use without certain keys; the others may have any.
STRICT = (
    "search/best.json",
    "search/history.jsonl",
    "shrink/shrink_02.json",
    "shrink/alive.json",
    "supernet/metrics.jsonl",
)
LENIENT = ("params.yaml", "retrain/results.json", "export/model.tflite.json", "timing.json")


@pytest.mark.parametrize(
    ("name", "content"),
    [(name, content) for name in STRICT for content in (*BROKEN, OTHER_KEYS)]
    + [(name, content) for name in LENIENT for content in BROKEN],
)
def test_a_corrupt_file_is_named(copy, name, content):
    (copy / name).write_bytes(content)
    run = read_run(copy)
    assert any(name in problem for problem in run.problems), run.problems
    assert not any(str(copy) in problem for problem in run.problems)
    text = format_summary(summarise(run))
    assert "Problems" in text and name in text


def test_a_wholly_corrupt_run_still_reports(copy):
    for path in [p for p in copy.rglob("*") if p.suffix in (".json", ".jsonl", ".yaml")]:
        path.write_bytes(b"\x00{nonsense")
    report = write_report(copy)
    assert len(report.missing) == 5 and len(report.problems) >= 10
    json.loads((copy / "report/summary.json").read_text())


def test_a_picture_that_cannot_be_drawn_is_a_problem(copy):
    other = Architecture(20, (("k3e4",) * 20,) * 2)
    synthetic_run.write_json(copy / "search/best.json", other.to_dict())
    (copy / "retrain/results.json").unlink()
    report = write_report(copy)
    assert list(report.missing) == ["architecture.png"]
    assert any("has 20 layers" in problem for problem in report.problems)


def test_a_line_cut_off_and_repeated_lines(copy):
    path = copy / "search/history.jsonl"
    lines = path.read_text().splitlines()
    again = {**json.loads(lines[3]), "accuracy": 0.123}
    path.write_text("\n".join([*lines, json.dumps(again), lines[0][:40]]))
    run = read_run(copy)
    assert len(run.candidates) == len(lines)
    assert run.candidates[3].accuracy == 0.123
    assert len(run.problems) == 1 and f"line {len(lines) + 2} " in run.problems[0]
    metrics = copy / "retrain/metrics.jsonl"
    metrics.write_text('{"step": 2, "loss": 1}\n{"step": 1, "loss": 3}\n{"step": 2, "loss": 2}\n')
    assert [line["loss"] for line in read_run(copy).metrics["retrain"]] == [3, 2]


def test_an_export_that_is_gone_and_a_retrained_architecture(copy):
    (copy / "export/model.tflite").unlink()
    results = json.loads((copy / "retrain/results.json").read_text())
    row = ["k3e4"] * 7
    other = Architecture(7, (tuple(row), tuple(row)), "mine")
    results |= {"architecture": other.to_dict(), "macs": 77}
    synthetic_run.write_json(copy / "retrain/results.json", results)
    found = summarise(copy)
    assert found["exports"][0]["exists"] is False
    assert found["exports"][0]["bytes"] == 3_514_321
    assert "file is not here" in format_summary(found)
    assert found["architecture"]["name"] == "mine" and found["cost"]["macs"] == 77
    assert any("search/best.json" in problem for problem in found["problems"])


def test_numbers_that_are_no_numbers(copy):
    bad = '{"path_accuracies": [NaN, "a", 0.5], "ensemble_accuracy": Infinity}'
    (copy / "retrain/results.json").write_text(bad)
    found = summarise(copy)["accuracy"]
    assert found["paths"] == [0.5] and found["ensemble"] is None and found["gain"] is None
    (copy / "supernet/metrics.jsonl").write_text(
        '{"step": 1, "loss": NaN}\n{"step": 2, "loss": 1}\n'
    )
    (loss,) = curve_charts(read_run(copy).metrics["supernet"]).values()
    assert [{"x": 2, "s": "loss", "v": 1.0}] in loss["datasets"].values()


def test_pictures_are_the_same_bytes_every_time(whole, tmp_path):
    folder, report = whole
    write_report(folder, output_dir=tmp_path)
    files = [path for path in (folder / "report").rglob("*") if path.is_file()]
    assert len(files) > len(report.written)
    for path in files:
        name = path.relative_to(folder / "report")
        assert (tmp_path / name).read_bytes() == path.read_bytes(), name


def test_command(whole, tmp_path, capsys):
    folder, _ = whole
    assert main([f"--model_dir={folder}", f"--output_dir={tmp_path / 'out'}"]) == 0
    printed = capsys.readouterr().out
    assert "NEAS: toy" in printed and "architecture.png" in printed
    assert main([f"--model_dir={tmp_path / 'nowhere'}"]) == 2
    assert "model_dir" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    assert main([f"--model_dir={tmp_path}", f"--output_dir={tmp_path / 'file' / 'x'}"]) == 2
    assert "cannot be written" in capsys.readouterr().err
    assert main([f"--model_dir={folder}", "--output_dir=gs://bucket/report"]) == 2
    assert "which is an address" in capsys.readouterr().err
    assert not (tmp_path / "nowhere").exists()


def test_help_is_quick_and_imports_nothing_heavy():
    code = (
        "import sys, neas_tf.report.__main__ as m\n"
        "try: m.main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'altair', 'vl_convert', 'tensorflow', 'tf_keras'} & set(sys.modules)\n"
        "sys.exit(f'imported: {heavy}' if heavy else 0)"
    )
    start = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "--model_dir" in done.stdout
    assert time.monotonic() - start < 5, "a second on an idle machine"


@pytest.fixture
def trained(copy):
    """The run with a model beside its results; the exports say that they are of it."""
    import h5py

    model = copy / "retrain" / "model"
    model.mkdir()
    with h5py.File(model / "weights.weights.h5", "w") as file:
        file["a"] = [1.0]
    digest = weights_digest(model / "weights.weights.h5")
    for path in export_reports(copy):
        path.write_text(json.dumps({**json.loads(path.read_text()), "weights": digest}))
    return copy


def test_exports_of_another_training_are_left_out(trained):
    whole = read_run(trained)
    assert whole.exports and whole.problems == [] and whole.confusion is not None
    path, *_ = export_reports(trained)
    value = json.loads(path.read_text())
    path.write_text(json.dumps({**value, "weights": "another"}))
    other = read_run(trained)
    assert len(other.exports) == len(whole.exports) - 1
    assert other.problems == [f"export/{path.name}: is left out, it was made of other weights."]
    # From before reports said so: told by the time.
    del value["weights"]
    path.write_text(json.dumps(value))
    assert len(read_run(trained).exports) == len(whole.exports)
    os.utime(path, (1, 1))
    assert "is older than retrain/model" in read_run(trained).problems[0]


def test_a_training_that_began_again_has_no_exports_and_no_confusion_yet(trained):
    shutil.rmtree(trained / "retrain" / "model")
    assert read_run(trained).exports  # a folder that was made smaller
    (trained / "retrain" / "results.json").unlink()
    begun = read_run(trained)
    assert begun.exports == () and begun.confusion is None
    assert {p.split(": ")[1] for p in begun.problems} == {
        "is left out, it is of an earlier training."
    }
