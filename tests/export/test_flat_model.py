import numpy as np
import pytest
import tf_keras
from small_ensembles import ENSEMBLES, SPACE, randomise

from neas_tf.common.errors import NeasError
from neas_tf.common.normalisation import Normalisation
from neas_tf.ensemble.model import build_ensemble, fold_for_deployment
from neas_tf.ensemble.rewrites import MOBILE_REWRITES, NO_REWRITES
from neas_tf.export.checks import random_images
from neas_tf.export.flat_graph import build, consumers, flat_layers

NORMALISATION = Normalisation((0.5, 0.4, 0.3), (0.2, 0.25, 0.3))
SHAPE = (*SPACE.input_size, SPACE.input_channels)


def flat(name, rewrites):
    model = build_ensemble(ENSEMBLES[name], SPACE)
    randomise(model)
    fused = fold_for_deployment(
        model,
        ENSEMBLES[name],
        SPACE,
        rewrites=rewrites,
        input_scale=NORMALISATION.scale,
    )
    return model, flat_layers(fused, NORMALISATION, rewrites)


@pytest.mark.parametrize("rewrites", [NO_REWRITES, MOBILE_REWRITES], ids=["plain", "mobile"])
@pytest.mark.parametrize("name", ENSEMBLES)
def test_flat_graph_gives_the_mean_logits_from_pixels(name, rewrites):
    model, layers = flat(name, rewrites)
    images = random_images(SPACE, 3).astype(np.float32)
    expected = np.mean(model(NORMALISATION.apply(images)), axis=1)
    np.testing.assert_allclose(build(layers, SHAPE)(images), expected, atol=1e-4)
    assert not {"BatchNormalization", "Functional"} & {layer.kind for layer in layers}
    activations = {e.config["activation"] for e in layers if e.kind == "Activation"}
    assert activations == {"sigmoid"}


def test_layers_come_before_their_consumers():
    _, layers = flat("three_paths", MOBILE_REWRITES)
    names = ["image"]
    for layer in layers:
        assert set(layer.inputs) <= set(names)
        names.append(layer.name)
    assert len(set(names)) == len(names) and layers[-1].name == "classifier"
    after = consumers(layers)
    assert after["classifier"] == []
    assert [layer.name for layer in after["features"]] == ["features_flat"]


def small(*layers):
    image = tf_keras.Input((4, 4, 3))
    x = image
    for layer in layers:
        x = layer(x)
    return tf_keras.Model(image, x)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: small(tf_keras.layers.Activation("tanh", name="t")), "'t' has the activation"),
        (
            lambda: small(
                tf_keras.layers.ReLU(), tf_keras.layers.BatchNormalization(epsilon=1e-5, name="n")
            ),
            "'n' does not stand after a plain convolution",
        ),
        (
            lambda: small(
                tf_keras.layers.Conv2D(2, 1), tf_keras.layers.BatchNormalization(name="n")
            ),
            "'n' does not stand after a plain convolution",
        ),
    ],
    ids=["activation", "normalisation", "bias"],
)
def test_what_has_no_integer_form_is_refused(model, message):
    with pytest.raises(NeasError, match=message):
        flat_layers(model(), NORMALISATION, NO_REWRITES)


def test_relu_as_an_activation_becomes_the_layer():
    layers = flat_layers(
        small(tf_keras.layers.Conv2D(2, 1), tf_keras.layers.Activation("relu", name="r")),
        NORMALISATION,
        MOBILE_REWRITES,
    )
    assert [layer.kind for layer in layers] == ["Rescaling", "Conv2D", "ReLU"]
