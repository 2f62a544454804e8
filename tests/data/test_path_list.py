"""Paths packed into a few arrays are those that were put in."""

import os

import numpy as np
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
