"""Amounts with units, wherever a bound is given."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neas_tf.common.errors import NeasError
from neas_tf.config.parse import load_config
from neas_tf.cost import quantities
from neas_tf.cost.quantities import BYTES, COUNT, MILLISECONDS, SECONDS, quantity


@pytest.mark.parametrize(
    "text, units, expected",
    [
        ("60M", COUNT, 60_000_000),
        ("1.2G", COUNT, 1_200_000_000),
        ("0.29k", COUNT, 290),
        ("301,500,768", COUNT, 301_500_768),
        ("1e6", COUNT, 1_000_000),
        (" 5 m ", COUNT, 5_000_000),
        (7, COUNT, 7),
        (7.0, COUNT, 7),
        ("2ms", MILLISECONDS, 2.0),
        ("0.5", MILLISECONDS, 0.5),
        ("750us", MILLISECONDS, 0.75),
        ("500kB", BYTES, 500_000),
        ("4MiB", BYTES, 4 << 20),
        ("2h", SECONDS, 7200.0),
        ("20min", SECONDS, 1200.0),
        (300, SECONDS, 300.0),
    ],
)
def test_what_people_write(text, units, expected):
    found = quantity(text, "x", units)
    assert found == expected and type(found) is type(expected)


@pytest.mark.parametrize(
    "value, units",
    [
        *((v, COUNT) for v in ("60X", "", "M", "-5M", "1.2.3", "60M MACs", -1, 0.5, True, None)),
        *((v, SECONDS) for v in ("soon", "2 hours ago", float("nan"), float("inf"), [2])),
        ("500kW", BYTES),
        ("2h", MILLISECONDS),
    ],
)
def test_what_is_no_amount(value, units):
    with pytest.raises(NeasError, match=r"^a\.b: received .*, expected a .* such as"):
        quantity(value, "a.b", units)


@given(st.integers(0, 10**12), st.sampled_from(["", "k", "M", "G"]))
def test_a_count_is_exact(number, unit):
    factor = COUNT[unit.lower()]
    assert quantity(f"{number // 10}.{number % 10}{unit}", "x", COUNT) == number * factor // 10


def test_settings_take_them():
    config = load_config(
        "neas_quickstart", (), "search.max_macs=0.6M,search.max_latency_ms='1.5ms'"
    )
    assert config.search.max_macs == 600_000 and config.search.max_latency_ms == 1.5
    config = load_config("neas_quickstart", (), {"search": {"max_params": "80k"}})
    assert config.search.max_params == 80_000
    for setting in quantities.SETTINGS:
        with pytest.raises(NeasError, match=rf"^{setting}: received 'much', expected a "):
            load_config("neas_quickstart", (), {setting: "much"})
