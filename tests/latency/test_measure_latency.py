"""The command that measures: what it asks for, goes on with, and writes. No time is asserted."""

import dataclasses
import json

import numpy as np
import pytest
from benchmark_outputs import printed
from hypothesis import given, settings
from hypothesis import strategies as st
from latency_tables import TINY, command
from spaces_for_tests import TOY

from neas_tf.common.errors import NeasError
from neas_tf.cost.latency_plan import make_plan, space_keys
from neas_tf.cost.latency_table import load_table
from neas_tf.latency.fit import fit_scale, kendall_tau, relative_errors
from neas_tf.latency.measurement import Request, WorkFolder, list_models, make_table, read_manifest
from neas_tf.latency.timing import TimingSettings, describe_machine, time_files, typical
from neas_tf.space.architecture import Architecture

ONE = Request(TINY, 1)


def true_latencies(request, models, noise=0.0):
    """Latencies of a made-up device that adds up: every entry its own price, 5 µs a call."""
    rng = np.random.default_rng(0)
    keys = space_keys(request.space)
    price = dict(zip(keys, rng.integers(20_000, 90_000, len(keys)).tolist(), strict=True))
    plan = make_plan(request.space)
    entries = {
        name: sum(_parts(pieces, price, request.space)) for name, pieces in plan.probes.items()
    }
    table = make_table(request, models, {m.file: entries[m.name] for m in models if m.kind == "probe"},
                       "x", {})  # fmt: skip
    result = {}
    for m in models:
        if m.kind == "probe":
            value = entries[m.name]
        else:
            value = table.predict_ns(Architecture.from_key(m.name), request.space)
        result[m.file] = (value + 5_000) * (1 + noise * rng.standard_normal())
    return result, price


def _parts(pieces, price, space):
    for piece in pieces:
        if piece.kind == "stem":
            yield price[space_keys(space)[0]]
        elif piece.kind == "head":
            yield price[space_keys(space)[-1]]
        else:  # shapes in front of an entry need not be entries
            layer = piece.layer
            key = f"{piece.operator} {layer.c_in}>{layer.c_out} s{layer.stride} "
            key += f"{layer.in_size[0]}x{layer.in_size[1]}"
            yield price.get(key, 33_333)


@pytest.mark.parametrize("paths", [1, 2, 3])
def test_entries_are_recovered_from_the_models(paths):
    request = Request(TOY, paths)
    models = list_models(request, 6, 8)
    latencies, price = true_latencies(request, models)
    table = make_table(request, models, latencies, "a device", {"threads": 1})
    for key, value in table.entries.items():
        call = 5_000 if key.startswith("stem") else 0
        assert value == price[key] + call
    assert table.validation["median_relative_error"] < 1e-3
    assert table.validation["kendall_tau"] > 0.99 and len(table.validation["ensembles"]) == 8
    assert table.num_paths == paths and table.device == "a device"


def test_missing_probes_are_named():
    models = list_models(ONE, 0, 0)
    latencies, _ = true_latencies(ONE, models)
    del latencies["probe_001.tflite"]
    with pytest.raises(NeasError, match=r"none of probe_001\.tflite; expected one of every probe"):
        make_table(ONE, models, latencies, "", {})


def test_models_are_a_function_of_the_request():
    few, many = list_models(Request(TOY), 2, 3), list_models(Request(TOY), 2, 6)
    assert many[: len(few)] == few
    names = [m.name for m in many if m.kind != "probe"]
    assert len(set(names)) == len(names) == 8
    for name in names:
        Architecture.from_key(name).check_in(TOY)
    other = list_models(Request(TOY, seed=1), 2, 3)
    assert [m.name for m in other] != [m.name for m in few]
    # A space with four ensembles of one path.
    assert sum(m.kind != "probe" for m in list_models(ONE, 3, 30)) < 10


@settings(max_examples=50, deadline=None)
@given(st.floats(0.6, 1.8), st.floats(-10, 500), st.integers(3, 20), st.integers(0, 99))
def test_a_straight_line_is_found_again(scale, constant, count, seed):
    sums = np.random.default_rng(seed).uniform(100, 1000, count)
    found = fit_scale(sums, scale * sums + constant)
    assert found == pytest.approx((scale, constant), rel=1e-6, abs=1e-6)


