"""Reading settings: what works, and that nothing but one sentence comes of what does not."""

import json

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from neas_tf.common.errors import NeasError
from neas_tf.common.paths import config_file
from neas_tf.common.yaml_text import dump_yaml
from neas_tf.config import experiments
from neas_tf.config.parse import (
    check_known,
    load_config,
    load_file,
    load_yaml,
    parse_override,
    with_stage_shapes,
)
from neas_tf.search.fitness import CALIBRATED


def one_sentence(error: pytest.ExceptionInfo) -> str:
    text = str(error.value)
    assert text and "\n" not in text and text[-1] in ".?)", text
    return text


@pytest.mark.parametrize(
    "text,expected",
    [
        ("", {}),
        ("  ", {}),
        ("seed=3", {"seed": 3}),
        ("a.b=1,a.c=x", {"a": {"b": 1, "c": "x"}}),
        (
            "supernet.epochs=1e-1,search.seed=-1",
            {"supernet": {"epochs": 0.1}, "search": {"seed": -1}},
        ),
        ("a=[1,2],b={c: 1, d: 2}", {"a": [1, 2], "b": {"c": 1, "d": 2}}),
        ("a='x,y',b=null", {"a": "x,y", "b": None}),
        ("{seed: 3}", {"seed": 3}),
        ('{"seed": 3, "space": {"name": "x"}}', {"seed": 3, "space": {"name": "x"}}),
        ("seed: 3\nnum_paths: 2", {"seed": 3, "num_paths": 2}),
    ],
)
def test_parse_override(text, expected):
    assert parse_override(text) == expected


@pytest.mark.parametrize(
    "text,expected",
    [
        ("photos #1", "photos #1"),
        ("#1", "#1"),
        ("o'brien", "o'brien"),
        ("'it''s, ok'", "it's, ok"),
        (r'"a, \"b\" \u00e9"', 'a, "b" \u00e9'),
        ("photos (1]", "photos (1]"),
        ("train[:10%]", "train[:10%]"),
        ("a: b", "a: b"),
        ("gs://a/b=c", "gs://a/b=c"),
        (r"C:\new", r"C:\new"),
        ("*.tfrecord", "*.tfrecord"),
        ("=", "="),
        ("~", None),
        ("~/photos", "~/photos"),
        ("yes", "yes"),
        ("off", "off"),
        ("2021-04-01", "2021-04-01"),
        ("1:30", "1:30"),
        ("010", 10),
        ("08", 8),
        ("0x10", 16),
        ("1_000", 1000),
        ("1e3", 1000.0),
        ("[064,064,]", [64, 64]),
        ("[o'brien, a#1, 'x, y', yes]", ["o'brien", "a#1", "x, y", "yes"]),
    ],
)
def test_a_value_means_all_of_itself(text, expected):
    assert parse_override(f"a.b={text},c=3") == {"a": {"b": expected}, "c": 3}


def test_override_as_a_mapping():
    """What Python code passes; dotted and nested keys alike, each once."""
    given = {"data.name": "010 #1", "data": {"cache": "none"}, "space.stages": [[8, 1, 1]]}
    wanted = {"data": {"name": "010 #1", "cache": "none"}, "space": {"stages": [[8, 1, 1]]}}
    assert parse_override(given) == wanted
    assert set(given) == {"data.name", "data", "space.stages"}  # left as it was
    assert load_config("neas_quickstart", (), {"seed": 5, "data.name": "x"}).data.name == "x"
    endless = {}
    endless["a"] = endless
    for bad in ({"a.b": 1, "a": {"b": 2}}, endless, ["seed=1"], {"a": "\0"}):
        with pytest.raises(NeasError):
            parse_override(bad)


@pytest.mark.parametrize(
    "text", ["08", "1e3", "yes", "~", "2021-01-01", "#x", "a: b", "1_0", "0b1"]
)
def test_written_texts_stay_texts(text):
    """params.yaml of a run is read again: with this reader, and with YAML's own."""
    assert load_yaml(dump_yaml({"name": text}), "x") == {"name": text}
    assert yaml.safe_load(dump_yaml({"name": text})) == {"name": text}


