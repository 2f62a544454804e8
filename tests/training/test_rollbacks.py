"""What counts as diverged, and the record of rollbacks."""

import math

import pytest

from neas_tf.common.errors import NeasError
from neas_tf.config.settings import SupernetConfig
from neas_tf.training.rollbacks import (
    FILE,
    OnDivergence,
    Rollback,
    add_rollback,
    rate_factor,
    read_rollbacks,
)


def test_settings():
    stage = SupernetConfig()
    assert OnDivergence.of(stage, 10, "supernet") == OnDivergence(False, 0.5, 3, 100 * math.log(10))
    stage.on_divergence, stage.max_loss, stage.max_rollbacks = "rollback", 7, 2
    assert OnDivergence.of(stage, 10, "supernet") == OnDivergence(True, 0.5, 2, 7.0)


@pytest.mark.parametrize(
    "field,value,words",
    [
        ("on_divergence", "rolback", "supernet.on_divergence: .*Did you mean 'rollback'"),
        ("rollback_rate_factor", 1.0, "supernet.rollback_rate_factor: received 1.0"),
        ("rollback_rate_factor", 0.0, "supernet.rollback_rate_factor: received 0.0"),
        ("max_rollbacks", 0, "supernet.max_rollbacks: received 0"),
        ("max_loss", -1.0, "supernet.max_loss: received -1.0"),
        ("max_loss", math.nan, "supernet.max_loss: received nan"),
    ],
)
def test_bad_settings(field, value, words):
    stage = SupernetConfig()
    setattr(stage, field, value)
    with pytest.raises(NeasError, match=words):
        OnDivergence.of(stage, 10, "supernet")


def test_record(tmp_path):
    assert read_rollbacks(tmp_path) == ()
    entries = (Rollback(9, 6, 0.5, "bad"), Rollback(14, 6, 0.5, "worse"), Rollback(30, 20, 0.1, ""))
    for entry in entries:
        add_rollback(tmp_path, entry)
    assert read_rollbacks(tmp_path) == entries
    factors = [rate_factor(entries, step) for step in (0, 5, 6, 19, 20, 99)]
    assert factors == pytest.approx([1.0, 1.0, 0.25, 0.25, 0.025, 0.025])


@pytest.mark.parametrize(
    "text",
    ["{", "[]", '{"format": "x"}', '{"format": "neas-rollbacks/1", "rollbacks": [{"to": 1}]}'],
)
def test_a_record_that_is_none(tmp_path, text):
    (tmp_path / FILE).write_text(text)
    with pytest.raises(NeasError, match="rollbacks"):
        read_rollbacks(tmp_path)
