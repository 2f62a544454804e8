"""A stranger's first hour, outside the checkout and from the installed package; prints a line each.

python tests/support/journeys.py --work=FOLDER

Each journey runs in a process of its own in an empty folder. It is no part of the suite: in all it
takes some twenty minutes of two cores.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import subprocess
import sys
import time

PICTURES = """
import pathlib, numpy as np, cv2
rng = np.random.default_rng(0)
for c, name in enumerate(["cat", "dog", "owl"]):
    folder = pathlib.Path("photos") / name
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(20):
        height, width = (int(v) for v in rng.integers(120, 300, 2))
        image = rng.integers(0, 80, (height, width, 3)).astype(np.uint8)
        image[..., c] += 120
        cv2.imwrite(str(folder / f"{i:03}.jpg"), image)
"""
SHORT = "supernet={'epochs': 2.0}, retrain={'epochs': 4.0}, generations=2"
DIGITS = "from sklearn.datasets import load_digits; d = load_digits()\n"
JOURNEYS = {
    "a folder of 60 pictures": PICTURES + "import neas_tf as neas\n"
    "r = neas.search('photos/', max_macs='60M', model_dir='runs/mine')\n"
    "print(r.accuracy, r.cost.macs, r.report.is_file())",
    "arrays and a Keras model in hand": DIGITS + "import neas_tf as neas\n"
    f"r = neas.search((d.images / 16, d.target), max_macs='1M', {SHORT})\n"
    "p = r.model.predict(d.images[:5, ..., None] * (255 / 16), verbose=0)\n"
    "r.model.save('m.keras'); r.export('m.tflite', quantize='int8'); print(r, p.shape)",
    "a dataset and a time limit": DIGITS + "import neas_tf as neas, tensorflow as tf, time\n"
    "t = time.time()\n"
    "ds = tf.data.Dataset.from_tensor_slices((d.images[..., None].astype('f'), d.target))\n"
    "train = ds.take(1400); val = ds.skip(1400)\n"
    "r = neas.search(train, validation=val, num_paths=2, max_macs='1M', time_limit='4min')\n"
    "print(r.accuracy, f'{time.time() - t:.0f} s of 240')",
    "a latency bound on this machine": DIGITS + "import neas_tf as neas\n"
    f"r = neas.search((d.images / 16, d.target), max_latency_ms=0.1, measure=True, {SHORT})\n"
    "print(r.accuracy, r.cost.latency_ns / 1e6, 'ms')",
    "a constraint of one's own": DIGITS + "import neas_tf as neas\n"
    "def depth(architecture, space):\n"
    "    return float(sum(name != 'skip' for name in architecture.paths[0]))\n"
    f"r = neas.search((d.images / 16, d.target), max_macs='1M', {SHORT},\n"
    "    constraints=[neas.Constraint(depth, max=4), 'peak_activation_bytes<=40kB'])\n"
    "print(r.accuracy, depth(r.architecture, r.space))",
    "NEAS-S fine-tuned": "import neas_tf as neas, numpy as np\n"
    "m = neas.applications.NEASS(classes=3, input_shape=(64, 64, 3))\n"
    "m.compile('adam', 'sparse_categorical_crossentropy', metrics=['accuracy'])\n"
    "y = np.arange(24) % 3; x = np.zeros((24, 64, 64, 3), 'float32')\n"
    "x[np.arange(24), ..., y] = 200\n"
    "h = m.fit(x, y, epochs=2, batch_size=8, verbose=0); print(h.history['loss'])",
}


def main() -> None:
    """Runs all journeys, or those named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", required=True, type=pathlib.Path)
    parser.add_argument("names", nargs="*")
    given = parser.parse_args()
    for name, code in JOURNEYS.items():
        if given.names and name not in given.names:
            continue
        folder = given.work / name.replace(" ", "_").replace("'", "")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "journey.py").write_text(code)
        begin = time.monotonic()
        done = subprocess.run(
            [sys.executable, "journey.py"], cwd=folder, capture_output=True, text=True, check=False
        )
        (folder / "stderr.txt").write_text(done.stderr)
        last = (done.stdout.strip() or done.stderr.strip()).splitlines()[-1:]
        line = {"journey": name, "exit": done.returncode, "said": " ".join(last)}
        print(json.dumps({**line, "seconds": round(time.monotonic() - begin)}), flush=True)


if __name__ == "__main__":
    main()
