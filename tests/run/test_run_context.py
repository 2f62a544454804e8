"""What a run refuses: one sentence each, before anything is written."""

import json
import os
import pathlib

import image_files
import pytest
import tensorflow as tf
from tiny_run import TINY, QuickEvaluator, contents, give_supernet

from neas_tf.common.errors import NeasError
from neas_tf.common.folder_lock import lock_folder
from neas_tf.config.parse import load_config
from neas_tf.run import pipeline, search_stage
from neas_tf.run.context import open_run
from neas_tf.run.identity import Identity, bounds_of
from neas_tf.run.supernet_stage import check_supernet


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("config") / "tiny.yaml"
    path.write_text(json.dumps(TINY))
    return str(path)


@pytest.fixture
def refused(tiny, tmp_path):
    """Calls the pipeline, which must refuse and change nothing; returns the sentence."""

    def call(override: str = "", model_dir: object = None, stage: str = "all") -> str:
        folder = pathlib.Path(model_dir or tmp_path / "run")
        before = contents(folder) if folder.is_dir() else folder.exists()
        with pytest.raises(NeasError) as error:
            pipeline.run_pipeline(
                load_config("neas_quickstart", [tiny], override), str(folder), stage
            )
        assert (contents(folder) if folder.is_dir() else folder.exists()) == before
        text = str(error.value)
        assert text and "\n" not in text
        return text

    return call


@pytest.fixture
def begun(tiny, tmp_path):
    """A folder with params, a 'trained' supernet and a finished search, made in no time."""
    run = open_run(load_config("neas_quickstart", [tiny]), str(tmp_path / "run"), strategy())
    return give_supernet(run)


@pytest.fixture
def searched(begun, monkeypatch):
    monkeypatch.setattr(search_stage, "_LazyEvaluator", QuickEvaluator)
    with begun.writing():
        search_stage.search(*begun.inputs)
    return begun


def identity_of(stage, run):
    return Identity(stage, run.config, run.model_dir, run.info)


def strategy() -> tf.distribute.Strategy:
    return tf.distribute.get_strategy()


