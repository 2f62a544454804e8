"""The trial over devices: what it compares and prints; long runs are its own command's."""

import json
import subprocess
import sys

from soak.devices import decisions, table

from neas_tf.common.paths import project_file

EQUAL = {"losses": 1e-7, "weights": 2e-7, "statistics": 1e-3, "shrinks": True, "history": True}


def test_help_comes_without_tensorflow():
    command = [sys.executable, "-X", "importtime", "-m", "tests.soak.devices", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=project_file(), check=False)
    assert done.returncode == 0 and "--markdown" in done.stdout
    loaded = {line.split("|")[-1].strip() for line in done.stderr.splitlines()}
    assert "argparse" in loaded and not loaded & {"tensorflow", "numpy"}


def test_decisions_leave_the_scores_out(tmp_path):
    folders = []
    for name, score, operators in (("a", 1.0, "k3e1"), ("b", 2.0, "k3e1"), ("c", 1.0, "skip")):
        path = tmp_path / name / "shrink" / "shrink_01.json"
        path.parent.mkdir(parents=True)
        drop = {"layer": 2, "operators": [operators], "score": score}
        path.write_text(json.dumps({"dropped": [drop], "alive": {"alive": []}, "beta": score}))
        folders.append(decisions(tmp_path / name))
    assert folders[0] == folders[1] != folders[2]


def test_table_shows_what_failed():
    death = {"stage": "search", "fault": "chief of 2 killed", "seconds": 7.5, "problems": []}
    bad = {"stage": "retrain", "fault": "worker 1 of 3 killed", "seconds": 99, "again": [0, 1, 0]}
    result = {
        "equality": [
            {"devices": "2 CPUs", "wall": 3.0, **EQUAL},
            {"devices": "4 CPUs", "wall": 4.0, **EQUAL, "history": False},
            {"devices": "2 processes", "wall": 5.0},
        ],
        "deaths": [{**death, "again": [0, 0]}, {**bad, "problems": ["worker 0 hung"]}],
        "rows": [
            {"fault": "worker 1 of 3 killed", "stage": "retrain", "details": ["worker 0 hung"]}
        ],
        "notes": ["no time was left for death 3"],
    }
    lines = table(result).splitlines()
    assert "| 2 CPUs | 1.0e-07 | 2.0e-07 | 1.0e-03 | same | same | 3.0 |" in lines
    assert "| 4 CPUs | 1.0e-07 | 2.0e-07 | 1.0e-03 | same | **other** | 4.0 |" in lines
    assert any("2 processes | **failed**" in line for line in lines)
    assert "| search | chief of 2 killed | 7.5 | yes |" in lines
    assert "| retrain | worker 1 of 3 killed | 99 | **no** |" in lines
    assert lines[-2:] == [
        "- worker 1 of 3 killed, retrain: worker 0 hung",
        "- no time was left for death 3",
    ]
