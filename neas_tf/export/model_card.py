"""The model card of a run's exports: `README.md` in the form that Hugging Face's hub reads."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from neas_tf.common.yaml_text import dump_yaml
from neas_tf.ensemble.store import LoadedInfo

FILE = "README.md"
_MOST_CLASSES = 20  # that are named
_FORMS = {
    "none": "float32",
    "float16": "weights as float16",
    "dynamic": "weights as int8",
    "int8": "int8",
    "int8_qat": "int8, trained with quantization",
}


def model_card(
    info: LoadedInfo,
    data: str,
    sizes: Mapping[str, int],
    results: Mapping[str, Any],
    reports: Sequence[Mapping[str, Any]],
) -> str:
    """The card as Markdown with its metadata as YAML in front.

    Args:
      info: what the model is.
      data: name of the data set.
      sizes: images by part, `train` and `test`.
      results: of the test (`retrain/results.json`); {} where there was none.
      reports: of the exports, one each.
    """
    accuracy = results.get("ensemble_accuracy")
    metadata: dict[str, Any] = {
        "library_name": "keras",
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", "neural-architecture-search", "ensemble", "litert"],
    }
    if accuracy is not None:
        metric = {"type": "accuracy", "value": accuracy, "name": "Test accuracy of the ensemble"}
        metadata["model-index"] = [
            {
                "name": f"{data} ensemble",
                "results": [
                    {
                        "task": {"type": "image-classification"},
                        "dataset": {"name": data, "type": data},
                        "metrics": [metric],
                    }
                ],
            }
        ]
    parts = (
        _what(info, data),
        _files(reports),
        _accuracy(results, reports),
        _use(info, reports),
        _origin(info, data, sizes, results),
    )
    return f"---\n{dump_yaml(metadata)}---\n\n" + "\n\n".join(filter(None, parts)) + "\n"


def _what(info: LoadedInfo, data: str) -> str:
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
        f"# {data}: image classification\n\n"
        f"Tells {len(names)} classes apart in images of {height}×{width} pixels: {named}. It is "
        f"{ensemble}, found by one-shot neural ensemble architecture search (NEAS, CVPR 2021). The "
        f"answer is the mean of the paths' logits.\n\nArchitecture: `{architecture.key}`"
    )


def _files(reports: Sequence[Mapping[str, Any]]) -> str:
    if not reports:
        return ""
    lines = ["## Files", "", "| file | form | kB | MACs | parameters |", "|---|---|---|---|---|"]
    for report in reports:
        form = _FORMS.get(report.get("quantize", "none"), report.get("quantize", ""))
        lines.append(
            f"| `{report['file']}` | {report['kind']}, {form} | {report['bytes'] / 1e3:,.0f} "
            f"| {report['macs']:,} | {report['params']:,} |"
        )
    return "\n".join(lines)


def _accuracy(results: Mapping[str, Any], reports: Sequence[Mapping[str, Any]]) -> str:
    if "ensemble_accuracy" not in results:
        return "## Accuracy\n\nNot tested."
    count, accuracy = results["test_examples"], results["ensemble_accuracy"]
    error = 100 * math.sqrt(accuracy * (1 - accuracy) / count)
    each = ", ".join(f"{value:.2%}" for value in results["path_accuracies"])
    text = (
        f"## Accuracy\n\n{accuracy:.2%} of {count:,} test images that nothing was chosen by "
        f"(standard error {error:.2f} points); the paths alone: {each}."
    )
    for report in reports:
        after = (report.get("accuracy") or {}).get("exported")
        if after is not None:
            text += f" `{report['file']}`: {after:.2%}."
    return text


def _use(info: LoadedInfo, reports: Sequence[Mapping[str, Any]]) -> str:
    file = next((r["file"] for r in reports if r["kind"] == "tflite"), None)
    height, width = info.space.input_size
    shape = (height, width, info.space.input_channels)
    text = (
        f"## Use\n\nInput: pixels of 0..255, float32 (1, {', '.join(map(str, shape))}); the "
        "normalisation is inside. Output: `logits` and, but for int8, `probabilities`."
    )
    if file is None:
        return text
    return (
        f"{text}\n\n```python\nimport numpy as np\nfrom ai_edge_litert.interpreter import Interpreter"
        f'\n\ninterpreter = Interpreter("{file}")\nrunner = interpreter.get_signature_runner()\n'
        f"image = np.zeros((1, {', '.join(map(str, shape))}), np.float32)\n"
        f'logits = runner(image=image)["logits"]\n```'
    )


def _origin(
    info: LoadedInfo, data: str, sizes: Mapping[str, int], results: Mapping[str, Any]
) -> str:
    versions = ", ".join(f"{name} {value}" for name, value in sorted(info.versions.items()))
    return (
        f"## Training\n\nTrained on {sizes.get('train', 0):,} images of {data}. The network knows no "
        "“none of these”: every image gets one of its classes. What the licence of the images "
        f"demands of the model is for its owner to say.\n\nMade with {versions}."
    )
