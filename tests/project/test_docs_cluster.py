"""docs/cluster.md: the manifest, the shell that makes TF_CONFIG, the flags that the page names."""

import json
import os
import pathlib
import re
import subprocess

import jsonschema
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


def workers() -> tuple[dict, dict]:
    """The JobSet, and the Job that all its workers are."""
    found = manifest()[-1]
    (part,) = found["spec"]["replicatedJobs"]
    return found, part["template"]["spec"]


def faults(document: dict) -> list[str]:
    """What the API would not take; `oneOf` says nothing, so the kind's own schema is asked."""
    schema = json.loads(
        pathlib.Path(__file__).with_name("kubernetes_schema.json").read_text("utf-8")
    )
    (name,) = [n for n in schema["$defs"] if n.rpartition(".")[2] == document.get("kind")]
    checker = jsonschema.Draft202012Validator({**schema, "oneOf": [{"$ref": f"#/$defs/{name}"}]})
    found = [e for error in checker.iter_errors(document) for e in error.context or [error]]
    return [error.message for error in found]


def test_the_api_takes_the_manifest():
    assert [faults(document) for document in manifest()] == [[], [], []]


@pytest.mark.parametrize(
    "change,words",
    [
        (
            lambda s, job, pod: job.update(completionmode="Indexed"),
            "'completionmode' was unexpected",
        ),
        (lambda s, job, pod: job.update(backoffLimit="0"), "'0' is not of type"),
        (lambda s, job, pod: pod["containers"][0].pop("name"), "'name' is a required property"),
        (lambda s, job, pod: pod["volumes"][0].update(claim={}), "'claim' was unexpected"),
        (lambda s, job, pod: s["failurePolicy"]["rules"][0].update(name="a-b"), "does not match"),
        (lambda s, job, pod: s["failurePolicy"].update(maxRestart=1), "'maxRestart' was unexpect"),
    ],
)
def test_what_the_api_does_not_take(change, words):
    found, job = workers()
    change(found["spec"], job, job["template"]["spec"])
    assert any(words in fault for fault in faults(found))


def test_manifest_hangs_together():
    """And its command's first half gives the workers of its Job."""
    *claims, found = manifest()
    part, job = found["spec"]["replicatedJobs"][0], workers()[1]
    pod = job["template"]["spec"]
    (container,) = pod["containers"]
    assert job["completionMode"] == "Indexed" and job["completions"] == job["parallelism"]
    assert found["spec"]["network"]["enableDNSHostnames"] and pod["restartPolicy"] == "Never"
    assert job["backoffLimit"] == 0  # the JobSet begins all workers again, not the Job one
    (rule,) = job["podFailurePolicy"]["rules"]
    assert rule["onExitCodes"]["containerName"] == container["name"]
    first, then = container["command"][2].split(" && exec ")
    assert container["command"][:2] == ["bash", "-c"] and then.startswith("neas train")
    variables = {entry["name"]: entry["value"] for entry in container["env"]}
    script = first.replace("/cluster/", "docs/cluster/")
    done = shell(f'{script} && printf "%s" "$TF_CONFIG"', JOB_COMPLETION_INDEX="0", **variables)
    name = f"{found['metadata']['name']}-{part['name']}-0"
    port = container["ports"][0]["containerPort"]
    hosts = [f"{name}-{i}.{found['metadata']['name']}:{port}" for i in range(job["completions"])]
    assert json.loads(done.stdout)["cluster"]["worker"] == hosts
    volumes = {volume["name"] for volume in pod["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == volumes
    named = {
        v["persistentVolumeClaim"]["claimName"]
        for v in pod["volumes"]
        if len(v) == 2 and "persistentVolumeClaim" in v
    }
    assert named == {claim["metadata"]["name"] for claim in claims}
    assert container["resources"]["requests"]["cpu"] and container["image"].endswith("neas:cuda")
    # What the image has: the command, and a user that the volumes belong to.
    image = pathlib.Path(project_file("Dockerfile")).read_text("utf-8")
    assert 'ENTRYPOINT ["neas"]' in image and "AS cuda" in image
    assert f"--uid {pod['securityContext']['runAsUser']} " in image


def test_slurm_hands_its_cpus_on():
    text = (FOLDER / "slurm.sbatch").read_text("utf-8")
    assert "#SBATCH --cpus-per-task=" in text
    assert text.index("export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK") < text.index("srun --")


def test_scripts_parse():
    for name in ("slurm.sbatch", "tf_config.sh"):
        assert shell(f"bash -n docs/cluster/{name}").returncode == 0
    assert shell("if then").returncode != 0


def commands() -> list[tuple[str, str]]:
    """(flags of neas_tf.train, where), from the page, the script and the manifest."""
    texts = {"cluster.md": PAGE, "slurm.sbatch": (FOLDER / "slurm.sbatch").read_text("utf-8")}
    texts["kubernetes.yaml"] = workers()[1]["template"]["spec"]["containers"][0]["command"][2]
    found = []
    for where, text in texts.items():
        joined = re.sub(r"\\\n\s*", "", text)
        found += [
            (line, where)
            for line in re.findall(r"(?:-m neas_tf\.|exec neas )train ([^\n]*)", joined)
        ]
    return found


@pytest.mark.parametrize("line,where", commands())
def test_flags_and_settings_exist(line, where):
    from neas_tf.config.parse import load_config
    from neas_tf.train import flags

    given = dict(re.findall(r"--(\w+)=(\"[^\"]*\"|[^\s']*)", line))
    assert {"experiment", "model_dir", "params_override"} <= set(given)
    assert set(given) <= set(flags.FLAGS)
    override = given["params_override"].strip('"').replace("$seed", "0")  # of the shell's loop
    config = load_config(given["experiment"], [], override)
    alone = "one_device" if "engine" in given else "tpu"
    assert config.runtime.distribution_strategy in ("multi_worker_mirrored", alone)


def test_the_page_is_counted():
    """Five: two by hand, one each on one machine, over Ray and on a TPU; and those of the files."""
    assert [where for _, where in commands()].count("cluster.md") == 5
    assert len(commands()) == 7