@pytest.mark.parametrize(
    "text,words",
    [
        ("seed", "expected a mapping"),
        ("a=1,b", "'b', expected section.key=value"),
        ("a=1,a.b=2", "sets a part of a value"),
        ("a={b", "no valid YAML"),
        ("a=1\nb: 2", "a line break"),
        ("a='1\nb: 2'", "expected is one line"),
        ("[1, 2]", "expected a mapping"),
        ("{a: &x [*x]}", "nested endlessly"),
        ("a=1,a=2", "received 'a' twice"),
        ("a={b: 1},a.b=2", "received 'a.b' twice"),
        ("a.b=2,a={b: 1}", "received 'a.b' twice"),
        ("a='b' # c,d=1", "would be a comment"),
        ("{a: 1} # and more", "would be a comment"),
        ("a=[b #c, d]", "no valid YAML"),
        ("a=f(b,c)", "'c)', expected section.key=value"),
        ("a='b,c=1", "no valid YAML"),
        ('a="C:\\photos"', "no valid YAML"),
        ("a='b'c", "no valid YAML"),
        ("a=x\x07", "no valid YAML"),
        ("{a: !!python/object:os.system 1}", "no valid YAML"),
        ("missing.yaml", "no file at 'missing.yaml'"),
    ],
)
def test_parse_override_refuses(text, words):
    with pytest.raises(NeasError) as error:
        parse_override(text)
    assert words in one_sentence(error)


def test_override_file(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"seed": 4}))
    assert parse_override(str(path)) == {"seed": 4}


@pytest.mark.parametrize(
    "content,words",
    [
        (b"a: [1", "no valid YAML"),
        (b"- 1\n- 2\n", "expected a mapping"),
        (b"\xff\xfe\x00", "cannot be read"),
        (b"a: \x00", "no valid YAML"),
    ],
)
def test_broken_files(tmp_path, content, words):
    path = tmp_path / "a.yaml"
    path.write_bytes(content)
    with pytest.raises(NeasError) as error:
        load_file(str(path))
    assert words in one_sentence(error)
    assert str(path) in str(error.value)
    with pytest.raises(NeasError, match="cannot be read"):
        load_file(str(tmp_path))
    with pytest.raises(NeasError, match="no file at"):
        load_file(str(tmp_path / "b.yaml"))


def test_empty_file_sets_nothing(tmp_path):
    (tmp_path / "a.yaml").write_text("# nothing\n")
    assert load_file(str(tmp_path / "a.yaml")) == {}


@pytest.mark.parametrize(
    "override,words",
    [
        ("sead=1", "sead: unknown name 'sead'"),
        ("sead=1", "Did you mean 'seed'?"),
        ("serch.population=3", "Did you mean 'search'?"),
        ("search.popluation=3", "Did you mean 'population'?"),
        ("supernet.trainer.step_per_loop=3", "Did you mean 'steps_per_loop'?"),
        (
            "retrain.trainer.optimizer_config.ema.avrage_decay=0.9",
            "Did you mean 'average_decay'?",
        ),
        (
            "supernet.trainer.optimizer_config.learning_rate.polynomial.powr=1",
            "Did you mean 'power'?",
        ),
        (
            "supernet.trainer.optimizer_config.learning_rate.type=cosin",
            "Did you mean 'cosine'?",
        ),
        ("runtime.num_gpu=1", "Did you mean 'num_gpus'?"),
        ("data.sorce=digits", "Did you mean 'source'?"),
        ("{space: {stages: [{channel: 3}]}}", "Did you mean 'channels'?"),
        ("{space: {stages: [[1, 2]]}}", "operators} or [channels, layers, stride]"),
        ("{space: {stages: [7]}}", "space.stages[0]: received 7"),
        ("{1: 2}", "unknown name 1"),
        ("seed=x", "seed: received 'x', expected an integer"),
        ("seed=1.5", "expected an integer"),
        ("seed=true", "expected an integer"),
        ("seed=null", "seed: received None"),
        ("seed={a: 1}", "expected an integer"),
        ("heterogeneous=1", "expected true or false"),
        ("supernet.epochs=many", "expected a number"),
        ("supernet.epochs=.nan", "expected a number"),
        ("supernet.epochs=.inf", "expected a number"),
        ("supernet=3", "expected a mapping of settings"),
        ("retrain=null", "expected a mapping of settings"),
        ("space.operators=k3e4", "expected a list, each a string"),
        ("space.operators=[1, 2]", "expected a list, each a string"),
        ("data.mean=[a]", "expected a list, each a number"),
        ("data.name=7", "expected a string"),
        ("shrink.beta=automatic", "expected 'auto' or a number"),
        ("search={default_params: 1}", "unknown name 'default_params'"),
    ],
)
def test_load_config_refuses(override, words):
    with pytest.raises(NeasError) as error:
        load_config("neas_quickstart", (), override)
    assert words in one_sentence(error)


