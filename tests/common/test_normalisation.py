import dataclasses

import numpy as np
import pytest

from neas_tf.common.errors import NeasError
from neas_tf.common.normalisation import Normalisation, network_input


@dataclasses.dataclass
class Affine:
    scale: tuple[float, ...]
    offset: tuple[float, ...]


def test_scale_and_offset_say_the_same_as_mean_and_std():
    normalisation = Normalisation((0.5, 0.25, 0.0), (0.5, 0.2, 1.0))
    images = np.arange(12, dtype=np.uint8).reshape(1, 2, 2, 3) * 20
    expected = (images / 255 - [0.5, 0.25, 0.0]) / [0.5, 0.2, 1.0]
    np.testing.assert_allclose(normalisation.apply(images), expected, atol=1e-6)
    by_parts = images * np.array(normalisation.scale) + np.array(normalisation.offset)
    np.testing.assert_allclose(by_parts, expected, atol=1e-12)
    np.testing.assert_allclose(normalisation.undo(normalisation.apply(images)), images, atol=1e-4)


def test_arrays_and_tensors_give_the_same_bits_and_only_pixels_are_normalised():
    tf = pytest.importorskip("tensorflow")
    normalisation = Normalisation()
    pixels = np.arange(768, dtype=np.uint8).reshape(-1, 1, 1, 3)
    expected = normalisation.apply(pixels)
    traced = tf.function(lambda x: network_input(x, normalisation))
    for found in (traced(pixels), network_input(tf.constant(pixels), normalisation)):
        assert found.numpy().tobytes() == expected.tobytes()
    images = tf.constant(expected)
    assert network_input(images, normalisation) is images is network_input(images, None)
    with pytest.raises(ValueError, match="no normalisation"):
        network_input(tf.constant(pixels), None)


def test_reads_its_own_form_and_affine_objects():
    normalisation = Normalisation()
    assert Normalisation.of(normalisation) is normalisation
    assert Normalisation.of(normalisation.to_dict()) == normalisation
    again = Normalisation.of(Affine(tuple(normalisation.scale), tuple(normalisation.offset)))
    np.testing.assert_allclose(again.mean, normalisation.mean)
    np.testing.assert_allclose(again.std, normalisation.std)


@pytest.mark.parametrize(
    ("value", "field"),
    [
        (None, "normalisation"),
        ({"mean": [0.5]}, "std"),
        ({"mean": [0.5], "std": [0.0]}, "std"),
        ({"mean": [0.5], "std": [0.5, 0.5]}, "std"),
        ({"mean": [float("nan")], "std": [0.5]}, "mean"),
        ({"mean": ["0.5"], "std": [0.5]}, "mean"),
        ({"mean": [127.5], "std": [0.5]}, "0..1"),
        ({"mean": [0.5], "std": [60.0]}, "0..1"),
        ({"mean": [0.5], "std": [0.5], "stdd": []}, "Did you mean"),
    ],
)
def test_bad_values_are_refused(value, field):
    with pytest.raises(NeasError, match=field):
        Normalisation.of(value)


def test_channels_must_fit():
    with pytest.raises(NeasError, match="1 numbers"):
        Normalisation().check_channels(1)
