"""docs/cluster.md: the manifest, the shell that makes TF_CONFIG, the flags that the page names."""

import json
import os
import pathlib
import re
import subprocess

import pytest
import yaml

from neas_tf.common.paths import project_file

PAGE = pathlib.Path(project_file("docs", "cluster.md")).read_text("utf-8")
FOLDER = pathlib.Path(project_file("docs", "cluster"))
SHOW = '. docs/cluster/tf_config.sh && printf "%s" "$TF_CONFIG"'


def manifest() -> list[dict]:
    return list(yaml.safe_load_all((FOLDER / "kubernetes.yaml").read_text("utf-8")))


def shell(command: str, **variables: str) -> subprocess.CompletedProcess:
    names = ("PORT", "SLURM_JOB_NODELIST", "JOB_COMPLETION_INDEX")
    environment = {k: v for k, v in os.environ.items() if k not in names}
    return subprocess.run(
        ["bash", "-eu", "-c", command],
        env=environment | variables,
        capture_output=True,
        text=True,
        cwd=project_file(),
        check=False,
    )


def test_slurm_variables_make_tf_config(tmp_path):
    """`scontrol` is one that knows the list."""
    scontrol = tmp_path / "scontrol"
    scontrol.write_text(
        '#!/bin/sh\n[ "$*" = "show hostnames n[1-3]" ] && printf "n1\\nn2\\nn3\\n"\n'
    )
    scontrol.chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    done = shell(SHOW, SLURM_JOB_NODELIST="n[1-3]", SLURM_PROCID="2", PORT="20123", PATH=path)
    assert json.loads(done.stdout) == {
        "cluster": {"worker": ["n1:20123", "n2:20123", "n3:20123"]},
        "task": {"type": "worker", "index": 2},
    }


def test_a_jobs_index_makes_tf_config():
    done = shell(SHOW, JOB_COMPLETION_INDEX="1", WORKERS="2", JOB="neas", SERVICE="s")
    assert json.loads(done.stdout) == {
        "cluster": {"worker": ["neas-0.s:2222", "neas-1.s:2222"]},
        "task": {"type": "worker", "index": 1},
    }


def test_without_either_a_sentence():
    done = shell(SHOW)
    assert done.returncode == 2 and not done.stdout
    assert "received neither SLURM_JOB_NODELIST nor JOB_COMPLETION_INDEX" in done.stderr


def test_manifest_hangs_together():
    """And its command's first half gives the workers of its Job."""
    service, job = manifest()
    assert service["kind"] == "Service" and service["spec"]["clusterIP"] == "None"
    spec = job["spec"]
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    assert spec["completionMode"] == "Indexed" and spec["completions"] == spec["parallelism"]
    assert service["spec"]["selector"]["job-name"] == job["metadata"]["name"]
    assert pod["subdomain"] == service["metadata"]["name"] and pod["restartPolicy"] == "Never"
    (rule,) = spec["podFailurePolicy"]["rules"]
    assert rule["onExitCodes"]["containerName"] == container["name"]
    first, then = container["command"][2].split(" && exec ")
    assert container["command"][:2] == ["bash", "-c"] and then.startswith("python -m neas_tf.train")
    variables = {entry["name"]: entry["value"] for entry in container["env"]}
    done = shell(f'{first} && printf "%s" "$TF_CONFIG"', JOB_COMPLETION_INDEX="0", **variables)
    name, port = job["metadata"]["name"], container["ports"][0]["containerPort"]
    expected = [f"{name}-{i}.{pod['subdomain']}:{port}" for i in range(spec["completions"])]
    assert json.loads(done.stdout)["cluster"]["worker"] == expected
    volumes = {volume["name"] for volume in pod["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == volumes


def test_scripts_parse():
    for name in ("slurm.sbatch", "tf_config.sh"):
        assert shell(f"bash -n docs/cluster/{name}").returncode == 0
    assert shell("if then").returncode != 0


def commands() -> list[tuple[str, str]]:
    """(flags of neas_tf.train, where), from the page, the script and the manifest."""
    texts = {"cluster.md": PAGE, "slurm.sbatch": (FOLDER / "slurm.sbatch").read_text("utf-8")}
    texts["kubernetes.yaml"] = manifest()[1]["spec"]["template"]["spec"]["containers"][0][
        "command"
    ][2]
    found = []
    for where, text in texts.items():
        joined = re.sub(r"\\\n\s*", "", text)
        found += [(line, where) for line in re.findall(r"-m neas_tf\.train ([^\n]*)", joined)]
    return found


@pytest.mark.parametrize("line,where", commands())
def test_flags_and_settings_exist(line, where):
    from neas_tf.config.parse import load_config
    from neas_tf.train import flags

    given = dict(re.findall(r"--(\w+)=(\"[^\"]*\"|[^\s']*)", line))
    assert {"experiment", "model_dir", "params_override"} <= set(given)
    assert set(given) <= set(flags.FLAGS)
    config = load_config(given["experiment"], [], given["params_override"].strip('"'))
    assert config.runtime.distribution_strategy in ("multi_worker_mirrored", "tpu")


def test_the_page_is_counted():
    """Five commands stand there: two by hand, two on one machine or a TPU, and those of the files."""
    assert [where for _, where in commands()].count("cluster.md") == 4
    assert len(commands()) == 6