def test_fits_of_little():
    assert fit_scale([], []) == (1.0, 0.0)
    assert fit_scale([100.0], [150.0]) == (1.5, 0.0)
    assert fit_scale([100, 100, 100], [150, 150, 150]) == (1.5, 0.0)
    # A slope of noise is not believed.
    scale, constant = fit_scale([100, 101, 102], [100, 130, 160])
    assert constant == 0.0 and 1.0 < scale < 1.5


def test_errors_and_order():
    assert relative_errors([110, 90], [100, 100]) == pytest.approx([0.1, 0.1])
    assert kendall_tau([1, 2, 3], [4, 5, 9]) == 1.0
    assert kendall_tau([1, 2, 3], [9, 5, 4]) == -1.0
    assert kendall_tau([1, 2, 3], [1, 3, 2]) == pytest.approx(1 / 3)
    assert kendall_tau([1, 1], [1, 2]) is None
    with pytest.raises(NeasError, match="positive"):
        relative_errors([1], [0])


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"threads": 0}, "threads: received 0"),
        ({"rounds": 0}, "rounds: received 0"),
        ({"repetitions": 0}, "repetitions"),
        ({"clock": "cup"}, "clock: unknown name 'cup'.*'cpu'"),
        ({"clock": "cpu", "threads": 2}, "clock: received 'cpu' with 2 threads"),
    ],
)
def test_timing_settings(values, text):
    with pytest.raises(NeasError, match=text):
        TimingSettings(**values)


def test_clocks_by_default():
    assert TimingSettings().clock == "cpu" and TimingSettings(threads=2).clock == "wall"
    assert typical([5, 1, 3, 2, 9]) == 2
    assert describe_machine().split()[1].startswith("core")


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """One whole measurement through the command, with its models kept."""
    folder = tmp_path_factory.mktemp("measured")
    (folder / "tiny.json").write_text(json.dumps(TINY.to_dict()))
    flags = [f"--space={folder / 'tiny.json'}", "--num_paths=1", "--rounds=2", "--repetitions=2"]
    flags += ["--fit=1", "--validate=2", f"--models={folder / 'models'}"]
    done = command(*flags, f"--output={folder / 'lut.json'}")
    assert done.returncode == 0, done.stderr
    return folder, flags, done


def test_the_command_writes_a_table_and_a_picture(measured):
    folder, _, done = measured
    table = load_table(folder / "lut.json")
    table.check_fits(TINY, 1)
    assert all(value >= 0 for value in table.entries.values())
    assert table.entries[space_keys(TINY)[0]] > 0
    assert table.measurement["threads"] == 1 and table.measurement["clock"] == "cpu"
    assert table.measurement["versions"]["ai-edge-litert"]
    assert "core" in table.device and len(table.validation["ensembles"]) == 2
    assert "lut.json: 4 entries" in done.stdout and "Kendall's τ" in done.stdout
    assert (folder / "lut.png").stat().st_size > 10_000
    assert "visits" in done.stderr and "models" in done.stderr


def test_the_command_goes_on_with_what_is_there(measured, tmp_path):
    """Of one more round only that is timed; a model that got lost is made again."""
    folder, flags, _ = measured
    request, models = read_manifest(folder / "models" / "manifest.json")
    assert request == ONE
    before = json.loads((folder / "models" / "samples.json").read_text())["samples"]
    assert set(map(len, before.values())) == {2}
    (folder / "models" / models[-1].file).unlink()
    more = [flag for flag in flags if not flag.startswith("--rounds")]
    done = command(*more, "--rounds=3", f"--output={tmp_path / 'again.json'}")
    assert done.returncode == 0, done.stderr
    after = json.loads((folder / "models" / "samples.json").read_text())["samples"]
    assert all(after[name][:2] == times and len(after[name]) == 3 for name, times in before.items())


def test_an_interrupted_round_goes_on(measured):
    """Samples that a killed sitting left for some files only are completed."""
    folder, _, _ = measured
    request, models = read_manifest(folder / "models" / "manifest.json")
    work = WorkFolder(folder / "models", request, models[:3])
    half = {models[0].file: [7, 8], models[1].file: [9]}
    chosen, saved = TimingSettings(rounds=2, repetitions=1), []
    result = time_files(work.files, chosen, half, on_round=lambda s: saved.append(dict(s)))
    assert [len(result[m.file]) for m in models[:3]] == [2, 2, 2]
    assert result[models[0].file] == [7, 8] and result[models[1].file][0] == 9
    assert len(saved) == 2


