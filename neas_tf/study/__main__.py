"""The paper's studies, resumable: `python -m neas_tf.study --study=ranking --model_dir=…`."""

from __future__ import annotations

from collections.abc import Sequence

from absl import flags

from neas_tf.common import command_line, console
from neas_tf.common.errors import NeasError, fail
from neas_tf.common.paths import config_file, resolve_user_path
from neas_tf.run import ray_engine
from neas_tf.study.store import check_folder
from neas_tf.study.tables.names import NAMES, chosen

NAME = "neas_tf.study"


def define_flags() -> None:
    """The command's flags."""
    flags.DEFINE_string("study", None, f"Of {', '.join(NAMES)}; several with commas; or all.")
    flags.DEFINE_string(
        "model_dir", None, "Folder of the studies; they resume from what it holds and share units."
    )
    flags.DEFINE_multi_string(
        "config_file",
        [],
        "YAML files with the base settings and a section study, in this order; or with commas. "
        "Without one: configs/studies/cifar10_cpu.yaml.",
    )
    flags.DEFINE_string(
        "params_override", "", "Overrides after the files: a.b=1,c=2, a YAML mapping, or a file."
    )
    flags.DEFINE_string("shard", None, "Is no more; several machines: --engine=ray.")
    flags.DEFINE_float("time_limit", 0.0, "Minutes after which no unit begins; 0 is no limit.")
    flags.DEFINE_bool(
        "list",
        False,
        "Only lists which units are done and which are left; without --study, the studies.",
    )
    flags.DEFINE_bool("report", False, "Only writes the reports from the units that are done.")
    flags.DEFINE_integer("threads", 0, "Threads of TensorFlow; 0 takes all cores.", 0)
    ray_engine.define_flags()
    flags.adopt_module_key_flags(ray_engine)


def main(argv: Sequence[str]) -> int:
    """Runs the studies; bad input ends with one sentence and exit code 2."""
    return command_line.exit_code(NAME, flags.FLAGS.model_dir, lambda: _run(argv))


def _run(argv: Sequence[str]) -> None:
    values = flags.FLAGS
    command_line.flags_only(argv)
    if values.list and not values.study:
        for name in NAMES:
            console.show(name)
        return
    if not values.study:
        raise NeasError(f"study: received nothing, expected --study={'|'.join(NAMES)}|all.")
    if values.shard is not None:
        fail("shard", values.shard, "--engine=ray --address=HOST:PORT, which shares the units out")
    ray = ray_engine.from_flags()
    names = chosen(values.study)
    if not values.model_dir:
        raise NeasError("model_dir: received nothing, expected --model_dir=FOLDER.")
    folder = resolve_user_path(values.model_dir)
    check_folder(folder)  # at once, not after TensorFlow's start
    command_line.start_tensorflow(values.threads)
    from neas_tf.study.command import load_settings, run_studies

    files = [name for text in values.config_file for name in text.split(",") if name]
    files = files or [str(config_file("studies", "cifar10_cpu.yaml"))]
    config, settings = load_settings(files, values.params_override)
    run_studies(
        names,
        config,
        settings,
        folder,
        ray=ray,
        time_limit=values.time_limit,
        list_only=values.list,
        report_only=values.report,
    )


if __name__ == "__main__":
    define_flags()
    command_line.run(main, command_line.flags_parser(NAME))
