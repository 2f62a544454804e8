"""Start, resume and shares of workers, at the smallest size."""

import json

import pytest

from benchmarks import data_scale


@pytest.mark.parametrize("kind", ["folder", "records"])
def test_every_measurement_of_a_thousand_pictures(kind, tmp_path, capfd, warm_children):
    work = [f"--kind={kind}", "--examples=1500", f"--work={tmp_path}"]
    assert data_scale.main([*work, "--workers=2", "--steps=1"]) == 0
    report = json.loads(capfd.readouterr().out)
    assert report["workers:2"]["images_per_cpu_second"] > 0
    for what in ("start", "resume"):
        assert report[what]["open_cpu_seconds"] > 0 and report[what]["memory_mb"] > 0
    root = tmp_path / f"{kind}_1500"
    made = {path: path.stat().st_mtime_ns for path in root.rglob("*.*")}
    if kind == "folder":
        assert len(list((root / "train").rglob("*.JPEG"))) == 1500
        data_scale.make_folder(root, 1500)
    else:
        data_scale.make_records(root, 1500)
    assert made == {path: path.stat().st_mtime_ns for path in root.rglob("*.*")}


def test_bad_input_ends_with_2(tmp_path, capsys):
    bad = {
        "--workers=3": "--workers: received '3'",
        "--workers=a": "--workers: received 'a'",
        "--workers=0": "--workers: received '0'",
        "--steps=0": "--steps: received 0",
    }
    for argument, text in bad.items():
        assert data_scale.main([f"--work={tmp_path}", argument]) == 2
        assert text in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
