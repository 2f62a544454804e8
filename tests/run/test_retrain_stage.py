"""What a retraining that begins again does with an earlier one's results and report."""

import json
import types

import pytest

from neas_tf.run import retrain_stage


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A folder with results, whose model is gone; the report's writer notes its calls."""
    for name in ("results", "confusion", "pictures"):
        path = tmp_path / "retrain" / f"{name}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(name)
    value = types.SimpleNamespace(model_dir=tmp_path, reported=[])
    monkeypatch.setattr(
        retrain_stage, "write_report", lambda folder, space: value.reported.append(folder)
    )
    return value


def test_results_of_a_model_that_is_gone_are_set_aside(run, capsys):
    retrain_stage._set_aside(run.model_dir, None)
    found = {path.name: path.read_text() for path in (run.model_dir / "retrain").iterdir()}
    assert found == {f"{n}.earlier.json": n for n in ("results", "confusion", "pictures")}
    assert capsys.readouterr().err.count("is of a model that is not there") == 3
    assert not run.reported


@pytest.mark.parametrize(
    "summary, renewed",
    [
        ({"accuracy": {"ensemble": 0.5}, "exports": []}, True),
        ({"accuracy": None, "exports": [{"file": "model.tflite"}]}, True),
        ({"accuracy": None, "exports": []}, False),
        ([], False),
        (None, False),
    ],
)
def test_a_report_with_an_earlier_result_is_renewed(summary, renewed, run):
    path = run.model_dir / "report" / "summary.json"
    path.parent.mkdir()
    path.write_text("{" if summary is None else json.dumps(summary))
    retrain_stage._set_aside(run.model_dir, None)
    assert run.reported == [run.model_dir] * renewed
