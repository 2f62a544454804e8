"""The model card of a folder of exports: `README.md` in the form that Hugging Face's hub reads."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from neas_tf.common.files import read_json, told, write_text_atomic
from neas_tf.common.yaml_text import dump_yaml
from neas_tf.ensemble.model import PATH_LOGITS
from neas_tf.ensemble.store import LoadedInfo
from neas_tf.export.artifacts import read_report
from neas_tf.export.tflite.outputs import DISAGREEMENT

FILE = "README.md"
_MOST_CLASSES = 20  # that are named
_MOST_BYTES = 1 << 20  # of a card
_ENDINGS = (".tflite", ".keras", ".weights.h5")
_FORMS = {
    "none": "float32",
    "float16": "weights as float16",
    "dynamic": "weights as int8",
    "int8": "int8",
    "int8_qat": "int8, trained with quantization",
}
_LIBRARIES = {"keras": "keras", "tflite": "litert", "saved_model": "tensorflow"}
# Ends a card: whoever changes a letter before it keeps what they wrote.
_MARK = "<!-- neas-card/1, written again with every export while it is as it was: sha256 {} -->\n"


def write_card(
    folder: Path,
    info: LoadedInfo,
    weights: str,
    model_dir: Path | None = None,
    outputs: Sequence[Path] = (),
) -> str:
    """Writes the card of the exports in a folder, and touches nothing that somebody else has written.

    Where `README.md` is somebody else's, such as a project's, `outputs` get cards of their own,
    `model.README.md` for `model.tflite` and `model.keras`. A card of ours that somebody has edited stays as it is.

    Args:
      folder: of the exports; those of other weights are not told of.
      info: what the model is.
      weights: digest of its weights, as the reports have it.
      model_dir: of the run that trained it, whose figures the card has; None where it is unknown.
      outputs: the exports in it that were just made.

    Returns:
      The card's path, or a sentence that says what stays as it is.
    """
    reports = {
        report["file"]: report
        for path in sorted(folder.glob("*.labels.txt"))
        if (report := read_report(path.with_name(path.name.removesuffix(".labels.txt"))))
        and report.get("weights") == weights
    }
    run = _run(model_dir) if model_dir else ({}, {})
    path = folder / FILE
    if _is_untouched(path) or _is_edited(path) or not outputs:
        return _write(path, model_card(info, list(reports.values()), *run))
    cards = []
    for name in dict.fromkeys(_own_card(output.name) for output in outputs):
        of_it = [report for file, report in reports.items() if _own_card(file) == name]
        cards.append(_write(folder / name, model_card(info, of_it, *run)))
    return f"{', '.join(cards)} ({path} is somebody else's and stays)"


def _own_card(file: str) -> str:
    """The name of an export's card where README.md is somebody else's."""
    stem = next((file.removesuffix(e) for e in _ENDINGS if file.endswith(e)), "")
    return f"{stem or file}.{FILE}"


def _write(path: Path, card: str) -> str:
    """Writes a card where there is none, or ours as it was; returns its path, or that it stays."""
    if not _is_untouched(path):
        return (
            f"{path} is not as an export left it and stays; removed, it is written with the next."
        )
    with told(f"model card {str(path)!r}"):
        write_text_atomic(path, card + _MARK.format(_digest(card)))
    return str(path)


def _run(model_dir: Path) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """What a run knows of its data and of its test; {} of what it does not."""
    found = []
    for path in (model_dir / "data.json", model_dir / "retrain" / "results.json"):
        value = read_json(path, path.stem) if path.is_file() else {}
        found.append(value if isinstance(value, Mapping) else {})
    return found[0], found[1]


def _is_untouched(path: Path) -> bool:
    """Whether there is no card, or one that nobody has changed since it was written here."""
    if not path.exists() and not path.is_symlink():
        return True
    text = _text(path)
    card = text[: text.rfind("\n", 0, -1) + 1]
    return text == card + _MARK.format(_digest(card))


def _is_edited(path: Path) -> bool:
    """Whether it is a card of ours that somebody has changed."""
    return _MARK[: _MARK.index("/")] in _text(path)


def _text(path: Path) -> str:
    """What a file says; '' for a link, for what is no file or no text, and for more than a card holds."""
    if path.is_symlink() or not path.is_file() or path.stat().st_size > _MOST_BYTES:
        return ""
    try:
        return path.read_bytes().decode()
    except (OSError, UnicodeDecodeError):
        return ""


def _digest(card: str) -> str:
    return hashlib.sha256(card.encode()).hexdigest()


def model_card(
    info: LoadedInfo,
    reports: Sequence[Mapping[str, Any]],
    data: Mapping[str, Any],
    results: Mapping[str, Any],
) -> str:
    """The card as Markdown with its metadata as YAML in front.

    Args:
      info: what the model is.
      reports: of the exports, one each.
      data: that it was trained on (`data.json` of a run); {} where that is unknown.
      results: of the test (`retrain/results.json`); {} where there was none.
    """
    name = str(data.get("name") or info.architecture.name or "ensemble")
    kinds = [report["kind"] for report in reports]
    kind = next((kind for kind in _LIBRARIES if kind in kinds), "keras")
    metadata: dict[str, Any] = {
        "license": "unknown",
        "library_name": _LIBRARIES[kind],
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", "neural-architecture-search", "ensemble", "neas"],
    }
    if metrics := _metrics(reports, results):
        task = {"type": "image-classification"}
        dataset = {"name": name, "type": name}
        entry = {"task": task, "dataset": dataset, "metrics": metrics}
        metadata |= {
            "metrics": ["accuracy"],
            "model-index": [{"name": f"{name} ensemble", "results": [entry]}],
        }
    parts = (
        _what(info, name),
        _files(reports),
        _accuracy(results, reports),
        _use(info, reports),
        _origin(info, data, reports),
    )
    return f"---\n{dump_yaml(metadata)}---\n\n" + "\n\n".join(filter(None, parts)) + "\n"


def _tested(report: Mapping[str, Any]) -> tuple[float, int] | None:
    """Accuracy of an exported file and the number of images, where it was measured."""
    found = report.get("accuracy") or {}
    return (found["exported"], found["examples"]) if "exported" in found else None


def _metrics(
    reports: Sequence[Mapping[str, Any]], results: Mapping[str, Any]
) -> list[dict[str, Any]]:
    tests = {}
    if "ensemble_accuracy" in results:
        tests["the trained ensemble"] = results["ensemble_accuracy"], results["test_examples"]
    tests |= {f"`{r['file']}`": found for r in reports if (found := _tested(r))}
    return [
        {"type": "accuracy", "value": value, "name": f"Accuracy of {what}, {count} test images"}
        for what, (value, count) in tests.items()
    ]


def _what(info: LoadedInfo, name: str) -> str:
    architecture, space = info.architecture, info.space
    paths, split = architecture.num_paths, architecture.split_point
    height, width = space.input_size
    names = info.class_names
    named = ", ".join(names[:_MOST_CLASSES]) + ", …" * (len(names) > _MOST_CLASSES)
    shared = f"which share their first {split} of {space.num_layers} layers"
    ensemble = (
        f"an ensemble of {paths} convolutional networks, {shared}" if paths > 1 else "one network"
    )
    return (
        f"# {name}: image classification\n\n"
        f"Tells {len(names)} classes apart in images of {height}×{width} pixels: {named}. It is "
        f"{ensemble}, found by one-shot neural ensemble architecture search (NEAS, CVPR 2021). The "
        f"answer is the mean of the paths' logits.\n\nArchitecture: `{architecture.key}`"
    )


def _files(reports: Sequence[Mapping[str, Any]]) -> str:
    if not reports:
        return ""
    lines = [
        "## Files",
        "",
        "| file | form | kB | MACs | parameters | accuracy |",
        "|---|---|---|---|---|---|",
    ]
    for report in reports:
        form = _FORMS.get(report.get("quantize", "none"), report.get("quantize", ""))
        if zeros := report.get("pruning"):
            form += f", {zeros['pruned_layers']:.0%} of the pruned kernels are zeros"
        tested = _tested(report)
        lines.append(
            f"| `{report['file']}` | {report['kind']}, {form} | {report['bytes'] / 1e3:,.0f} "
            f"| {report['macs']:,} | {report['params']:,} "
            f"| {f'{tested[0]:.2%} of {tested[1]:,}' if tested else 'not measured'} |"
        )
    return "\n".join(lines)


def _accuracy(results: Mapping[str, Any], reports: Sequence[Mapping[str, Any]]) -> str:
    if "ensemble_accuracy" not in results:
        return "## Accuracy\n\nThe trained ensemble: not tested, or its test is not known here."
    count, accuracy = results["test_examples"], results["ensemble_accuracy"]
    error = 100 * math.sqrt(accuracy * (1 - accuracy) / count)
    each = ", ".join(f"{value:.2%}" for value in results["path_accuracies"])
    return (
        f"## Accuracy\n\n{accuracy:.2%} of {count:,} test images that nothing was chosen by "
        f"(standard error {error:.2f} points); the paths alone: {each}."
    )


def _use(info: LoadedInfo, reports: Sequence[Mapping[str, Any]]) -> str:
    height, width = info.space.input_size
    shape = f"{height}, {width}, {info.space.input_channels}"
    text = (
        f"## Use\n\nInput: pixels of 0..255 as they are, (batch, {shape}), 1 image at a time in "
        "TFLite; the normalisation is inside. Output: `logits` and, but for int8, `probabilities`, "
        "in the order of the classes in `….labels.txt`."
    )
    for name, meaning in _MORE.items():
        files = [f"`{r['file']}`" for r in reports if name in _output_names(r)]
        if files:
            text += f" `{name}` of {', '.join(files)}: {meaning}."
    for kind in dict.fromkeys(report["kind"] for report in reports):
        report = next(r for r in reports if r["kind"] == kind)
        image = f"np.zeros((1, {shape}), np.{report['inputs'][0]['dtype']})"
        lines = _CODE["weights" if report.get("form") == "trainable" else kind]
        code = "\n".join(lines).format(file=report["file"], image=image)
        text += f"\n\n```python\n{code}\n```"
    return text


_CODE = {
    "tflite": (
        "import numpy as np",
        "from ai_edge_litert.interpreter import Interpreter",
        "",
        'runner = Interpreter("{file}").get_signature_runner()',
        'logits = runner(image={image})["logits"]',
    ),
    "saved_model": (
        "import numpy as np",
        "import tensorflow as tf",
        "",
        'model = tf.saved_model.load("{file}")',
        'logits = model.signatures["serving_default"](image=tf.constant({image}))["logits"]',
    ),
    "keras": (
        "import keras",
        "import numpy as np",
        "",
        'model = keras.saving.load_model("{file}", compile=False)',
        'logits = model.predict({image})["logits"]',
    ),
    "weights": (
        "import neas_tf as neas",
        "",
        "# architecture and space: of the run; the input is normalised before",
        "model = neas.build_ensemble(architecture, space, keras=keras)",
        'model.load_weights("{file}")',
    ),
}


_MORE = {
    DISAGREEMENT: "how far the paths are apart, in nats, 0 where they agree",
    PATH_LOGITS: "the logits of each path",
}


def _output_names(report: Mapping[str, Any]) -> list[str]:
    return [output.get("name", "") for output in report.get("outputs") or ()]


def _calibration(reports: Sequence[Mapping[str, Any]]) -> str:
    """Which of the files have a temperature inside."""
    heated = [report for report in reports if report.get("temperature")]
    if not heated:
        return "Its probabilities are not calibrated."
    files = ", ".join(f"`{report['file']}`" for report in heated)
    rest = " Those of the others are not." * (len(heated) < len(reports))
    return (
        f"The probabilities of {files} are calibrated: the logits are divided by "
        f"{heated[0]['temperature']:.4g}, fitted on held-out images.{rest}"
    )


def _origin(info: LoadedInfo, data: Mapping[str, Any], reports: Sequence[Mapping[str, Any]]) -> str:
    sizes = data.get("sizes") or {}
    trained = "What it was trained on is not known here."
    if sizes:
        judged = f"{sizes.get('search', 0):,} validation images"
        if data.get("search_judged_by") != "validation images":
            judged = f"{sizes.get('search', 0):,} of them, held out"
        trained = (
            f"Trained on {sizes.get('train', 0):,} images of {data['name']}; the architecture was "
            f"chosen by {judged}."
        )
    versions = ", ".join(f"{name} {value}" for name, value in sorted(info.versions.items()))
    return (
        f"## Training\n\n{trained}\n\n## Limits\n\nThe network knows no “none of these”: every image "
        f"gets one of its classes. {_calibration(reports)} Pictures of another kind "
        "than those it was trained on were not tried. What the licences of images and weights "
        "demand is for their owner to say, as `license` in front of this file."
        + f"\n\nMade with {versions}."
        * bool(versions)
    )
