"""Tables that are kept per machine and space, and LiteRT's own benchmark. No time is asserted."""

import json
import os
import re
import stat
import sys

import numpy as np
import pytest
from latency_tables import TINY, command, made_up_table
from spaces_for_tests import TOY

from neas_tf.common.errors import NeasError
from neas_tf.cost.latency_table import load_table
from neas_tf.latency import litert_benchmark, tables
from neas_tf.latency.litert_benchmark import LiteRtBenchmark, input_bytes, parse_report, split_flags
from neas_tf.latency.timing import TimingSettings, versions

# As litert-benchmark of ai-edge-litert 2.3.0 writes it.
REPORT = {
    "model": "x.tflite", "model_size_mb": 0.05, "accelerators": ["GPU", "CPU"],
    "signature": "<placeholder signature>", "fully_accelerated": True, "num_threads": 1,
    "latency": {"init_ms": 9.09, "warmup_first_ms": 0.12, "warmup_avg_ms": 0.05,
        "num_warmup_runs": 3, "avg_ms": 0.02, "min_ms": 0.02, "max_ms": 0.02, "median_ms": 0.02,
        "std_ms": 0.0, "p5_ms": 0.02, "p95_ms": 0.02, "num_runs": 20},
    "throughput_mb_s": 85.67,
}  # fmt: skip
PROGRAM = """#!{python}
import json, os, sys
flags = dict(a.partition("=")[::2] for a in sys.argv[1:])
print("INFO: [environment.cc:36] Creating LiteRT environment", file=sys.stderr)
with open({log!r}, "a") as log:
    log.write(" ".join(sys.argv[1:]) + "\\n")
if "--use_npu" in flags:
    print("ERROR: [npu.cc:1] no NPU here\\nINFO: bye", file=sys.stderr)
    sys.exit(1)
report = {report!r}
report["fully_accelerated"] = "probe_000" not in flags["--model"]
report["latency"]["avg_ms"] = 1.25 + os.path.getsize(flags["--model"]) / 1e4
del report["throughput_mb_s"]
with open(flags["--result_json"], "w") as f:
    json.dump(report, f, indent=2)
"""


@pytest.fixture
def program(tmp_path, monkeypatch):
    """A program of the same name that makes times up, first on PATH; gives its log."""
    folder = tmp_path / "bin"
    folder.mkdir()
    log = tmp_path / "calls.txt"
    path = folder / litert_benchmark.PROGRAM
    path.write_text(PROGRAM.format(python=sys.executable, log=str(log), report=REPORT))
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return log


def test_the_mean_is_read_from_the_throughput():
    size = 24 * 20 * 3
    exact = 1e9 * size / (1 << 20) / 85.67
    result = parse_report(json.dumps(REPORT), size)
    assert result.nanoseconds == round(exact) == 16_030  # 0.02 ms says less
    assert result.accelerators == ("GPU", "CPU") and result.whole
    # A throughput that does not go with the mean is not believed.
    assert parse_report(json.dumps(REPORT), 10 * size).nanoseconds == 20_000
    slow = REPORT | {"throughput_mb_s": 0.0, "latency": {"avg_ms": 7}}
    assert parse_report(json.dumps(slow), size).nanoseconds == 7_000_000


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "report: received '', expected a JSON object"),
        ("[1]", "expected a JSON object"),
        ("{}", "latency.avg_ms of the report: received None, expected milliseconds"),
        ('{"latency": {"avg_ms": "fast"}}', "received 'fast'"),
        ('{"latency": {"avg_ms": 0.0}}', r"received 0.0, expected more than 0"),
    ],
)
def test_reports_that_are_none(text, message):
    with pytest.raises(NeasError, match=message):
        parse_report(text, 100)


def test_flags_are_passed_on():
    flags = "--use_gpu --dispatch_library_path='/a b/x.so'"
    assert split_flags(flags) == ("--use_gpu", "--dispatch_library_path=/a b/x.so")
    for wrong in ("--model=x", "--num_threads 3", "--num_r=1", "'"):
        with pytest.raises(NeasError, match="backend_flags: received"):
            split_flags(wrong)


