"""What names of classes may be."""

import pytest

from neas_tf.common.class_names import check_class_names
from neas_tf.common.errors import NeasError


@pytest.mark.parametrize(
    "name",
    ["cat\n", "ca\rt", "c\u2028t", "c\x85t", "c\x0bt", "c\x00t", "c\tt", "\ud800", "", "  ", " cat",
     "cat ", "cat\u00a0", "dog", 3, None, True],
)  # fmt: skip
def test_names_that_are_refused(name):
    with pytest.raises(NeasError, match=r"^x: received .* as the name of class 1, "):
        check_class_names(["dog", name], "x")


def test_names_that_are_taken():
    names = ["cat", "Cat", "grey cat", "café", "猫", "👩‍👩‍👧", "0", "a,b"]
    assert check_class_names(names, "x") == tuple(names)
    with pytest.raises(NeasError, match="expected a list"):
        check_class_names("cat", "x")
