"""Writes the tables of docs/configuration.md from the dataclasses and their docstrings.

    python docs/make_configuration.py

What stands between the two marks of a table is replaced; the rest of the page stays.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

PAGE = Path(__file__).resolve().parent / "configuration.md"
_MARKS = re.compile(r"(<!-- generated: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
# Model Garden's own keys that this project reads, in its words.
_RUNTIME = {
    "distribution_strategy": "`one_device`, `mirrored`, `multi_worker_mirrored`, `tpu` or `off`",
    "num_gpus": "GPUs in use; `mirrored` without any takes all logical CPU devices",
    "mixed_precision_dtype": "`float32`, `bfloat16` or `float16`; null is float32",
    "loss_scale": "for float16: null, `dynamic` or a number",
    "tpu": "address of the TPU",
    "worker_hosts": "workers as `ip:port`, with commas, for `multi_worker_mirrored`",
    "task_index": "number of this worker",
    "all_reduce_alg": "how gradients are summed, see `tf.distribute`",
    "num_packs": "in how many packs they are",
    "enable_xla": "XLA compiles the steps, the measurements of a shrink and the search: one program each for all draws; with GPUs or one device",
}
_TRAINER = {
    "train_steps": "0 takes the stage's `epochs`",
    "steps_per_loop": "steps between two looks of the host; 0 takes half an epoch, at most 100",
    "summary_interval": "steps between TensorBoard entries; 0 takes `steps_per_loop`",
    "checkpoint_interval": "steps between checkpoints; 0 takes an epoch",
    "max_to_keep": "checkpoints kept",
    "train_tf_function": "traces the training step",
    "train_tf_while_loop": "puts the loop of steps into the graph as well",
    "optimizer_config": "see the optimizer below",
}
_SECTIONS = ("workers", "shrink", "search", "export")
_DULL = {"name", "clipnorm", "clipvalue", "global_clipnorm", "offset"}


def attributes(cls: type) -> dict[str, str]:
    """The `Attributes:` of a class's docstring and of its bases', as one line each."""
    result: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        text = inspect.cleandoc(base.__dict__.get("__doc__") or "")
        _, found, body = text.partition("Attributes:\n")
        for entry in re.split(r"\n(?=  \w)", body) if found else ():
            names, _, meaning = entry.strip().partition(": ")
            for name in names.split(", "):
                result[name] = " ".join(meaning.split())
    return result


def shown(value: Any) -> str:
    """A default as it is written in YAML."""
    text = yaml.safe_dump(_plain(value), default_flow_style=True, width=10_000).strip()
    return f"`{text.removesuffix('...').strip()}`"


def rows(prefix: str, config: Any, meanings: dict[str, str], skip: tuple = ()) -> Iterator[str]:
    """A table of the keys of one section."""
    yield "| key | default | meaning |"
    yield "|---|---|---|"
    for field in dataclasses.fields(config):
        if field.name in skip:
            continue
        if field.name not in meanings:
            raise SystemExit(f"{prefix}{field.name} has no meaning in a docstring.")
        meaning = meanings[field.name].replace("|", "\\|").rstrip(".")
        value = "" if field.name == "optimizer_config" else shown(getattr(config, field.name))
        yield f"| `{prefix}{field.name}` | {value} | {meaning} |"


def tables() -> dict[str, list[str]]:
    """The generated parts of the page, by the names of their marks."""
    from neas_tf.config.settings import NeasConfig, SpaceConfig
    from neas_tf.space.search_space import SearchSpace

    config = NeasConfig()
    top = attributes(NeasConfig)
    space = (
        attributes(SearchSpace)
        | attributes(SpaceConfig)
        | {
            "name": "for people",
            "input_size": "pixels, one number or [height, width]; empty takes the data's",
            "input_channels": "0 takes the data's",
            "num_classes": "0 takes the data's",
            "stages": "{channels, layers, stride} or [channels, layers, stride] each; the stride is "
            "that of the first layer; a mapping may narrow the choice with `operators`",
            "stem_channels": "of the first convolution",
            "stem_kernel": "of the first convolution",
            "stem_stride": "of the first convolution",
            "block_channels": "of the fixed depthwise-separable layer; 0 leaves it out",
            "block_stride": "of the fixed depthwise-separable layer",
            "min_split": "smallest split point s; layers 1..s are shared",
            "max_split": "largest split point",
        }
    )
    result = {
        "top": list(rows("", config, top, tuple(f.name for f in dataclasses.fields(config))[4:])),
        "runtime": _garden("runtime.", config.runtime, _RUNTIME),
        "space": list(rows("space.", config.space, space)),
        "data": list(rows("data.", config.data, attributes(type(config.data)))),
        "trainer": _garden("trainer.", config.supernet.trainer, _TRAINER),
    }
    for name in _SECTIONS:
        section = getattr(config, name)
        result[name] = list(rows(f"{name}.", section, attributes(type(section))))
    for name in ("supernet", "retrain"):
        section = getattr(config, name)
        table = list(rows(f"{name}.", section, attributes(type(section)), ("trainer",)))
        optimizer = _without_dull(section.trainer)["optimizer_config"]
        text = _yaml({name: {"trainer": {"optimizer_config": optimizer}}})
        result[name] = [*table, "", "```yaml", *text, "```"]
    return result


class _Dumper(yaml.SafeDumper):
    """YAML with lists in one line."""


_Dumper.add_representer(
    list, lambda dumper, value: dumper.represent_sequence("tag:yaml.org,2002:seq", value, True)
)


def _yaml(value: Any) -> list[str]:
    text = yaml.dump(value, Dumper=_Dumper, sort_keys=False, width=90)
    return text.strip().splitlines()


def _without_dull(config: Any) -> Any:
    """A config as plain data, without the optimizer's keys that only name or clip."""
    value = _plain(config)

    def cleaned(value: Any, inside: bool) -> Any:
        if not isinstance(value, dict):
            return value
        return {
            k: cleaned(v, inside or k == "optimizer_config")
            for k, v in value.items()
            if not (inside and k in _DULL)
        }

    return cleaned(value, False)


def _garden(prefix: str, config: Any, meanings: dict[str, str]) -> list[str]:
    fields = {field.name: field for field in dataclasses.fields(config)}
    unknown = set(meanings) - set(fields)
    if unknown:
        raise SystemExit(f"Model Garden has no {sorted(unknown)} any more.")
    lines = ["| key | default | meaning |", "|---|---|---|"]
    for name, meaning in meanings.items():
        value = "" if name == "optimizer_config" else shown(getattr(config, name))
        lines.append(f"| `{prefix}{name}` | {value} | {meaning} |")
    rest = ", ".join(f"`{name}`" for name in fields if name not in meanings)
    return [
        *lines,
        "",
        f"Model Garden has more keys, which this project leaves at their defaults: {rest}.",
    ]


def _plain(value: Any) -> Any:
    if hasattr(value, "as_dict"):
        value = value.as_dict()
    if isinstance(value, dict):
        # A stage that does not narrow the operators does not mention them.
        return {str(k): _plain(v) for k, v in value.items() if (k, v) != ("operators", [])}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return value


def updated(page: str) -> str:
    """The page with its tables made again."""
    made = tables()
    marks = {name for _, name, _ in _MARKS.findall(page)}
    if marks != set(made):
        raise SystemExit(f"Marks of the page and tables differ: {sorted(marks ^ set(made))}.")
    return _MARKS.sub(lambda m: m[1] + "\n".join(made[m[2]]) + "\n" + m[3], page)


if __name__ == "__main__":
    PAGE.write_text(updated(PAGE.read_text("utf-8")), "utf-8")
