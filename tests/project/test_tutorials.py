"""Runs docs/tutorials/*.md: settings files are saved, bash and python blocks run in page order, small.

docs/tutorials/README.md says what is smaller here; `sh` blocks are looked at, not run.
"""

import importlib.util
import json
import pathlib
import re
import shlex
import subprocess

import pytest
import warm
import yaml
from doc_pages import BLOCK, environment

from neas_tf.common.paths import project_file
from neas_tf.cost.cost_table import CostTable
from neas_tf.space.search_space import SearchSpace
from neas_tf.space.shrunk_space import ShrunkSpace

FOLDER = pathlib.Path(project_file("docs", "tutorials"))
PAGES = sorted(path.name for path in FOLDER.glob("*.md"))
TINY = """
space:
  stages: [[8, 2, 2]]
  operators: [k3e2, k5e2, skip]
  stem_channels: 8
  min_split: 1
  max_split: 1
  head_channels: 16
  feature_channels: 16
"""
# Behind every page's own settings.
SHORT = """
supernet: {epochs: 1.0, batch_size: 256, warmup_epochs: 0.0}
shrink: {metric: none}
search: {population: 3, parents: 2, generations: 2, crossover: 1, mutation: 1,
  calibration_images: 64, calibration_batch: 64, validation_images: 64}
retrain: {epochs: 1.0, batch_size: 256, warmup_epochs: 0.0}
export: {formats: [tflite]}
"""
PHOTOS = """
data: {input_size: [32, 32]}
supernet: {epochs: 4.0, batch_size: 8}
shrink: {metric: diversity, every_epochs: 2.0, remove: 1, num_samples: 6, images: 8, batch_size: 8, min_pair_count: 1}
search: {calibration_images: 16, calibration_batch: 8, validation_images: 0}
retrain: {epochs: 6.0, batch_size: 8}
"""


def page(name: str) -> str:
    return (FOLDER / name).read_text("utf-8")


def blocks(name: str, *languages: str) -> list[tuple[str, str]]:
    return [block for block in BLOCK.findall(page(name)) if block[0] in languages]


def merged(*texts: str) -> str:
    """One settings file of several, the later ones on top."""
    result: dict = {}
    for text in texts:
        for section, values in yaml.safe_load(text).items():
            result[section] = {**result.get(section, {}), **values}
    return yaml.safe_dump(result)


class Walk:
    """A folder in which pages are run."""

    def __init__(self, folder: pathlib.Path, tiny: str):
        self.folder = folder
        (folder / "tiny.yaml").write_text(tiny)
        for name in ("export", "configs"):
            (folder / name).symlink_to(project_file(name))

    def run(self, name: str, *smaller: tuple[str, str], **variables: str) -> str:
        """Runs a page; returns what it printed.

        Args:
          name: of the page.
          smaller: (text of the page, what stands in its place); each must be there.
          variables: of the environment.
        """
        missing = [old for old, _ in smaller if old not in page(name)]
        assert not missing
        for file, code in named_settings(name):
            (self.folder / file).write_text(code)
        printed, pending = "", ""
        steps = blocks(name, "bash", "python")
        for i, (language, code) in enumerate(steps):
            pending += code
            if i + 1 < len(steps) and steps[i + 1][0] == language:
                continue
            for old, new in smaller:
                pending = pending.replace(old, new)
            script = ["bash", "-euo", "pipefail"] if language == "bash" else [warm.python()]
            done = subprocess.run(
                [*script, "-c", pending],
                cwd=self.folder,
                env=environment(**variables),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stdout[-6000:]
            printed, pending = printed + done.stdout, ""
        return printed


def named_settings(name: str) -> list[tuple[str, str]]:
    """(file, content) of the YAML blocks whose first line names a file."""
    found = [(re.match(r"# (\w+\.yaml)\n", code), code) for _, code in blocks(name, "yaml")]
    return [(match[1], code) for match, code in found if match]


def test_own_images(tmp_path):
    import image_files

    walk = Walk(tmp_path, merged(TINY, SHORT, PHOTOS))
    image_files.folder(tmp_path / "photos", per_class=16)
    (tmp_path / "photos" / "train" / "owl" / "broken.jpg").write_bytes(b"no picture")
    printed = walk.run("own_images.md", (",photos.yaml", ",photos.yaml,tiny.yaml"))
    assert "16 photos/train/cat/" in printed and "17 photos/train/owl/" in printed
    assert "1 of 49 are damaged and left out: 'photos/train/owl/broken.jpg'" in printed
    assert re.search(r"with 2 paths have [\d,]+ to [\d,]+ MACs\.\nexit code 2\n", printed)
    assert not (tmp_path / "runs" / "check" / "supernet").exists()
    # Brightness tells the classes apart, and that the settings of the page were taken.
    rights = re.findall(r"^(\w+): (\d) of 8 right$", printed, re.MULTILINE)
    results = json.loads((tmp_path / "runs/photos/retrain/results.json").read_text())
    assert [name for name, _ in rights] == ["cat", "dog", "owl"]
    assert sum(int(right) for _, right in rights) == round(24 * results["ensemble_accuracy"])
    (first, *others) = re.findall(r"^000.png: (cat|dog|owl) ([\d.]+)%$", printed, re.MULTILINE)
    assert float(first[1]) >= max(float(share) for _, share in others)
    assert results["ensemble_accuracy"] > 0.9 and first[0] == "owl"


def test_the_readme_on_sixty_pictures(tmp_path):
    """README's command and call as they stand there, with fewer passes over 60 pictures of three classes."""
    import image_files

    text = pathlib.Path(project_file("README.md")).read_text("utf-8")
    (command,) = re.findall(r"^neas search photos/ [^`\n]*", text, re.MULTILINE)
    (call,) = (
        code for kind, code in BLOCK.findall(text) if kind == "python" and "neas.search(" in code
    )
    image_files.folder(tmp_path / "photos", per_class=14)
    for name in ("cat", "dog", "owl"):
        (tmp_path / "photos" / "test" / name / "000.png").unlink()
    assert sum(path.is_file() for path in (tmp_path / "photos").rglob("*")) == 60
    few = (
        "supernet.epochs=2,supernet.warmup_epochs=0,shrink.every_epochs=1,shrink.num_samples=8,"
        "shrink.min_pair_count=1,search.generations=2,search.population=3,search.parents=2,"
        "retrain.epochs=1,retrain.warmup_epochs=0,export.formats=[tflite]"
    )
    (tmp_path / "call.py").write_text(
        call.replace('model_dir="runs/mine"', f'model_dir="runs/mine", params_override="{few}"')
    )
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", f"{command} --params_override={few}\npython call.py"],
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:]
    model_dir = tmp_path / "runs" / "mine"
    assert json.loads((model_dir / "retrain/results.json").read_text())["test_examples"] == 18
    assert len(list((model_dir / "shrink").glob("shrink_*.json"))) == 2
    # The budget of the file leaves the search a choice: it lies well inside what is attainable.
    settings = yaml.safe_load((model_dir / "params.yaml").read_text())
    table = CostTable(SearchSpace.from_dict(settings["space"]))
    low, high = table.attainable_range(ShrunkSpace.full(table.space, 2), "macs")
    share = (settings["search"]["max_macs"] - low) / (high - low)
    assert 0.2 < share < 0.8
    assert (model_dir / "export" / "model.tflite").exists()
    # The call finds everything done.
    assert "cat" in done.stdout and (tmp_path / "mine.tflite").exists()


