"""Says whether a search can run here, with what, and what is missing.

python -m neas_tf.commands.doctor --json

TensorFlow is loaded in a process of its own, as a broken one may end the process that loads it.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
import shlex
import shutil
import signal
import subprocess
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

import neas_tf
from neas_tf.common import command_line, console, keras_settings

if TYPE_CHECKING:
    from packaging.requirements import Requirement

FORMAT = "neas-doctor/1"
PROJECT = "neas-tf"
_PATIENCE = 300.0  # seconds for TensorFlow to load; cold disks take one or two minutes
_MARK = "neas-doctor:"  # begins the lines that are ours in what the process printed
_ONE_GB = 1 << 30
_SHOWN = ("tensorflow", "keras", "tf-keras", "tf-models-official", "ai-edge-litert", "numpy")
# Distributions that others stand in for, such as tensorflow-cpu: their module tells.
_MODULES = {"tensorflow": "tensorflow", "opencv-python-headless": "cv2"}
# Extras of no use to a search: they are for who works on the project.
_FOR_DEVELOPERS = ("dev", "docs")
_LOST = re.compile(r"Could not load dynamic library '([^']+)'")
_PROBE = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from neas_tf.commands import doctor
doctor.probe()
"""


def examine() -> dict[str, Any]:
    """Looks at the installation and the machine; takes as long as TensorFlow takes to load.

    Returns:
      What `--json` prints (docs/install.md): `can_search`, `problems` (what prevents a search, each with
      `cause` and `remedy`), `notes` (what does not), `versions` by distribution (None where it is
      missing), `python`, `platform`, `devices`, `extras`, `keras_overridden` and `disk`.
    """
    problems = list(_unmet())
    loaded = _load()
    if loaded["fault"]:
        problems.append({"cause": loaded["fault"], "remedy": loaded["remedy"]})
    devices = _machine() | {
        "tensorflow": loaded.get("devices", []),
        "cuda_build": loaded.get("cuda"),
        "missing_libraries": loaded["missing"],
    }
    disk = {"folder": os.getcwd(), "free": shutil.disk_usage(".").free}
    return {
        "format": FORMAT,
        "can_search": not problems,
        "problems": problems,
        "notes": _notes(devices, disk),
        "versions": {PROJECT: neas_tf.__version__, **_versions()},
        "python": {"version": platform.python_version(), "executable": sys.executable},
        "platform": platform.platform(),
        "devices": devices,
        "extras": _extras(),
        "keras_overridden": keras_settings.overridden(),
        "disk": disk,
    }


def _requirements(name: str, extra: str = "") -> Iterator[Requirement]:
    """What an installed distribution requires here, or only what one of its extras adds."""
    from packaging.requirements import Requirement

    for text in importlib.metadata.requires(name) or []:
        requirement = Requirement(text)
        marker = requirement.marker
        base = marker is None or marker.evaluate({"extra": ""})
        if base != bool(extra) and (base or marker is None or marker.evaluate({"extra": extra})):
            yield requirement


def _version(name: str) -> str | None:
    """Of a distribution or of one that stands in for it; None where there is neither."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        module = _MODULES.get(name)
    if module is None:
        return None
    others = importlib.metadata.packages_distributions().get(module, [])
    return importlib.metadata.version(others[0]) if others else None


def _versions() -> dict[str, str | None]:
    try:
        names = [requirement.name for requirement in _requirements(PROJECT)]
    except ImportError:  # no metadata, or no packaging to read them
        names = list(_SHOWN)
    return {name: _version(name) for name in names}


def _unmet() -> Iterator[dict[str, str]]:
    """What this package's own metadata ask for and is not there."""
    if not _version(PROJECT):
        return  # `_notes` tells
    try:
        from packaging.specifiers import SpecifierSet

        metadata = importlib.metadata.metadata(PROJECT).json
        wanted = SpecifierSet(str(metadata.get("requires_python", "")))
        if not wanted.contains(platform.python_version(), prereleases=True):
            cause = f"Python {platform.python_version()} is running, expected {wanted}"
            yield {"cause": cause, "remedy": "make an environment of such a Python"}
        for requirement in _requirements(PROJECT):
            if cause := _fault(requirement):
                yield {"cause": cause, "remedy": f"pip install {_quoted(requirement)}"}
    except ImportError:
        yield {"cause": "packaging is not installed", "remedy": "pip install packaging"}


def _fault(requirement: Requirement) -> str:
    """What is wrong with the installed version; "" where nothing is."""
    wanted = requirement.specifier
    if (found := _version(requirement.name)) is None:
        return f"{requirement.name} is not installed, expected {wanted or 'any version'}"
    if not wanted.contains(found, prereleases=True):
        return f"{requirement.name} {found} is installed, expected {wanted}"
    return ""


def _quoted(requirement: Requirement) -> str:
    return shlex.quote(f"{requirement.name}{requirement.specifier}")


