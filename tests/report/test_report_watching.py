"""A page that follows a run until it is finished."""

import contextlib
import json
import shutil

import synthetic_run
import yaml
from report_pages import Page

from neas_tf.common.folder_lock import lock_folder
from neas_tf.report import (
    read_run,
)
from neas_tf.report.__main__ import main
from neas_tf.report.run_files import is_finished, stages
from neas_tf.report.writing import watch


def test_watching_ends_with_the_run(copy, tmp_path):
    """The run grows while the watcher sleeps; the last page no longer reloads itself."""
    output = tmp_path / "out" / "report.html"
    results = (copy / "retrain/results.json").read_bytes()
    history = (copy / "search/history.jsonl").read_text().splitlines(keepends=True)
    (copy / "retrain/results.json").unlink()
    (copy / "search/history.jsonl").write_text("".join(history[:10]))
    seen, said = [], []

    def grow(seconds):
        assert seconds == 7
        data = Page(output.read_bytes()).data
        seen.append((data["reload"], data["runs"][0]["search"]["total"], output.stat().st_ino))
        if len(seen) == 2:
            (copy / "search/history.jsonl").write_text("".join(history[:20]))
        if len(seen) == 3:
            (copy / "retrain/results.json").write_bytes(results)

    assert watch([copy], output, 7, said.append, grow)
    assert [row[:2] for row in seen] == [(7, 10), (7, 10), (7, 20)]
    assert seen[0][2] == seen[1][2] != seen[2][2], "written when there is more to say, as new file"
    assert Page(output.read_bytes()).data["reload"] is None
    assert [text.split(":")[0] for text in said] == ["watching every 7 s", "finished"]


def test_ctrl_c_ends_watching(copy, tmp_path, capsys, monkeypatch):
    (copy / "retrain/results.json").unlink()

    def interrupt(_):
        raise KeyboardInterrupt

    said = []
    output = tmp_path / "report.html"
    assert not watch([copy], output, 5, said.append, interrupt)
    assert said[-1] == f"stopped watching: {output}"
    assert Page(output.read_bytes()).data["reload"] is None
    (copy / "retrain/results.json").write_text(json.dumps({"ensemble_accuracy": 0.5}))
    assert main([f"--model_dir={copy}", "--watch"]) == 0
    assert (copy / "report/report.html").exists() and (copy / "report/summary.txt").exists()
    assert "finished: " in capsys.readouterr().out


def test_watching_says_when_nobody_works(copy, tmp_path):
    results = (copy / "retrain/results.json").read_bytes()
    (copy / "retrain/results.json").unlink()
    said, looks = [], []
    lock = contextlib.ExitStack()
    lock.enter_context(lock_folder(copy))

    def happens(_):
        looks.append(len(said))
        if len(looks) == 1:
            lock.close()  # killed
        elif len(looks) == 3:
            lock.enter_context(lock_folder(copy))
        elif len(looks) == 4:
            (copy / "retrain/results.json").write_bytes(results)

    assert watch([copy], tmp_path / "report.html", 5, said.append, happens)
    lock.close()
    assert said[1:3] == [
        f"no process works on {str(copy)!r}: killed or stopped; the same command continues it",
        f"{str(copy)!r} continues",
    ]
    assert looks == [1, 2, 2, 3], "said once each"


def test_watching_waits_for_a_run_to_begin(copy, tmp_path):
    """The run would refuse a folder that holds a page."""
    folder, said = tmp_path / "new", []
    folder.mkdir()
    output = folder / "report" / "report.html"

    def begin(_):
        assert list(folder.iterdir()) == []
        shutil.copytree(copy, folder, dirs_exist_ok=True)

    assert watch([folder], output, 5, said.append, begin)
    assert said == ["waiting for the run to begin (Ctrl-C ends it)", f"finished: {output}"]


def test_when_a_run_is_finished(copy):
    assert is_finished(read_run(copy)), "no formats are named"
    params = yaml.safe_load((copy / "params.yaml").read_text())
    params["export"] = {"formats": ["tflite", "saved_model", "keras"]}
    (copy / "params.yaml").write_text(yaml.safe_dump(params))
    assert not is_finished(read_run(copy))
    assert stages(read_run(copy))[-1] == {
        "name": "export",
        "state": "begun",
        "text": "2 of 3 files",
    }
    synthetic_run.write_json(copy / "export/model.keras.json", {"file": "model.keras"})
    assert is_finished(read_run(copy))