def test_own_space(tmp_path):
    (operator,) = re.findall(
        r"^```python\n(# own_operators.py\n.*?)^```$",
        pathlib.Path(project_file("docs", "operators.md")).read_text("utf-8"),
        re.MULTILINE | re.DOTALL,
    )
    (tmp_path / "own_operators.py").write_text(operator)
    walk = Walk(tmp_path, SHORT)
    printed = walk.run(
        "own_space.md",
        ("--config_file=own_space.yaml --model_dir", "--config_file=own_space.yaml,tiny.yaml --model_dir"),
        NEAS_OPERATORS="own_operators.py",  # as the page's `export`, for the Python block too
    )  # fmt: skip
    assert "space        own: input 8×8, 10 classes" in printed
    low, high = (int(n.replace(",", "")) for n in
                 re.search(r"from ([\d,]+) to ([\d,]+) MACs", printed).groups())  # fmt: skip
    assert low < 300_000 < high
    run = tmp_path / "runs" / "own_space"
    best = json.loads((run / "retrain" / "results.json").read_text())
    assert low <= best["macs"] <= 300_000
    history = (run / "search" / "history.jsonl").read_text()
    assert "separable_k" in history
    assert (run / "export" / "model.tflite").stat().st_size > 1000


SHORTER = {
    "phone_latency.md": (
        ("neas_quickstart", "neas_quickstart --config_file=tiny.yaml"),
        ("--rounds=20 --repetitions=10 --fit=10 --validate=16", "--rounds=2 --repetitions=2 --fit=2 --validate=1"),
        ("max_latency_ms=0.015", "max_latency_ms=1"),  # a slow machine must pass
        ("--evaluate=360", "--evaluate=16"),
        ("rounds=20", "rounds=2"),
    ),
    "checkpoint_to_phone.md": (
        ("--arch=neas_s", "--arch=arch.json --input_size=32"),
        ("--evaluate=360", "--evaluate=16"),
        ("--fine_tune_epochs=20", "--fine_tune_epochs=1"),
        ("rounds=20", "rounds=2"),
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def phone(tmp_path_factory) -> tuple[pathlib.Path, str]:
    """The folder of phone_latency.md with its run, that two pages share, and what was printed."""
    walk = Walk(tmp_path_factory.mktemp("phone"), merged(TINY, SHORT))
    return walk, walk.run("phone_latency.md", *SHORTER["phone_latency.md"])


def test_phone_latency(phone):
    walk, printed = phone
    run = walk.folder / "runs" / "digits"
    lines = [json.loads(line) for line in (run / "search/history.jsonl").read_text().splitlines()]
    assert lines and all(0 < line["latency_ns"] <= 1_000_000 for line in lines)
    table = json.loads((run / "search" / "latency_table.json").read_text())
    assert table["quantize"] == "int8" and len(table["validation"]["ensembles"]) == 1
    predicted, measured = re.search(
        r"predicted ([\d.]+) ms, measured ([\d.]+) ms", printed
    ).groups()
    # Both are of the same network on the same machine; how near they are is not for a busy one.
    assert 0.1 < float(measured) / float(predicted) < 10


def test_checkpoint_to_phone(phone, monkeypatch):
    import torch_checkpoints
    from small_ensembles import randomise

    from neas_tf.commands import convert_torch
    from neas_tf.common.files import write_json_atomic
    from neas_tf.common.normalisation import Normalisation
    from neas_tf.ensemble.model import build_ensemble
    from neas_tf.ensemble.store import LoadedInfo
    from neas_tf.space.architecture import Architecture
    from neas_tf.space.search_space import SearchSpace

    walk, _ = phone
    space = SearchSpace.from_dict({"input_size": 32})
    row = ["k3e4", "skip", "skip", "skip"] * 5
    shared, other = row[:16], ["k5e4", *row[17:]]
    architecture = Architecture(16, (tuple(row), tuple(shared + other)))
    write_json_atomic(walk.folder / "arch.json", architecture.to_dict())
    model = build_ensemble(architecture, space)
    randomise(model, 0)
    state = torch_checkpoints.state_dict(model, architecture, space)
    smaller = SHORTER["checkpoint_to_phone.md"]
    if importlib.util.find_spec("torch"):
        torch_checkpoints.write(walk.folder / "314.pth.tar", {"state_dict": state})
    else:  # all but the reading of the file
        monkeypatch.setattr(convert_torch, "load_checkpoint", {"x": {"state_dict": state}}.get)
        labels = tuple(map(str, range(1000)))
        info = LoadedInfo(architecture, space, labels, Normalisation())
        convert_torch.convert("x", walk.folder / "runs" / "neas_s", info)
        command = "python -m neas_tf.convert_torch --arch=neas_s --torch_checkpoint=314.pth.tar"
        smaller = ((f"{command} --output=runs/neas_s\n", "\n"), *smaller[1:])

    printed = walk.run("checkpoint_to_phone.md", *smaller)
    converted = json.loads((walk.folder / "neas_s_float16.tflite.json").read_text())
    assert converted["architecture"] == architecture.key
    assert len(converted["class_names"]) == 1000
    pruned = json.loads((walk.folder / "digits_pruned_int8.tflite.json").read_text())
    assert pruned["gzip_bytes"] and pruned["inputs"][0]["dtype"] == "uint8"
    lines = dict(
        re.findall(r"^(\w+): [\d,]+ bytes, [\d.]+%, [\d.]+ ms, takes (\w+) ", printed, re.M)
    )
    assert lines == {"float16": "float32", "int8": "float32", "pruned_int8": "uint8"}


def test_settings_of_the_pods_page_load(tmp_path):
    from neas_tf.config.parse import load_config

    ((file, code),) = named_settings("pods.md")
    (tmp_path / file).write_text(code)
    config = load_config("neas_imagenet", [str(tmp_path / file)])
    config.data.check()
    assert config.runtime.mixed_precision_dtype == "bfloat16"
    assert config.search.max_macs == 300_000_000


def sh_commands(module: str) -> list:
    """(page, arguments) of each such command in a `sh` block of a page."""
    found = []
    for name in PAGES:
        for _, code in blocks(name, "sh"):
            for line in code.replace("\\\n", " ").splitlines():
                if line.startswith(f"python -m {module} "):
                    found.append(
                        pytest.param(name, shlex.split(line)[3:], id=f"{name}-{len(found)}")
                    )
    return found


@pytest.mark.parametrize(
    "module, name, arguments",
    [
        pytest.param(module, *case.values, id=f"{module}-{case.id}")
        for module in ("neas_tf.train", "neas_tf.measure_latency")
        for case in sh_commands(module)
    ],
)
def test_flags_and_keys_of_commands_that_are_not_run_exist(module, name, arguments):
    from neas_tf.config.parse import load_config

    source = pathlib.Path(importlib.util.find_spec(module).origin).read_text("utf-8")
    given = dict(argument.removeprefix("--").split("=", 1) for argument in arguments)
    known = set(re.findall(r"(?:DEFINE_\w+| text| number)\(\s*\"(\w+)\"", source))
    assert set(given) <= known
    if override := given.get("params_override"):
        config = load_config(given.get("experiment", "neas_imagenet"), params_override=override)
        if name == "pods.md":
            assert (
                f"distribution_strategy={config.runtime.distribution_strategy}," in f"{override},"
            )


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_to_files(name):
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page(name)):
        assert (FOLDER / target).exists(), target


def test_every_page_is_in_the_lists():
    for text in (
        page("README.md"),
        pathlib.Path(project_file("README.md")).read_text("utf-8"),
        pathlib.Path(project_file("docs", "quickstart.md")).read_text("utf-8"),
    ):
        assert not [name for name in PAGES if f"{name})" not in text and name != "README.md"]
