"""Networks of `neas.applications`: the ensemble's own arithmetic, in every form and of every source."""

import keras
import numpy as np
import pytest
import tf_keras
from small_ensembles import ENSEMBLES, SPACE, randomise

import neas_tf as neas
from neas_tf.applications import NEASL, NEASM, NEASS, backbone, decode_predictions, ensemble_model
from neas_tf.applications import preprocess_input as preprocess
from neas_tf.common.errors import NeasError
from neas_tf.common.normalisation import Normalisation
from neas_tf.cost.cost_table import CostTable
from neas_tf.ensemble.model import build_ensemble
from neas_tf.ensemble.store import RUN_MODEL, LoadedInfo, read_info, save_model
from neas_tf.export.formats import export_keras

ARCHITECTURE = ENSEMBLES["two_paths"]
NAMES = ("ant", "bee", "cat", "dog", "eel")
NORMALISATION = Normalisation((0.4, 0.5, 0.6), (0.3, 0.2, 0.25))
PIXELS = np.random.default_rng(3).integers(0, 256, (3, 24, 20, 3)).astype(np.float32)


def softmax(logits):
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """A run's folder with a stored model; and the model."""
    model = build_ensemble(ARCHITECTURE, SPACE, dtype="float32")
    randomise(model)
    run = tmp_path_factory.mktemp("run")
    save_model(run / RUN_MODEL, model, ARCHITECTURE, SPACE, NAMES, NORMALISATION)
    return run, model


@pytest.fixture(scope="module")
def logits(stored):
    """Of each path, (3, K, 5), by the stored model itself."""
    return stored[1].predict(NORMALISATION.apply(PIXELS), verbose=0)


@pytest.mark.parametrize("module", [keras, tf_keras], ids=["keras", "tf_keras"])
def test_a_run_as_a_model(stored, logits, module, tmp_path):
    """Pixels in, probabilities out; and saved by Keras it is the same."""
    model = ensemble_model(stored[0], keras=module)
    assert isinstance(model, module.Model)
    wanted = softmax(logits.mean(axis=1))
    np.testing.assert_allclose(model.predict(PIXELS, verbose=0), wanted, atol=1e-5)
    model.save(tmp_path / "model.keras")
    again = module.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(again.predict(PIXELS, verbose=0), wanted, atol=1e-5)
    decoded = decode_predictions(wanted, top=2, class_names=stored[0])
    best = int(wanted[0].argmax())
    assert decoded[0][0] == (str(best), NAMES[best], pytest.approx(wanted[0, best]))
    assert [len(row) for row in decoded] == [2, 2, 2] and decoded[1][0][2] > decoded[1][1][2]


