"""Made-up latency tables for tests: every entry a number that derives from its key."""

import zlib

from neas_tf.cost.latency_plan import space_keys
from neas_tf.cost.latency_table import LatencyTable
from neas_tf.space.search_space import SearchSpace


def made_up_table(space: SearchSpace, num_paths: int = 2, **changes) -> LatencyTable:
    entries = {key: 10_000 + zlib.crc32(key.encode()) % 90_000 for key in space_keys(space)}
    values = {"scale": 1.25, "constant": 1234, "made_for": space.name, "device": "a phone"}
    return LatencyTable(num_paths, "none", entries, **(values | changes))