@pytest.mark.parametrize(
    "override,words",
    [
        ("search.max_macs=10", "search.max_macs: received 10, expected at least"),
        ("search.max_macs=0,search.min_macs=999999999", "search.min_macs: received 999,999,999"),
        ("search.max_params=7", "search.max_params: received 7, expected at least"),
        ("search.min_macs=60001", "search.max_macs: received 60,000"),
        ("search.max_macs=-1", "search.max_macs: received -1"),
        ("num_paths=5", "num_paths: received 5, but layer"),
        ("num_paths=0", "num_paths: received 0"),
        ("seed=-1", "seed: received -1"),
        ("retrain.architecture=neas_s", "retrain.architecture: "),
        ("retrain.architecture=neas_q", "Did you mean 'neas_"),
        ("retrain.architecture=missing.json", "no file at"),
        ("data.search_fraction=0", "data.search_fraction: received 0"),
        ("data.search_fraction=1.5", "data.search_fraction: received 1.5"),
        ("data.source=digit", "Did you mean 'digits'"),
        ("data.source=image_folder,data.data_dir=/no/such/folder", "/no/such/folder"),
        ("data.num_classes=11", "data.num_classes: received 11"),
        ("space.num_classes=11", "space.num_classes"),
        ("space.input_size=[9,9]", "space.input_size"),
        ("space.input_size=9", "space.input_size"),
        ("space.input_size=[a,b]", "space.input_size"),
        ("space.operators=[k3e1,k4e2]", "space.operators"),
        ("space.operators=[]", "space.operators"),
        ("space.min_split=9", "split"),
        ("space.stages=[[8,x,1]]", "space.stages[0].layers"),
        ("supernet.batch_size=5000", "supernet.batch_size: received 5000, expected 1 to 1293"),
        ("retrain.batch_size=5000", "retrain.batch_size: received 5000, expected 1 to 1437"),
        ("retrain.batch_size=0", "retrain.batch_size: received 0"),
        ("retrain.epochs=0", "retrain.epochs"),
        ("supernet.epochs=-1", "supernet.epochs"),
        ("retrain.dropout=1", "retrain.dropout: received 1"),
        ("retrain.label_smoothing=-0.1", "retrain.label_smoothing"),
        ("supernet.trainer.steps_per_loop=-2", "supernet.trainer.steps_per_loop"),
        ("supernet.trainer.max_to_keep=0", "supernet.trainer.max_to_keep"),
        ("retrain.trainer.summary_interval=7", "a multiple of steps_per_loop = 3"),
        ("supernet.trainer.optimizer_config.optimizer.type=adam", "expected 'sgd'"),
        (
            "supernet.trainer.optimizer_config.ema.average_decay=1.5",
            "ema.average_decay: received 1.5, expected a number between 0 and 1",
        ),
        ("supernet.draws_per_step=0", "supernet.draws_per_step: received 0, expected"),
        (
            "supernet.sandwich=true",
            "supernet.draws_per_step: received 1, expected 3 or more with supernet.sandwich",
        ),
        (
            "supernet.distillation.teacher=paths",
            "teacher: received 'paths', expected 'ensemble', 'widest' or nothing",
        ),
        (
            "supernet.distillation.teacher=widest,supernet.draws_per_step=3",
            "supernet.distillation.teacher: received 'widest', expected supernet.sandwich",
        ),
        (
            "num_paths=1,supernet.distillation.teacher=ensemble",
            "supernet.distillation.teacher: received 'ensemble', expected num_paths of 2 or more",
        ),
        ("supernet.distillation.weight=2", "supernet.distillation.weight: received 2"),
        ("retrain.trainer.optimizer_config.optimizer.type=null", "optimizer.type: received None"),
        (
            "retrain.trainer.optimizer_config.learning_rate.type=stepwise",
            "nothing for learning_rate.stepwise.boundaries, learning_rate.stepwise.values",
        ),
        ("runtime.num_gpus=99", "runtime.num_gpus: received 99"),
        ("runtime.num_gpus=-1", "runtime: "),
        ("runtime.distribution_strategy=tpu", "runtime: "),
        (
            "{runtime: {distribution_strategy: multi_worker_mirrored, worker_hosts: 'a:1', "
            "task_index: 3}}",
            "runtime: ",
        ),
        ("runtime.loss_scale=automatic", "expected 'dynamic' or a number"),
        (
            "runtime.enable_xla=true,runtime.mixed_precision_dtype=float16",
            "runtime.enable_xla: received true with runtime.mixed_precision_dtype 'float16'",
        ),
        ("retrain.augment=crop", "retrain: data.augment: unknown name 'crop'"),
        ("retrain.auto_augment=v9", "retrain: data.auto_augment: unknown name 'v9'"),
        ("retrain.cutout=-1", "retrain: data.cutout: received -1"),
        ("data.augment=none,supernet.cutout=4", "supernet: data.augment: received 'none'"),
        ("shrink.metric=diversty", "Did you mean 'diversity'"),
        ("shrink.num_samples=0", "shrink.num_samples"),
        ("shrink.images=0", "shrink.images"),
        ("shrink.every_epochs=-1", "shrink.every_epochs"),
        ("search.method=evolve", "Did you mean 'evolution'"),
        ("search.population=0", "search.population"),
        ("search.crossover=7,search.mutation=7", "search.crossover + search.mutation"),
        ("search.batch_size=0", "search.batch_size"),
        ("export.formats=[tflit]", "Did you mean 'tflite'"),
        ("runtime.distribution_strategy=mirored", "Did you mean 'mirrored'"),
        ("runtime.mixed_precision_dtype=float8", "Did you mean 'float"),
    ],
)
def test_bad_settings(refused, override, words):
    assert words in refused(override)


def test_budgets_that_contradict_each_other(refused):
    text = refused("search.max_macs=40000,search.max_params=3500,search.min_macs=39990")
    assert "search." in text and "3,500" in text


def test_missing_tfds(refused, tmp_path):
    text = refused(f"data.source=tfds,data.name=cifar10,data.data_dir={tmp_path / 'nothing'}")
    assert "cifar10" in text


def test_unknown_stage(refused):
    assert "Did you mean 'search'" in refused(stage="serach")