@pytest.mark.parametrize(
    "override,get,expected",
    [
        ("shrink.beta=auto", lambda c: c.shrink.beta, "auto"),
        ("shrink.beta=0.5", lambda c: c.shrink.beta, 0.5),
        ("supernet.epochs=3", lambda c: c.supernet.epochs, 3),
        (
            "retrain.trainer.optimizer_config.ema=null",
            lambda c: c.retrain.trainer.optimizer_config.ema,
            None,
        ),
        (
            "supernet.trainer.optimizer_config.ema.average_decay=0.5",
            lambda c: c.supernet.trainer.optimizer_config.ema.average_decay,
            0.5,
        ),
        (
            "{retrain: {trainer: {optimizer_config: {learning_rate: {type: stepwise, stepwise: "
            "{boundaries: [10, 20], values: [0.1, 0.01, 0.001]}}}}}}",
            lambda c: c.retrain.trainer.optimizer_config.learning_rate.get().boundaries,
            [10, 20],
        ),
        (
            "retrain.trainer.optimizer_config.warmup.type=null",
            lambda c: c.retrain.trainer.optimizer_config.warmup.type,
            None,
        ),
        (
            "retrain.trainer.optimizer_config.optimizer.type=adam",
            lambda c: type(c.retrain.trainer.optimizer_config.optimizer.get()).__name__,
            "AdamConfig",
        ),
        ("space.stages=[[16, 1, 2]]", lambda c: c.space.stages[0].stride, 2),
        ("{space: {stages: [{channels: 8, layers: 2}]}}", lambda c: c.space.stages[0].stride, 1),
        ("space.input_size=[8, 8]", lambda c: list(c.space.input_size), [8, 8]),
        ("data.input_size=[8,8],data.mean=[1]", lambda c: list(c.data.mean), [1]),
        (
            "runtime.mixed_precision_dtype=bfloat16",
            lambda c: c.runtime.mixed_precision_dtype,
            "bfloat16",
        ),
        ("runtime.loss_scale=dynamic", lambda c: c.runtime.loss_scale, "dynamic"),
        (
            "runtime.distribution_strategy=off",
            lambda c: c.runtime.distribution_strategy,
            "off",
        ),
        ("data.class_names=[yes, no]", lambda c: list(c.data.class_names), ["yes", "no"]),
        ("data.flip=True", lambda c: c.data.flip, True),
        ("runtime.loss_scale=128", lambda c: c.runtime.loss_scale, 128),
    ],
)
def test_load_config_takes(override, get, expected):
    assert get(load_config("neas_quickstart", (), override)) == expected


def test_later_settings_win(tmp_path):
    (tmp_path / "a.yaml").write_text("seed: 1\nnum_paths: 3\n")
    (tmp_path / "b.yaml").write_text("seed: 2\n")
    files = [str(tmp_path / "a.yaml"), str(tmp_path / "b.yaml")]
    config = load_config("neas_quickstart", files, "num_paths=4")
    assert (config.seed, config.num_paths) == (2, 4)


