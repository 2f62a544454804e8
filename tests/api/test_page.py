"""docs/own_data.md: its Python as it stands, with fewer passes, candidates and samples."""

import pathlib
import re
import subprocess

import warm
from doc_pages import BLOCK, environment

from neas_tf.common.paths import project_file

FEW = {
    "supernet": {"epochs": 2.0},
    "shrink": {"num_samples": 8, "min_pair_count": 1},
    "search": {"generations": 2, "population": 3, "parents": 2},
    "retrain": {"epochs": 3.0},
    "export": {"formats": ["tflite"]},
}


def test_own_data(tmp_path):
    text = pathlib.Path(project_file("docs", "own_data.md")).read_text("utf-8")
    code = "\n".join(code for kind, code in BLOCK.findall(text) if kind == "python")
    patch = (
        "import functools, neas_tf\n"
        f"neas_tf.search = functools.partial(neas_tf.search, params_override={FEW!r})\n"
    )
    done = subprocess.run(
        [warm.python(), "-c", patch + code],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-6000:]
    ((right, said),) = re.findall(
        r"^([\d.]+) = ([\d.]+), [\d,]+ MACs, s", done.stdout, re.MULTILINE
    )
    assert right == said and float(right) > 0.2
    assert (tmp_path / "digits.tflite").exists()