def _extras() -> dict[str, dict[str, Any]]:
    """By extra: what it would add, as `missing`, and the line that installs it."""
    result = {}
    try:
        for extra in importlib.metadata.metadata(PROJECT).get_all("Provides-Extra") or []:
            if extra not in _FOR_DEVELOPERS:
                missing = sorted(set(_missing(PROJECT, extra)))
                result[extra] = {"missing": missing, "install": f"pip install '{PROJECT}[{extra}]'"}
    except ImportError:
        pass  # `_unmet` or `_notes` tells
    return result


def _missing(name: str, extra: str) -> Iterator[str]:
    for requirement in _requirements(name, extra):
        if fault := _fault(requirement):
            yield fault
        else:
            for inner in requirement.extras:
                yield from _missing(requirement.name, inner)


def _load() -> dict[str, Any]:
    """What a process found that loaded what a search needs: `fault` ("" for none) and more."""
    environment = {
        **os.environ,
        "TF_CPP_MIN_LOG_LEVEL": "0",
        "TF_CPP_VMODULE": "dso_loader=1",  # TensorFlow names the libraries that it does not find
        "TF_FORCE_GPU_ALLOW_GROWTH": "true",
    }
    command = [sys.executable, "-c", _PROBE, json.dumps(sys.path)]
    found: dict[str, Any] = {"fault": "", "remedy": "", "missing": []}
    try:
        done = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_PATIENCE,
            check=False,
        )
    except subprocess.TimeoutExpired:
        fault = f"TensorFlow was not loaded after {_PATIENCE:.0f} s"
        return found | {"fault": fault, "remedy": "try again: a first start reads 2 GB from disk"}
    for line in done.stdout.decode("utf-8", "replace").splitlines():
        if line.startswith(_MARK):
            found |= json.loads(line[len(_MARK) :])
    said = done.stderr.decode("utf-8", "replace")
    found["missing"] = sorted(set(_LOST.findall(said)))
    if done.returncode and not found["fault"]:
        found["fault"], found["remedy"] = _ended(done.returncode, said)
    return found


def _ended(code: int, said: str) -> tuple[str, str]:
    """Fault and remedy where the process ended without a word of ours."""
    if code >= 0:
        last = (said.strip().splitlines() or [f"exit code {code}"])[-1]
        return f"loading TensorFlow failed ({last})", _again()
    name = signal.Signals(-code).name
    remedies = {
        "SIGILL": "this processor lacks instructions (AVX) that the installed TensorFlow needs",
        "SIGKILL": "the machine or the container had too little memory for it",
    }
    return f"loading TensorFlow ended the process with {name}", remedies.get(name) or _again()


def _again() -> str:
    """The line that installs again what TensorFlow's loading depends on."""
    try:
        wanted = [r for r in _requirements(PROJECT) if r.name in ("tensorflow", "numpy")]
    except ImportError:  # `_unmet` tells
        return "install TensorFlow again"
    return " ".join(["pip install --force-reinstall", *map(_quoted, wanted)])


def probe() -> None:
    """In the process of its own: loads TensorFlow and the pipeline, and tries each device."""

    def tell(**values: Any) -> None:
        print(_MARK + json.dumps(values), flush=True)

    step = "importing tensorflow"
    try:
        import tensorflow as tf

        tell(cuda=dict(tf.sysconfig.get_build_info()).get("cuda_version"))
        step = "asking TensorFlow for its devices"
        devices = [_device(tf, device) for device in tf.config.list_physical_devices()]
        tell(devices=devices)
        for logical in tf.config.list_logical_devices():
            if logical.device_type in ("CPU", "GPU"):
                step = f"a convolution on {logical.name.removeprefix('/device:')}"
                with tf.device(logical.name):
                    image, kernel = tf.ones([1, 8, 8, 4]), tf.ones([3, 3, 4, 4])
                    tf.nn.conv2d(image, kernel, 1, "SAME").numpy()
        step = "importing what a search needs"
        import neas_tf.run.pipeline  # noqa: F401
    except BaseException as error:
        text = " ".join("".join(traceback.format_exception_only(error)).split())
        tell(fault=f"{step} failed ({text})", remedy=_again())
        sys.exit(1)


def _device(tf: Any, device: Any) -> dict[str, Any]:
    """Name and kind of a device; of a GPU also model and compute capability."""
    details = {}
    if device.device_type == "GPU":
        details = dict(tf.config.experimental.get_device_details(device))
    capability = details.get("compute_capability")
    return {
        "name": device.name.removeprefix("/physical_device:"),
        "kind": device.device_type,
        "model": details.get("device_name"),
        "compute_capability": None if capability is None else ".".join(map(str, capability)),
    }


