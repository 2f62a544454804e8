"""run.json: sessions are added, changes of software are told, a lost record is started again."""

import json
import platform

import numpy as np
import pytest
import tensorflow as tf
from tiny_run import TINY

from neas_tf.config.parse import load_config
from neas_tf.run import record as run_record
from neas_tf.run.context import open_run
from neas_tf.run.record import FILE, code_digest, note_sitting, software


def read(folder):
    return json.loads((folder / FILE).read_text())


def test_sittings(tmp_path, monkeypatch):
    assert note_sitting(tmp_path, {"seed": 1}, {"a": 1}) == []
    assert note_sitting(tmp_path, {"seed": 1}, {"a": 2}) == []
    monkeypatch.setattr(run_record, "software", lambda: software() | {"tensorflow": "3.0"})
    changes = note_sitting(tmp_path, {"seed": 1}, {"a": 2})
    assert changes == [f'tensorflow: was "{tf.__version__}", is "3.0"']
    assert note_sitting(tmp_path, {"seed": 1}, {"a": 2}) == []
    value = read(tmp_path)
    assert value["run"] == {"seed": 1} and len(value["sittings"]) == 4
    first, second, third, _ = value["sittings"]
    assert first["settings"] != second["settings"] == third["settings"]
    assert first["software"]["python"] == platform.python_version()
    assert first["software"]["numpy"] == np.__version__
    assert {"tf-keras", "tf-models-official", "code", "neas_tf"} <= set(first["software"])


@pytest.mark.parametrize("text", ["", "{", "[]", '{"sittings": [1]}', '{"sittings": 3}'])
def test_a_damaged_record_is_begun_anew(tmp_path, text):
    (tmp_path / FILE).write_text(text)
    assert note_sitting(tmp_path, {}, {}) == [] and len(read(tmp_path)["sittings"]) == 1


def test_the_code_counts():
    assert len(code_digest()) == 16 and int(code_digest(), 16) >= 0


def test_a_run_says_so_and_goes_on(tmp_path, monkeypatch, caplog):
    (tmp_path / "tiny.yaml").write_text(json.dumps(TINY))
    config = load_config("neas_quickstart", [str(tmp_path / "tiny.yaml")])
    run = open_run(config, str(tmp_path / "run"), tf.distribute.get_strategy())
    for code in ("0" * 16, "1" * 16):
        monkeypatch.setattr(run_record, "code_digest", lambda code=code: code)
        with run.writing():
            pass
    assert 'code: was "0000000000000000", is "1111111111111111"' in caplog.text
    facts = read(tmp_path / "run")["run"]
    assert facts["num_paths"] == 2 and facts["data"] == "digits" and facts["seed"] == 0
    assert facts["images"] == run.info.sizes and facts["budget"]["max_macs"] == 60_000
    other = load_config("neas_quickstart", [str(tmp_path / "tiny.yaml")], "space.max_split=2")
    changed = open_run(other, str(tmp_path / "other"), tf.distribute.get_strategy())
    assert changed._facts()["space_digest"] != facts["space_digest"]
