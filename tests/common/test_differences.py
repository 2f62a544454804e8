from neas_tf.common.files import difference


def test_difference():
    assert difference({"a": 1, "b": {"c": [1]}}, {"a": 1, "b": {"c": [2]}, "d": None}) == [
        "b.c: was [1], is [2]"
    ]
    long = ["a", "b", "c", "d", "e"]
    assert difference({"x": long}, {"x": long[:3]}) == [
        'x: had 5 entries, has 3, lost "d", "e", gained nothing'
    ]