def _machine() -> dict[str, Any]:
    """Cores and memory (bytes) that this process may use; None where the system does not say."""
    cores = os.cpu_count() or 1
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else cores
    quota = _control_group("cpu.max")
    if len(quota) == 2 and quota[0].isdigit():  # microseconds of a period, such as 200000 100000
        usable = max(1, min(usable, round(int(quota[0]) / int(quota[1]))))
    total: int | None = None
    free: int | None = None
    try:
        import psutil

        total, free = psutil.virtual_memory().total, psutil.virtual_memory().available
        limit, used = _control_group("memory.max"), _control_group("memory.current")
        if limit and used and limit[0].isdigit():
            total, free = min(total, int(limit[0])), min(free, int(limit[0]) - int(used[0]))
    except ImportError:
        pass  # `_unmet` tells
    return {"cores": usable, "cores_of_machine": cores, "memory": total, "memory_free": free}


def _control_group(name: str) -> list[str]:
    """Words of a file with a container's limits; none where there are no such limits."""
    try:
        return Path("/sys/fs/cgroup", name).read_text("ascii").split()
    except (OSError, ValueError):
        return []


def _notes(devices: Mapping[str, Any], disk: Mapping[str, Any]) -> list[str]:
    notes, missing = [], devices["missing_libraries"]
    if not _version(PROJECT):
        notes.append(f"{PROJECT} runs without being installed: no versions were compared.")
    kinds = {device["kind"] for device in devices["tensorflow"]}
    if not kinds & {"GPU", "TPU"} and kinds:
        install = f"pip install '{PROJECT}[cuda]'"
        if not devices["cuda_build"]:
            notes.append("No GPU: this TensorFlow was built without CUDA.")
        elif "libcuda.so.1" in missing:
            notes.append("No GPU: there is no NVIDIA driver (libcuda.so.1).")
        elif missing:
            notes.append(
                f"No GPU: {', '.join(missing)} not found; {install} brings CUDA's libraries."
            )
        else:
            notes.append("No GPU that TensorFlow can use.")
    if devices["memory_free"] is not None and devices["memory_free"] < 2 * _ONE_GB:
        notes.append("Less than 2 GB of memory are free; a search of small pictures takes about 2.")
    if disk["free"] < _ONE_GB:
        notes.append("Less than 1 GB is free in this folder; checkpoints may not fit.")
    if not os.access(".", os.W_OK):
        notes.append("This folder cannot be written; choose another one with --model_dir.")
    return notes


def format_text(found: Mapping[str, Any]) -> str:
    """What `examine` found, for people; the verdict comes last."""
    python, devices, versions = found["python"], found["devices"], found["versions"]

    def size(count: int | None) -> str:
        return "?" if count is None else f"{count / _ONE_GB:.1f}"

    shown = [name for name in _SHOWN if name in versions]
    lines = [
        f"{PROJECT} {versions[PROJECT]}, Python {python['version']} ({python['executable']})",
        found["platform"],
        "",
        "Libraries",
        *(f"  {name:20} {versions[name] or 'not installed'}" for name in shown),
        "",
        "Devices",
        f"  CPU: {devices['cores']} of {devices['cores_of_machine']} cores may be used; "
        f"{size(devices['memory_free'])} of {size(devices['memory'])} GB of memory are free",
    ]
    for device in devices["tensorflow"]:
        if device["kind"] != "CPU":
            model, capability = device["model"], device["compute_capability"]
            detail = f"{model or ''}{f', compute capability {capability}' if capability else ''}"
            lines.append(f"  {device['name']}: {detail or 'seen by TensorFlow'}")
    lines.append(f"  disk: {size(found['disk']['free'])} GB free in {found['disk']['folder']}")
    if devices["missing_libraries"]:
        lines.append(f"  not found by TensorFlow: {', '.join(devices['missing_libraries'])}")
    lines += ["", "Extras"]
    for extra, entry in found["extras"].items():
        lack = len(entry["missing"])
        first = entry["missing"][:1] + ([f"and {lack - 1} more"] if lack > 1 else [])
        state = f"{'; '.join(first)}: {entry['install']}" if lack else "installed"
        lines.append(f"  {extra:6} {state}")
    if found["keras_overridden"]:
        lines += ["", "Settings of Keras that are overridden while neas_tf is imported"]
        lines += [f"  {entry}" for entry in found["keras_overridden"]]
    lines += ["", *found["notes"]]
    if found["can_search"]:
        lines.append("A search can run.")
    else:
        lines.append("A search cannot run:")
        lines += [f"  {p['cause']}: {p['remedy']}" for p in found["problems"]]
    return "\n".join(lines)


def define_flags() -> None:
    """Defines the command's flags; only the command itself does, importers do not."""
    flags.DEFINE_bool("json", False, "Print JSON instead of text.")


def main(argv: Sequence[str]) -> int:
    """The command; returns its exit code: 1 where a search cannot run."""
    found: dict[str, Any] = {}

    def work() -> None:
        command_line.flags_only(argv)
        console.say("Loading TensorFlow …")
        found.update(examine())
        as_json = flags.FLAGS["json"].value
        console.show(json.dumps(found, indent=2) if as_json else format_text(found))

    code = command_line.exit_code("neas_tf.doctor", None, work)
    return code or int(not found["can_search"])


if __name__ == "__main__":
    define_flags()
    command_line.run(main, printed=True)