def test_profiles_of_a_phone_give_a_table(measured, tmp_path):
    folder, _, _ = measured
    _, models = read_manifest(folder / "models" / "manifest.json")
    latencies, price = true_latencies(ONE, models)
    log = "".join(
        printed((("OP", latencies[m.file] / 1e6, "[x]:0"),), f"/data/local/tmp/{m.file}")
        for m in models
    )
    (tmp_path / "phone.txt").write_text(log)
    flags = [f"--models={folder / 'models'}", f"--output={tmp_path / 'phone.json'}"]
    flags += [f"--from_profile={tmp_path / 'phone.txt'}"]
    done = command(*flags, "--device=Some Phone, big core")
    assert done.returncode == 0, done.stderr
    table = load_table(tmp_path / "phone.json")
    assert table.device == "Some Phone, big core" and table.measurement["threads"] == 2
    for key, value in table.entries.items():
        if not key.startswith("stem"):
            assert value == pytest.approx(price[key], abs=1_000)  # the log has whole µs
    done = command(*flags, "--device=x", "--overwrite", "--space=s.json")
    assert done.returncode == 2 and "that of the manifest" in done.stderr
    done = command(*flags, "--overwrite")
    assert done.returncode == 2 and "device: received nothing" in done.stderr


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        ([], "output: received None"),
        (["--output=LUT"], "exists; expected a new file, or --overwrite"),
        (["--output=NEW", "--clock=cpu", "--threads=2"], "clock: received 'cpu' with 2 threads"),
        (["--output=NEW", "--space=a", "--model_dir=b"], "Give one of --model_dir, --space"),
        (["--output=NEW", "--space=none.json"], "space: no file at"),
        (["--output=NEW", "--model_dir=nowhere"], "model_dir: received"),
        (["--output=NEW", "--input_size=big"], "input_size: received 'big'"),
        (["--output=NEW", "--models=KEPT"], "holds another measurement"),
        (["--output=NEW", "--models=USED"], "a new or empty folder"),
        (["--output=NEW", "extra"], "flags only"),
        (["--output=s3://bucket/lut.json"], "which is an address"),
        (["--output=/dev/null", "--overwrite"], "no regular file"),
        (["--output=lut.png"], "a name like lut.json"),
    ],
)
def test_bad_input_is_one_sentence(measured, tmp_path, flags, text):
    folder, _, _ = measured
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "file").write_text("x")
    places = {
        "LUT": folder / "lut.json",
        "NEW": tmp_path / "new.json",
        "KEPT": folder / "models",
        "USED": tmp_path / "used",
    }
    for name, path in places.items():
        flags = [flag.replace(f"={name}", f"={path}") for flag in flags]
    done = command(*flags)
    assert done.returncode == 2 and text in done.stderr, done.stderr
    assert done.stdout == "" and not (tmp_path / "new.json").exists()
    assert "Traceback" not in done.stderr


def test_times_taken_otherwise_are_not_mixed(measured):
    folder, _, _ = measured
    request, models = read_manifest(folder / "models" / "manifest.json")
    work = WorkFolder(folder / "models", request, models)
    chosen = TimingSettings(rounds=2, repetitions=2)
    assert len(work.read_samples(chosen.to_dict())) == len(models)
    other = dataclasses.replace(chosen, threads=2, clock="wall")
    with pytest.raises(NeasError, match=r"threads: was 1, is 2; clock: was \"cpu\", is \"wall\""):
        work.read_samples(other.to_dict())


def test_int8_probes_run_whole(tmp_path):
    """Maps of int8 in and out inside the network, a float image in front of the stem."""
    from neas_tf.export.tflite.inspection import inspect
    from neas_tf.latency.models import probe_model

    plan = make_plan(TINY)
    name = next(name for name in plan.probes if name.startswith("3 x"))
    (tmp_path / "probe.tflite").write_bytes(probe_model(plan.probes[name], TINY, "int8"))
    found = inspect(tmp_path / "probe.tflite")
    assert not found["float_islands"] and found["xnnpack_partitions"] == 1
    assert "QUANTIZE" not in found["ops"] and found["ops"]["DEPTHWISE_CONV_2D"] == 9  # rewritten
