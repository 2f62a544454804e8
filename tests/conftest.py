"""What all tests share: the folder of test data, seeds, and quiet, modest libraries."""

import functools
import gc
import os
import pathlib
import random
import shutil
import sys
import tempfile
from collections.abc import Iterator

import hypothesis
import numpy as np
import pytest

from neas_tf.common import paths

# Test modules import TensorFlow after this file. The cores are those this process may use, which
# can be fewer than the machine has.
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
CORES = max(1, CORES // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")))
for _name, _value in {
    "TF_CPP_MIN_LOG_LEVEL": "2",
    "TF_FORCE_GPU_ALLOW_GROWTH": "true",
    "TF_NUM_INTRAOP_THREADS": str(CORES),
    "TF_NUM_INTEROP_THREADS": str(CORES),
    "MPLBACKEND": "Agg",
}.items():
    os.environ.setdefault(_name, _value)

# Compiling TensorFlow's sources takes ten seconds of a core, in every process. Whoever asks for no bytecode
# beside the sources still has it kept, in a folder that `make clean` removes.
if sys.dont_write_bytecode:
    sys.pycache_prefix = paths.project_file(".pytest_cache", "bytecode")
    sys.dont_write_bytecode = False
    os.environ["PYTHONPYCACHEPREFIX"] = sys.pycache_prefix
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    # What AutoGraph and tests wrote and loaded there is not loaded a second time.
    shutil.rmtree(sys.pycache_prefix + tempfile.gettempdir(), ignore_errors=True)

# What the libraries hold stays: nothing looks through it for garbage.
gc.disable()
COLLECT_AFTER = (20_000, 20, 20)  # new objects; then younger collections before an older one

# Begun first, so that no process is left alone with one of them at the end.
LONGEST = [
    "test_tutorials",
    "test_resume",
    "test_docs",
    "test_data_pipeline",
    "test_study_run",
    "test_parity_chain",
    "test_notebook",
    "test_export_commands",
    "test_bad_data",
    "test_devices",
    "test_outputs",
    "test_export_stage",
    "test_quantizing",
    "test_fitting",
    "test_networks",
    "test_convert_torch",
    "test_starting",
    "test_fine_tuning",
    "test_supernet",
    "test_ensemble",
    "test_divergence",
    "test_evaluation",
    "test_workers",
    "test_wheel",
    "test_one_program",
    "test_exporting",
    "test_search",
    "test_data_sources",
    "test_cluster",
    "test_detection_export",
    "test_run_context",
    "test_detection_backbone",
    "test_report_html",
    "test_tasks",
    "test_page",
    "test_detection_devices",
    "test_mixed_precision",
    "test_distillation",
    "test_searchable_layer",
    "test_model_store",
    "test_data_tfds",
    "test_benchmarks_data_scale",
    "test_detection_task",
    "test_rewrites",
    "test_initial_weights",
    "test_quantized_model",
    "test_record_streams",
    "test_training_loop",
]

SEED = 20210707

# No deadline: the first example may trace a graph, and machines are shared.
hypothesis.settings.register_profile("neas", deadline=None, derandomize=True)
hypothesis.settings.load_profile("neas")


def find_shared() -> pathlib.Path | None:
    """Returns the folder with data for tests, or None.

    The first that exists of `$NEAS_SHARED`, `../shared` beside the project, and, where the project
    is a tree of links (Bazel's runfiles), `../shared` beside the folder they lead to. If
    `NEAS_SHARED` is set, nothing else is tried.
    """
    if chosen := os.environ.get("NEAS_SHARED"):
        candidates = [pathlib.Path(paths.resolve_user_path(chosen))]
    else:
        real_root = os.path.dirname(os.path.realpath(paths.project_file("pyproject.toml")))
        candidates = [
            pathlib.Path(paths.project_file()).parent / "shared",
            pathlib.Path(real_root).parent / "shared",
        ]
    return next((folder for folder in candidates if folder.is_dir()), None)


@pytest.fixture(scope="session")
def shared_dir() -> pathlib.Path:
    """The folder with data for tests; a test that asks for it skips where there is none."""
    folder = find_shared()
    if folder is None:
        pytest.skip("no data for tests: ../shared is missing or NEAS_SHARED names no folder")
    return folder


@pytest.fixture(scope="session")
def seed() -> int:
    """The seed of the whole session."""
    return SEED


@pytest.fixture
def rng(seed: int) -> np.random.Generator:
    """A generator that starts alike in every test."""
    return np.random.default_rng(seed)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files that take longest come first, the others in their order."""
    place = {f"{name}.py": i for i, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.name, len(place)))


def pytest_collection_finish() -> None:
    """The modules are loaded: collects from here on, less often than usual, and only what comes."""
    gc.freeze()
    gc.set_threshold(*COLLECT_AFTER)
    gc.enable()
    remember_annotations()


def remember_annotations() -> None:
    """Has Model Garden work out once which annotations a class of settings has.

    It does so for every setting of every configuration, a minute of the whole suite.
    """
    found = sys.modules.get("official.modeling.hyperparams.base_config")
    if found is not None:
        known = functools.cache(found.Config._get_annotations.__func__)
        found.Config._get_annotations = classmethod(lambda cls: dict(known(cls)))


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[None]:
    """Behind a file, what its networks leave goes.

    Graphs that TensorFlow never lets go of are millions of objects after some files, and every
    collection, one of which each conversion to TFLite asks for, took up to forty seconds.
    """
    yield
    if nextitem is None or nextitem.path != item.path:
        release = sys.modules.get("neas_tf.ensemble.graph_memory")
        if release is None and "tensorflow" in sys.modules:
            from neas_tf.ensemble import graph_memory as release
        if release is not None:
            release.release_graphs()
            gc.freeze()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Lets no test depend on those before it: seeds, and how much absl logs.

    A command whose `main` ran in this process may have raised the level.
    """
    absl = sys.modules.get("absl.logging")
    if absl is not None:
        absl.set_verbosity(absl.WARNING)
        absl.get_absl_logger().propagate = True
    random.seed(SEED)
    np.random.seed(SEED)  # noqa: NPY002 (libraries draw from it)
    tensorflow = sys.modules.get("tensorflow")
    if tensorflow is not None:
        tensorflow.random.set_seed(SEED)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Result and files of a small search that nothing disturbed."""
    from search_folders import contents, search

    folder = tmp_path_factory.mktemp("undisturbed")
    return search(folder), contents(folder)


@pytest.fixture
def finished(tmp_path, undisturbed):
    """A folder with the files of that search."""
    from search_folders import write

    write(tmp_path / "search", undisturbed[1])
    return tmp_path / "search"
