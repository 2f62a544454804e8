"""Made-up latency tables for tests, a space that is measured in seconds, and the command."""

import subprocess
import zlib

import warm

from neas_tf.common.paths import project_file
from neas_tf.cost.latency_plan import space_keys
from neas_tf.cost.latency_table import LatencyTable
from neas_tf.space.search_space import SearchSpace, Stage

TINY = SearchSpace(
    name="tiny",
    input_size=(6, 6),
    num_classes=3,
    stem_channels=8,
    stem_stride=1,
    block_channels=0,
    stages=(Stage(8, 1, 1), Stage(8, 1, 2)),
    operators=("k7e1", "skip"),
    min_split=0,
    max_split=2,
    head_channels=8,
    feature_channels=8,
)


def made_up_table(space: SearchSpace, num_paths: int = 2, **changes) -> LatencyTable:
    """Every entry is a number that derives from its key."""
    entries = {key: 10_000 + zlib.crc32(key.encode()) % 90_000 for key in space_keys(space)}
    values = {"scale": 1.25, "constant": 1234, "made_for": space.name, "device": "a phone"}
    return LatencyTable(num_paths, "none", entries, **(values | changes))


def command(*arguments):
    """Runs `measure_latency`."""
    return subprocess.run(
        [warm.python(), "-m", "neas_tf.measure_latency", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        cwd=project_file(),
    )