def test_experiments_are_the_recipes(tmp_path):
    """Those of configs/experiments by name, one's own by the path of its file."""
    folder = config_file("experiments")
    assert set(experiments.NAMES) == {path.stem for path in folder.iterdir()}
    assert set(experiments.NAMES) == {
        *("neas_quickstart", "neas_cifar10", "neas_imagenet", "neas_own_data")
    }
    for name in experiments.NAMES:
        text = (folder / f"{name}.yaml").read_text("utf-8")
        head = text[: text.index("\ndata:")]
        assert f"neas train --experiment={name} " in head
        assert "# Expected: " in head and "# Time: " in head
        zero = load_config(name).supernet.zero_init_residual
        assert zero == (name in ("neas_cifar10", "neas_own_data"))
        papers = name == "neas_imagenet"
        assert load_config(name).search.fitness == ("accuracy" if papers else CALIBRATED)
    for name, zero in (("cifar10_cpu", True), ("cifar10_mobile_cpu", False)):  # as published
        made = load_config("neas_cifar10", [str(config_file(f"{name}.yaml"))])
        assert made.supernet.zero_init_residual == zero
    own = tmp_path / "own.yaml"
    own.write_text((folder / "neas_cifar10.yaml").read_text("utf-8") + "seed: 7\n")
    named = load_config("neas_cifar10", (), "seed=7")
    assert load_config(str(own)).as_dict() == named.as_dict()
    own.write_text("serach: {max_macs: 1}\n")
    with pytest.raises(NeasError, match="Did you mean 'search'"):
        load_config(str(own))
    with pytest.raises(NeasError, match=r"none\.yaml"):
        load_config(str(tmp_path / "none.yaml"))


def test_settings_of_old_runs_mean_what_they_meant(tmp_path):
    """Before there was `search.fitness` it was accuracy; only a run's own file says so by its silence."""
    for name, fitness in (("params.yaml", "accuracy"), ("mine.yaml", CALIBRATED)):
        (tmp_path / name).write_text("search: {population: 6}\n")
        found = load_config("neas_quickstart", [str(tmp_path / name)]).search
        assert (found.population, found.fitness) == (6, fitness)
        assert load_config("neas_quickstart", (), "").search.fitness == CALIBRATED
    (tmp_path / "params.yaml").write_text("search: {fitness: ranks}\n")
    assert load_config("neas_quickstart", [str(tmp_path / "params.yaml")]).search.fitness == "ranks"


def test_unknown_experiment():
    with pytest.raises(NeasError, match="Did you mean 'neas_quickstart'"):
        load_config("neas_quikstart")


@given(st.text(max_size=60) | st.text(alphabet="ab.=,:{}[]'\"&*!|>-?# \n\t1e_<%@`", max_size=40))
@settings(max_examples=400)
def test_any_text(text):
    try:
        assert isinstance(parse_override(text), dict)
    except NeasError as error:
        assert str(error)


@given(st.text(alphabet="ab:{}[]'\"&*!|>-?# \n\t1e_<%@`.", max_size=60))
@settings(max_examples=300)
def test_any_yaml(text):
    try:
        assert isinstance(load_yaml(text, "text"), dict)
    except NeasError as error:
        assert str(error).startswith("text: ")


_NAMES = """seed space stages name operators supernet trainer optimizer_config optimizer type sgd
    momentum learning_rate ema shrink beta search data mean runtime loss_scale retrain x"""
_KEYS = st.sampled_from(_NAMES.split()) | st.text(max_size=3)
_LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from(["auto", "sgd", "cosine", "x"])
)
_VALUES = st.recursive(
    _LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(_KEYS, _VALUES, max_size=3))
@settings(max_examples=200)
def test_any_settings(override):
    config = _config()
    try:
        check_known(override, config)
        override = with_stage_shapes(override)
    except NeasError as error:
        assert str(error)
        return
    config.override(override, is_strict=True)  # What passes the check can be set.


def _config():
    import copy

    if not hasattr(_config, "value"):
        _config.value = load_config("neas_quickstart")
    return copy.deepcopy(_config.value)


@pytest.mark.parametrize("seconds, told", [(30, 0), (75, 1)])
def test_settings_of_a_run_with_seconds_of_silence_are_read(tmp_path, caplog, seconds, told):
    """params.yaml of a run from before: the default was in each of them."""
    settings = load_config("neas_quickstart").as_dict()
    settings["workers"]["silence_seconds"] = seconds
    (tmp_path / "params.yaml").write_text(dump_yaml(settings))
    config = load_config("neas_quickstart", [tmp_path / "params.yaml"])
    assert config.as_dict() == load_config("neas_quickstart").as_dict()
    lines = [r.getMessage() for r in caplog.records if "silence" in r.getMessage()]
    assert lines == told * [
        "workers.silence_seconds is passed over: TensorFlow alone decides after how many seconds of "
        "silence a worker is lost."
    ]
