"""Paths packed into a few arrays are those that were put in."""

import os

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from neas_tf.data.reading.path_list import PathList

NAMES = st.text(st.characters(blacklist_characters="/\0", codec="utf-8"), min_size=1, max_size=9)
PATHS = st.lists(
    st.builds(lambda folder, name: folder + name, st.sampled_from(["", "/", "a/", "b/c/"]), NAMES)
)


@given(PATHS, st.randoms())
def test_holds_what_was_put_in(paths, random):
    packed = PathList.of(paths)
    assert list(packed) == paths == packed[:] and len(packed) == len(paths)
    cut = random.randint(0, len(paths))
    joined = PathList.joined([PathList.of(paths[:cut]), PathList.of(paths[cut:])])
    assert list(joined) == paths
    chosen = [random.randrange(len(paths)) for _ in paths]
    assert list(joined.take(np.array(chosen, np.int64))) == [paths[i] for i in chosen]
    seen = {}
    for folder, places, names in packed.by_folder():
        assert (np.diff(places) > 0).all()
        seen |= {i: (folder, os.fsdecode(n)) for i, n in zip(places.tolist(), names, strict=True)}
    assert {i: name for i, (_, name) in seen.items()} == {
        i: path.rpartition("/")[2] for i, path in enumerate(paths)
    }


def test_inside_a_graph():
    paths = ["/a/x.jpg", "/a/caf\udce9.png", "y.gif"]
    packed = PathList.of(paths)
    found = list(tf.data.Dataset.range(3).map(packed.at).as_numpy_iterator())
    assert found == [os.fsencode(path) for path in paths]
    assert packed[-1] == "y.gif"


@pytest.mark.parametrize(
    "names",
    [
        ["x.jpg", "y.jpg"],
        ["x.jpg", "caf\udce9.png", "y.jpg", "a\nb.png"],
        ["it's.png", "back\\slash.png", "plain.png", "zeichen_ä.png"],
        ["caf\udcc3", "\udca9.png"],  # side by side they would be one letter
    ],
)
def test_messages_are_written_as_python_writes_them(names):
    packed = PathList.of([f"/root/{name}" for name in names])
    found = list(tf.data.Dataset.range(len(names)).map(packed.written).as_numpy_iterator())
    assert found == [repr(f"/root/{name}")[1:-1].encode() for name in names]