@pytest.mark.parametrize(
    "stage,words",
    [
        ("search", "run --stage=supernet first"),
        ("retrain", "run --stage=search first"),
        ("export", "run --stage=retrain first"),
    ],
)
def test_stage_before_its_turn(refused, stage, words):
    assert words in refused(stage=stage)


def test_model_dir_is_a_file(refused, tmp_path):
    (tmp_path / "file").write_text("mine")
    assert "is a file, expected a folder" in refused(model_dir=tmp_path / "file")
    assert "is a file" in refused(model_dir=tmp_path / "file" / "run")
    assert (tmp_path / "file").read_text() == "mine"


def test_foreign_folder(refused, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    assert "files of something else" in refused(model_dir=tmp_path)
    (tmp_path / "params.yaml").write_text("task: {model: resnet}\ntrainer: {}\n")
    assert "files of something else" in refused(model_dir=tmp_path)
    (tmp_path / "params.yaml").write_text("}{")
    assert "files of something else" in refused(model_dir=tmp_path)


def test_model_dir_elsewhere(tiny):
    config = load_config("neas_quickstart", [tiny])
    for name in ("gs://bucket/run", "", "a\0b"):
        with pytest.raises(NeasError, match=r"a (folder|path) of this machine"):
            open_run(config, name, strategy())


def test_unwritable(refused, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert "is not writable" in refused(model_dir=tmp_path / "a" / "b")


def test_folder_that_cannot_be_made(refused):
    if not pathlib.Path("/proc/self").is_dir():
        pytest.skip("no /proc here")
    assert "cannot be written" in refused(model_dir="/proc/neas_run")


def test_what_a_kill_at_the_start_leaves_is_no_obstacle(tiny, tmp_path):
    (tmp_path / ".lock").write_text("process 1\n")
    (tmp_path / ".params.yaml.abcd_123.tmp").write_text("half")
    with open_run(load_config("neas_quickstart", [tiny]), str(tmp_path), strategy()).writing():
        pass
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        ".lock",
        "data.json",
        "params.yaml",
        "run.json",
    ]


def test_folder_in_use(refused, begun):
    with lock_folder(begun.model_dir):
        assert "in use by another process" in refused()


@pytest.mark.parametrize(
    "override,words",
    [
        ("seed=1", "seed: was 0, is 1"),
        ("num_paths=3", "num_paths: was 2, is 3"),
        ("space.operators=[k3e1,k3e2,skip]", "space.operators"),
        ("space.max_split=2", "space.max_split: was 3, is 2"),
        ("supernet.epochs=3", "supernet.epochs: was 2.0, is 3"),
        ("shrink.remove=1", "shrink.remove: was 2, is 1"),
        ("data.search_fraction=0.2", "data.search_fraction: was 0.1, is 0.2"),
    ],
)
@pytest.mark.parametrize("stage", ["all", "supernet", "search"])
def test_another_run(refused, begun, override, words, stage):
    text = refused(override, stage=stage)
    assert "holds another run" in text and words in text


def test_another_budget_while_the_supernet_is_trained(refused, tiny, tmp_path):
    """Shrinking keeps an ensemble inside of it; behind the last shrink it is the search's alone."""
    config = load_config("neas_quickstart", [tiny])
    run = open_run(config, str(tmp_path / "run"), strategy())
    with run.writing():
        bounds = {"budget": bounds_of(run.config, run.table)}
        identity_of("supernet", run).record(bounds, True)
    for override, words in (
        ("search.max_macs=50000", "budget.max_macs: was 60000, is 50000"),
        ("search.min_macs=1", "budget.min_macs: was 0, is 1"),
        ("search.max_params=900000", "budget.max_params: was 0, is 900000"),
    ):
        assert words in refused(override)
    give_supernet(run)
    other = load_config("neas_quickstart", [tiny], "search.max_macs=50000")
    check_supernet(*open_run(other, str(tmp_path / "run"), strategy()).inputs)


@pytest.mark.parametrize(
    "override,words",
    [
        (
            "data.source=image_folder,data.data_dir={photos},data.input_size=[8,8]",
            "data.source: was",
        ),
        ("data.search_fraction=0.2", "images.search: was 144"),
    ],
)
def test_another_dataset(refused, begun, tmp_path, override, words):
    image_files.folder(tmp_path / "photos", per_class=60)
    assert words in refused(override.format(photos=tmp_path / "photos"))


def test_settings_that_change_no_result_may_change(tiny, begun):
    override = "supernet.trainer.checkpoint_interval=12,data.cache=memory,search.population=9"
    config = load_config("neas_quickstart", [tiny], override)
    run = open_run(config, str(begun.model_dir), strategy())
    identity_of("supernet", run).check()


@pytest.mark.parametrize(
    "override,words",
    [
        ("search.population=9", "settings.population: was 8, is 9"),
        ("search.max_macs=50000", "context.max_macs: was 60000, is 50000"),
        ("search.seed=7", "settings.seed: was 0, is 7"),
    ],
)
@pytest.mark.parametrize("stage", ["all", "search"])
def test_another_search(refused, searched, override, words, stage):
    text = refused(override, stage=stage)
    assert "holds another search" in text and words in text


def test_another_retraining(refused, searched):
    with searched.writing():
        found = {"architecture": "s1:k3e1.k3e1|k3e1|k3e2"}
        identity_of("retrain", searched).record(found, True)
    for stage in ("all", "retrain"):
        assert "architecture: was" in refused(stage=stage)
        assert "retrain.epochs: was 2.0, is 3" in refused("retrain.epochs=3", stage=stage)


def test_results_without_their_record(refused, searched):
    (searched.folder("supernet", "identity.json")).unlink()
    for stage in ("all", "supernet", "search"):
        assert "supernet/identity.json" in refused(stage=stage)


def test_shrinks_without_a_supernet(refused, searched):
    for path in searched.folder("supernet").glob("ckpt*"):
        path.unlink()
    assert "without the checkpoints" in refused()
    assert "run --stage=supernet first" in refused(stage="search")


def test_a_search_without_its_supernet(refused, searched):
    searched.folder("shrink", "alive.json").unlink()
    assert "a search without the supernet" in refused()


def test_settings_newer_than_the_run(refused, begun):
    """A run of an earlier version, which did not know a setting, can be gone on with."""
    path = begun.folder("supernet", "identity.json")
    record = json.loads(path.read_text())
    del record["supernet"]["augment"], record["images"]
    path.write_text(json.dumps(record))
    identity_of("supernet", begun).check()
    assert "supernet.epochs: was 2.0, is 3" in refused("supernet.epochs=3")


def test_identity_that_is_no_json(refused, begun):
    begun.folder("supernet", "identity.json").write_text("[1]")
    assert "holds no JSON object" in refused()
    begun.folder("supernet", "identity.json").write_text("{")
    assert "no valid JSON" in refused()


def test_the_callers_config_stays(tiny, tmp_path):
    config = load_config("neas_quickstart", [tiny])
    before = config.as_dict()
    run = open_run(config, str(tmp_path / "run"), strategy())
    assert config.as_dict() == before and run.config.space.num_classes == 10


def test_data_that_changed_between_stages(refused, tiny, tmp_path):
    image_files.folder(tmp_path / "photos")
    override = (
        f"data.source=image_folder,data.data_dir='{tmp_path}/photos',data.input_size=[16,16],"
        "data.search_fraction=0.25,search.max_macs=0,search.calibration_images=4,"
        "search.calibration_batch=4,supernet.batch_size=4,retrain.batch_size=4"
    )
    run = open_run(
        load_config("neas_quickstart", [tiny], override), str(tmp_path / "run"), strategy()
    )
    give_supernet(run)
    with run.writing():
        pass
    check_supernet(*run.inputs)
    for part in ("train", "test"):
        (tmp_path / "photos" / part / "cat").rename(tmp_path / "photos" / part / "zebra")
    for stage in ("supernet", "search"):
        text = refused(override, run.model_dir, stage)
        assert "class 0 was 'cat', is 'dog'" in text and "train/cat is gone" in text
    # A retraining has no record of its own yet, but goes on from the same data.
    assert "class 0 was" in refused(
        f"{override},retrain.architecture='s3:k3e1.k3e1.skip|.|.'", run.model_dir, "retrain"
    )
