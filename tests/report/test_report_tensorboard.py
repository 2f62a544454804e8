"""TensorBoard's events of a run, read back as TensorBoard reads them."""

import base64
import json
import shutil
import struct
import subprocess
import sys

import pytest
import synthetic_run
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata as hparams
from tensorboard.plugins.hparams import plugin_data_pb2

from neas_tf.report import read_run, write_report
from neas_tf.report.tensorboard import EVENTS_FILE, FOLDER, MAX_CANDIDATES, write_events


@pytest.fixture(scope="module")
def events(toy, tmp_path_factory):
    folder = tmp_path_factory.mktemp("events")
    assert write_events(folder, read_run(toy), {"architecture.png": png_of(7, 5)})
    return folder / FOLDER


def png_of(width, height):
    from neas_tf.report import diagram, style

    return style.small(diagram.to_png(diagram.svg(width, height, "")))


def opened(folder):
    accumulator = EventAccumulator(str(folder), {"images": 0, "tensors": 0, "scalars": 0})
    return accumulator.Reload()


def hparams_of(accumulator, tag):
    content = accumulator.SummaryMetadata(tag).plugin_data.content
    return plugin_data_pb2.HParamsPluginData.FromString(content)


def test_each_candidate_is_a_session_of_hparams(toy, events):
    candidates = read_run(toy).candidates
    folders = sorted((events / "candidates").iterdir())
    assert [int(folder.name) for folder in folders] == [c.number for c in candidates]
    for candidate, folder in list(zip(candidates, folders, strict=True))[::7]:
        found = opened(folder)
        started = hparams_of(found, hparams.SESSION_START_INFO_TAG).session_start_info
        values = {
            name: value.string_value or int(value.number_value)
            for name, value in started.hparams.items()
        }
        architecture = candidate.architecture
        layers = {name: v for name, v in values.items() if name.startswith("layer ")}
        assert values["split_point"] == architecture.split_point and len(layers) == 7
        assert (values["generation"], values["origin"]) == (candidate.generation, candidate.origin)
        for i, names in enumerate(zip(*architecture.paths, strict=True), start=1):
            shared = i <= architecture.split_point
            assert layers[f"layer {i:02d}"] == (names[0] if shared else " | ".join(names))
        scalars = {tag: found.Scalars(tag)[0].value for tag in found.Tags()["scalars"]}
        assert scalars == pytest.approx({"accuracy": candidate.accuracy, **candidate.costs})


def test_the_table_has_a_column_for_each_parameter_and_cost(toy, events):
    experiment = hparams_of(opened(events), hparams.EXPERIMENT_TAG).experiment
    columns = {info.name: {v.number_value or v.string_value for v in info.domain_discrete.values}
               for info in experiment.hparam_infos}  # fmt: skip
    candidates = read_run(toy).candidates
    assert columns["split_point"] == {c.architecture.split_point for c in candidates}
    assert columns["origin"] == {c.origin for c in candidates}
    assert len(columns) == 3 + 7
    metrics = [info.name.tag for info in experiment.metric_infos]
    assert metrics == ["accuracy", "macs", "params", "paper_flops"]


def test_pictures_of_the_test_and_the_confusion_matrix(toy, events):
    found = opened(events)
    pictures = json.loads((toy / "retrain/pictures.json").read_text())
    tags = found.Tags()["images"]
    assert len(tags) == len(pictures["errors"]) + len(pictures["mended"]) + 2
    names = pictures["class_names"]
    for i, picture in enumerate(pictures["errors"], start=1):
        told = f"{names[picture['label']]} taken for {names[picture['named'][-1]]}"
        tag = f"test pictures, errors/{i:02d} {told} ({100 * picture['sure'][-1]:.0f} %)"
        (image,) = found.Images(tag)
        assert image.encoded_image_string == base64.b64decode(picture["picture"])
        assert (image.width, image.height) == (12, 12)
    (matrix,) = found.Images("test/confusion matrix")
    png = matrix.encoded_image_string
    assert struct.unpack(">II", png[16:24]) == (matrix.width, matrix.height)
    assert matrix.width > 600 and len(png) > 5_000
    (given,) = found.Images("report/architecture")
    assert (given.width, given.height) == (14, 10)


def test_a_search_of_many_shows_some_and_an_earlier_ones_are_gone(toy, tmp_path):
    large = synthetic_run.write_run(tmp_path / "large", generations=8, population=60, shrinks=0)
    run = read_run(large)
    assert len(run.candidates) > MAX_CANDIDATES
    write_events(tmp_path, run, {})
    shown = {path.name for path in (tmp_path / FOLDER / "candidates").iterdir()}
    winner = next(c.number for c in run.candidates if c.architecture.key == run.winner_key)
    assert len(shown) <= MAX_CANDIDATES and f"{winner:05d}" in shown
    own = tmp_path / FOLDER / "candidates" / sorted(shown)[-1] / "notes.txt"
    own.write_text("of somebody else")
    write_events(tmp_path, read_run(toy), {})
    left = {path.parent.name for path in (tmp_path / FOLDER).glob(f"candidates/*/{EVENTS_FILE}")}
    assert left == {f"{c.number:05d}" for c in read_run(toy).candidates}
    assert own.exists() and not (own.parent / EVENTS_FILE).exists()


def test_candidates_that_a_race_stopped_are_left_out(toy, tmp_path):
    folder = shutil.copytree(toy, tmp_path / "toy")
    path = folder / "search/history.jsonl"
    first, *others = path.read_text().splitlines()
    path.write_text("\n".join([json.dumps({**json.loads(first), "images": 64}), *others]))
    write_events(tmp_path, read_run(folder), {})
    shown = {path.name for path in (tmp_path / FOLDER / "candidates").iterdir()}
    assert len(shown) == len(others) and "00000" not in shown


def test_an_empty_run_leaves_no_folder(tmp_path):
    assert not write_events(tmp_path, read_run(tmp_path), {})
    assert list(tmp_path.iterdir()) == []


def test_the_report_writes_them_without_tensorflow(toy, tmp_path):
    code = (
        "import sys; from neas_tf.report import write_report\n"
        f"print(write_report({str(toy)!r}, output_dir={str(tmp_path)!r}).written[-1])\n"
        "sys.exit('TensorFlow was imported' if 'tensorflow' in sys.modules else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(tmp_path / FOLDER)
    report = opened(tmp_path / FOLDER).Tags()["images"]
    assert {tag for tag in report if tag.startswith("report/")} == {
        "report/architecture",
        "report/risk coverage",
        "report/search scatter",
        "report/alive operators",
        "report/similarity",
        "report/training curves",
    }


def test_events_that_cannot_be_made_cost_the_report_nothing_else(toy, tmp_path, monkeypatch):
    def broken(*_):
        raise ValueError("no")

    monkeypatch.setattr("neas_tf.report.tensorboard.write_events", broken)
    report = write_report(toy, output_dir=tmp_path)
    assert report.missing == {FOLDER: "could not be made (ValueError: no)"}
    assert (tmp_path / "report.html").exists()