def test_every_output(stored, logits):
    """Logits, probabilities of the paths, and what `build_ensemble` calls features and maps."""
    run, model = stored

    def output(x=PIXELS, **options):
        return ensemble_model(run, **options).predict(x, verbose=0)

    plain = {"include_preprocessing": False, "classifier_activation": None}
    ready = preprocess(PIXELS, include_preprocessing=False, normalisation=NORMALISATION)
    assert preprocess(PIXELS) is PIXELS
    np.testing.assert_allclose(output(ready, **plain), logits.mean(axis=1), atol=1e-5)
    np.testing.assert_allclose(output(outputs="paths"), softmax(logits), atol=1e-5)
    # By hand: the maps after the heads' convolutions, then the rest of the head.
    maps = tf_keras.Model(
        model.input, [model.get_layer(f"path{k}_head_swish").output for k in (1, 2)]
    ).predict(NORMALISATION.apply(PIXELS), verbose=0)
    found = output(include_top=False, outputs="paths")
    for ours, theirs in zip(found, maps, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
    np.testing.assert_allclose(output(include_top=False), np.mean(maps, axis=0), atol=1e-5)
    for pooling, reduce in (("avg", np.mean), ("max", np.max)):
        vectors = np.stack([reduce(m, axis=(1, 2)) for m in maps], axis=1)  # (3, K, 16)
        options = {"include_top": False, "pooling": pooling}
        np.testing.assert_allclose(output(outputs="paths", **options), vectors, atol=1e-5)
        np.testing.assert_allclose(output(**options), vectors.mean(axis=1), atol=1e-5)


@pytest.mark.parametrize("merge", ["mean", "concat"])
def test_levels(stored, merge):
    run, model = stored
    levels = backbone(run, levels=("C2", "C3"), merge=merge, input_shape=(None, None, 3))
    maps = levels.predict(PIXELS, verbose=0)
    assert [m.shape for m in maps.values()] == [
        (3, 6, 5, 8),
        (3, 3, 3, 16 * (1 + (merge != "mean"))),
    ]
    assert levels.get_layer("C2").output.shape == (None, None, None, 8)
    ends = ("trunk_l02_skip", "path1_l03_k3e4_project_bn", "path2_l04_k7e6_add")
    trunk, *paths = (
        tf_keras.Model(model.input, model.get_layer(name).output).predict(
            NORMALISATION.apply(PIXELS), verbose=0
        )
        for name in ("trunk_l01_k7e4_project_bn", *ends[1:])
    )
    np.testing.assert_allclose(maps["C2"], trunk, atol=1e-5)
    merged = np.mean(paths, axis=0) if merge == "mean" else np.concatenate(paths, axis=-1)
    np.testing.assert_allclose(maps["C3"], merged, atol=1e-5)


@pytest.fixture(scope="module")
def files(stored, tmp_path_factory):
    """The stored model in every kind of file, by both Keras."""
    run, model = stored
    folder = tmp_path_factory.mktemp("files")
    info = read_info(run / RUN_MODEL)
    export_keras(model, info, folder / "deployed.keras")
    export_keras(model, info, folder / "export.weights.h5")
    for module in (keras, tf_keras):
        ours = ensemble_model(run, keras=module)
        ours.save(folder / f"{module.__name__}.keras")
        ours.save_weights(folder / f"{module.__name__}.weights.h5")
    return folder


@pytest.mark.parametrize(
    "name",
    [
        "deployed.keras",
        "export.weights.h5",
        *(
            f"{module}.{kind}"
            for module in ("keras", "tf_keras")
            for kind in ("keras", "weights.h5")
        ),
    ],
)
def test_weights_of_every_file(files, logits, name):
    model = ensemble_model(ARCHITECTURE, SPACE, weights=files / name, outputs="mean")
    pixels = PIXELS
    if name.endswith(".h5"):  # they do not say how their pixels were normalised
        model = ensemble_model(
            ARCHITECTURE, SPACE, weights=files / name, include_preprocessing=False
        )
        pixels = NORMALISATION.apply(PIXELS)
    found = model.predict(pixels, verbose=0)
    np.testing.assert_allclose(found, softmax(logits.mean(axis=1)), atol=1e-5)


def test_other_classes_and_sizes(stored, capsys):
    """All but the classifiers is loaded, and that is said in one line."""
    run, model = stored
    same = ensemble_model(ARCHITECTURE, SPACE, weights=run, input_shape=(48, 40, 3))
    assert capsys.readouterr().err == "" and same.input_shape == (None, 48, 40, 3)
    other = ensemble_model(run, classes=3, seed=1)
    said = capsys.readouterr().err
    assert (
        said.count("\n") == 1
        and "classifiers for 5 classes; new are path1_classifier, path2_classifier," in said
    )
    assert other.output_shape == (None, 3)
    theirs = {layer.name: layer.get_weights() for layer in model.layers if layer.weights}
    for layer in other.layers:
        if layer.weights and "classifier" not in layer.name:
            for ours, wanted in zip(layer.get_weights(), theirs[layer.name], strict=True):
                np.testing.assert_array_equal(ours, wanted)
    # A model in hand passes its weights on; without the head it leaves them.
    features = ensemble_model(run, include_top=False, weights=other)
    assert features.output_shape == (None, 3, 3, 16)
    ensemble_model(run, weights=features, classes=4)
    assert "has no classifiers; new are path1_feature, path" in capsys.readouterr().err


@pytest.mark.parametrize("build,name", [(NEASS, "neas_s"), (NEASM, "neas_m"), (NEASL, "neas_l")])
def test_the_published_ones(build, name):
    model = build(input_shape=(32, 32, 3))
    space = neas.SearchSpace()
    cost = CostTable(space).cost(neas.load_architecture(name))
    trained = sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)
    assert trained == cost.params and model.output_shape == (None, 1000)
    assert neas.applications.NEASS is NEASS and build.__name__ == name.upper().replace("_", "")


def test_seed_and_gray_images():
    first, again, other = (
        ensemble_model(ARCHITECTURE, SPACE, input_shape=(8, 8, 1), seed=seed) for seed in (1, 1, 2)
    )
    x = np.full((1, 8, 8, 1), 200.0)
    np.testing.assert_array_equal(first.predict(x, verbose=0), again.predict(x, verbose=0))
    assert not np.array_equal(first.predict(x, verbose=0), other.predict(x, verbose=0))
    config = first.get_layer("normalisation").get_config()
    np.testing.assert_allclose([config["scale"], config["offset"]], [[1 / 127.5], [-1.0]])