def test_a_missing_program_is_one_sentence(monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(NeasError, match=r"neither on PATH nor beside Python.*pip install -U"):
        LiteRtBenchmark()


def test_the_command_measures_with_it_and_says_what_a_search_can_ask_for(program, tmp_path):
    (tmp_path / "tiny.json").write_text(json.dumps(TINY.to_dict()))
    flags = [f"--space={tmp_path / 'tiny.json'}", "--num_paths=1", "--rounds=1", "--fit=1"]
    flags += ["--repetitions=7", "--backend=litert_benchmark", f"--models={tmp_path / 'models'}"]
    output = tmp_path / "my lut.json"
    done = command(*flags, "--backend_flags=--use_gpu", f"--output={output}")
    assert done.returncode == 0, done.stderr
    calls = program.read_text().splitlines()
    table = load_table(output)
    assert len(calls) == len(list((tmp_path / "models").glob("*.tflite")))
    assert all("--num_runs=7" in call and call.endswith("--use_gpu") for call in calls)
    assert table.measurement["clock"] == "wall" and table.measurement["flags"] == "--use_gpu"
    assert table.measurement["accelerators"] == ["GPU", "CPU"]
    assert "1 of the models ran on the accelerator in part only" in done.stdout
    low, high = tables.attainable_range(table, TINY)
    assert re.search(r"Ensembles with 1 path take \d.* ms to \d.* ms\.", done.stdout)
    line = done.stdout.splitlines()[-1]
    match = re.fullmatch(r"  --max_latency_ms=([\d.]+) --latency_table='(.*)'", line)
    assert match and low <= float(match[1]) * 1e6 <= high and match[2] == str(output)
    # Times of another back end are not mixed with these; what fails is one sentence.
    done = command(*flags, f"--output={tmp_path / 'b.json'}", "--backend_flags=--use_npu")
    assert done.returncode == 2 and "flags: was" in done.stderr
    flags[-1] = f"--models={tmp_path / 'models2'}"
    for flag, text in (
        ("--clock=cpu", "clock: received 'cpu'"),
        ("--backend=python", "backend_flag"),
    ):
        done = command(*flags, flag, "--backend_flags=--use_npu", f"--output={tmp_path / 'b.json'}")
        assert done.returncode == 2 and text in done.stderr


def test_what_fails_is_one_sentence(program, tmp_path):
    (tmp_path / "x.tflite").write_bytes(b"no model")
    benchmark, rng = LiteRtBenchmark(["--use_npu"]), np.random.default_rng(0)
    with pytest.raises(NeasError, match=r"x.tflite' ended with 1 and no report \(ERROR: .* no NPU"):
        benchmark.visit(tmp_path / "x.tflite", TimingSettings(), rng)
    with pytest.raises(NeasError, match="LiteRT cannot read it"):
        input_bytes(tmp_path / "x.tflite")


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A cache of the test's own, and a measurement that makes its table up; gives the calls."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    calls = []

    def measure(work, settings, device, benchmark=None):
        calls.append((work.request, settings.threads, device))
        (work.folder / "manifest.json").write_text("{}")
        return made_up_table(work.request.space, work.request.num_paths)

    monkeypatch.setattr(tables, "measure", measure)
    return calls


def test_a_table_is_measured_once(machine, tmp_path):
    assert tables.find_table(TOY, 2) is None
    path = tables.latency_table_for(TOY, 2)
    assert path.parent == tmp_path / "cache" / "neas" / "latency" == tables.cache_folder()
    assert tables.latency_table_for(TOY, 2) == tables.find_table(TOY, 2) == path
    assert len(machine) == 1 and [p.name for p in path.parent.iterdir()] == [path.name]
    load_table(path).check_fits(TOY, 2)
    # Another space, K, form, number of threads or folder has its own.
    others = {
        tables.latency_table_for(TINY, 1),
        tables.latency_table_for(TOY, 3),
        tables.latency_table_for(TOY, 2, 2),
        tables.latency_table_for(TOY, 2, quantize="int8"),
        tables.latency_table_for(TOY, 2, folder=tmp_path / "own"),
    }
    assert len(others | {path}) == 6 == len(machine)


def test_another_machine_and_a_damaged_table_are_measured_again(machine, monkeypatch, capsys):
    path = tables.latency_table_for(TOY, 2)
    path.write_text(path.read_text()[:-20])
    assert tables.latency_table_for(TOY, 2) == path and len(machine) == 2
    assert "Measured again" in capsys.readouterr().err
    load_table(path)
    monkeypatch.setattr(tables, "_device", lambda: "3 cores of something else")
    assert tables.latency_table_for(TOY, 2) != path and machine[-1][2].startswith("3 cores")
    monkeypatch.setattr(tables, "versions", lambda: versions() | {"ai-edge-litert": "9"})
    assert tables.latency_table_for(TOY, 2) and len(machine) == 4


def test_a_cache_that_takes_no_files(machine, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(NeasError, match=r"latency tables \(XDG_CACHE_HOME\)"):
        tables.latency_table_for(TOY, 2)
    with pytest.raises(NeasError, match="threads: received 1 with settings of 2"):
        tables.latency_table_for(TOY, 2, settings=TimingSettings(2))
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert tables.cache_folder().is_absolute() and not machine
