"""A bound in milliseconds without a table: which space is taken, on machines of several speeds."""

import itertools
import math
import re

import pytest

from neas_tf.api.latency import fit_latency
from neas_tf.api.plan import Facts
from neas_tf.common.errors import NeasError
from neas_tf.cost.cost_table import CostTable
from neas_tf.cost.latency_plan import space_keys
from neas_tf.cost.latency_table import METRIC, LatencyTable, load_table
from neas_tf.space.shrunk_space import ShrunkSpace

FACTS = Facts("photos", 48, 12, 3, (16, 16, 16), 180, None, 3)


def machine(folder, speed):
    """Stands for the measurement: 300 ns a part, and `speed` products of a convolution a nanosecond."""
    measured = []

    def measure(space, num_paths):
        def time(key):
            name, channels, *_, area = key.split()
            chain = [int(c) for c in channels.split(">")]
            kernel, expansion = ([int(n) for n in re.findall(r"\d", name)] + [3, 1])[:2]
            products = sum(a * b for a, b in itertools.pairwise(chain[:3]))
            work = products * (kernel + 2 * expansion) * math.prod(map(int, area.split("x")))
            return 300 + work // speed

        table = LatencyTable(num_paths, "none", {key: time(key) for key in space_keys(space)})
        measured.append(space)
        path = folder / f"{len(measured)}.json"
        table.save(path)
        return path

    return measure, measured


@pytest.mark.parametrize("speed", [5, 20, 100])
@pytest.mark.parametrize("bound", [0.2, 2.0])
def test_the_bound_lies_well_in_the_space(tmp_path, speed, bound):
    measure, measured = machine(tmp_path, speed)
    space, path = fit_latency(FACTS, (64, 64), bound, {"num_paths": 2}, measure)
    assert 1 <= len(measured) <= 5 and space in measured
    table = CostTable(space, load_table(str(path)))
    low, high = table.attainable_range(ShrunkSpace.full(space, 2), METRIC)
    assert 0.1 < (bound * 1e6 - low) / (high - low) < 1


def test_what_no_space_can_keep(tmp_path):
    measure, _ = machine(tmp_path, 100)
    with pytest.raises(
        NeasError, match=r"max_latency_ms: received 0\.001, expected more: the fast"
    ):
        fit_latency(FACTS, (64, 64), 0.001, {}, measure)