def test_imagenet_names(monkeypatch):
    from keras.src.applications import imagenet_utils

    probabilities = np.eye(1000)[[7]]
    monkeypatch.setattr(
        imagenet_utils, "CLASS_INDEX", {str(i): [f"n{i}", f"name{i}"] for i in range(1000)}
    )
    assert decode_predictions(probabilities, top=1) == [[("n7", "name7", 1.0)]]
    monkeypatch.setattr(imagenet_utils, "CLASS_INDEX", None)

    def no_network(*_, **__):
        raise Exception("URL fetch failure: no route")  # as Keras does

    monkeypatch.setattr(imagenet_utils.file_utils, "get_file", no_network)
    with pytest.raises(
        NeasError, match=r"cannot fetch .*no route.*expected a network the first time"
    ):
        decode_predictions(probabilities)


@pytest.mark.parametrize(
    "options,sentence",
    [
        ({"pooling": "mean"}, "pooling: received 'mean', expected None, 'avg' or 'max'"),
        ({"outputs": "logits"}, "outputs: unknown name 'logits'; known are mean, paths"),
        (
            {"classifier_activation": "softmux"},
            "classifier_activation: received 'softmux', expected",
        ),
        ({"input_shape": (224, 224)}, r"input_shape: received \(224, 224\), expected \(height"),
        ({"input_shape": (0, 9, 3)}, "input_shape: received 0, expected an integer from 1"),
        ({"classes": 1}, "classes: received 1, expected an integer from 2"),
        ({"dropout": 1.0}, "dropout: received 1.0, expected a rate"),
        ({"weights": "imagenet"}, "weights: received 'imagenet', expected .*no weights come with"),
        ({"weights": 3}, "weights: received 3, expected the folder"),
        ({"weights": "{here}"}, "weights: received '.*', expected a folder with a stored model"),
        ({"weights": "{here}/bad.keras"}, r"bad.keras' cannot be read as a .keras file"),
        ({"weights": "{here}/bad.weights.h5"}, r"bad.weights.h5' cannot be read as a .weights.h5"),
        ({"weights": "{here}/314.pth.tar"}, "expected .*neas convert makes a folder"),
        ({"weights": "{run}"}, "weights: '.*' holds those of 's2:.*', expected those of 'neas_s'"),
        (
            {"weights": "{keras}"},
            r"weights: received '.*', expected those of 'neas_s'; \d+ layers do",
        ),
        ({"weights": "{tf_keras}"}, "not the weights of architecture 'neas_s'"),
        ({"keras": np}, "keras: received <module 'numpy'"),
    ],
)
def test_refusals(options, sentence, stored, files, tmp_path):
    for name in ("bad.keras", "bad.weights.h5", "314.pth.tar"):
        (tmp_path / name).write_bytes(b"not what it says")
    places = {
        "here": tmp_path,
        "run": stored[0],
        "keras": files / "keras.weights.h5",
        "tf_keras": files / "tf_keras.weights.h5",
    }
    if isinstance(options.get("weights"), str):
        options = {"weights": options["weights"].format(**places)}
    with pytest.raises(NeasError, match=sentence):
        NEASS(**{"input_shape": (32, 32, 3), **options})


@pytest.mark.parametrize(
    "call,sentence",
    [
        (
            lambda run: ensemble_model(run, SPACE),
            "space: received .*, expected None, as the folder",
        ),
        (lambda run: ensemble_model("neas_s", SPACE), "architecture"),
        (lambda run: ensemble_model(run.parent), "architecture: .*, expected the folder of a run"),
        (
            lambda run: ensemble_model(run, input_shape=(24, 20, 1)),
            "normalisation.mean: .*1 numbers",
        ),
        (lambda run: backbone(run, levels=("C5",)), "levels: received 5, but .* has the levels 2"),
        (lambda run: backbone(run, levels=("p3",)), "levels: received 'p3', expected names such"),
        (lambda run: backbone(run, merge="max"), "merge: unknown name 'max'"),
        (lambda run: decode_predictions(np.zeros((2, 10))), r"preds: received \(2, 10\), expected"),
        (lambda run: preprocess(np.zeros((2, 3, 9, 9)), "channels_first"), "data_format: received"),
    ],
)
def test_other_refusals(call, sentence, stored):
    with pytest.raises(NeasError, match=sentence):
        call(stored[0])


def test_a_search_without_retraining(tmp_path, capsys):
    """What a run found can be had before it is retrained, with new weights; a line says so."""
    from neas_tf.common.files import write_json_atomic

    (tmp_path / "search").mkdir()
    write_json_atomic(tmp_path / "search" / "best.json", ARCHITECTURE.to_dict())
    write_json_atomic(tmp_path / "params.yaml", {"space": SPACE.to_dict()})
    model = ensemble_model(tmp_path)
    assert model.output_shape == (None, 5) and "gets new weights" in capsys.readouterr().err


def test_stored_info_is_checked():
    with pytest.raises(NeasError, match="4 names"):
        LoadedInfo(ARCHITECTURE, SPACE, NAMES[:4], NORMALISATION)
