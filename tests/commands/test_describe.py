import dataclasses
import json
import os
import subprocess
import sys

import pytest
from spaces_for_tests import TOY, all_ensembles, some_shrunk

from neas_tf.commands.describe import describe, format_text, load_space, parse_size
from neas_tf.common.errors import NeasError
from neas_tf.common.paths import project_file
from neas_tf.cost.cost_table import CostTable
from neas_tf.space.architecture import Architecture
from neas_tf.space.search_space import SearchSpace
from neas_tf.space.shrunk_space import ShrunkSpace
from neas_tf.space.zoo import load_architecture


def command(*arguments, **variables):
    environment = {**os.environ, "PYTHONPATH": project_file(), **variables}
    return subprocess.run(
        [sys.executable, "-m", "neas_tf.describe", *arguments],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )


def test_the_command_prints_the_golden_numbers_without_tensorflow(tmp_path):
    done = command("--arch=neas_l", "--format=json", "--input_size=224", "--num_classes=1000")
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    assert printed["macs"] == 553_140_864
    assert printed["params"] == 12_444_832
    assert (printed["split_point"], printed["num_paths"]) == (16, 2)
    assert printed["shared_macs"] + sum(printed["path_macs"]) == printed["macs"]
    assert printed == describe(load_architecture("neas_l"))
    done = command("--arch=neas_xl")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("neas_tf.describe: architecture: received 'neas_xl'")
    assert done.stderr.count("\n") == 1
    code = "import sys, neas_tf.commands.describe; sys.exit('tensorflow' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", code], cwd=project_file(), check=False).returncode
        == 0
    )


def test_the_command_takes_a_space_and_prints_text_in_any_locale(tmp_path):
    (tmp_path / "space.json").write_text(json.dumps(TOY.to_dict()))
    key = "s2:k3e2.skip|k3e2.skip|k5e3.k3e2"
    done = command(
        f"--arch={key}",
        f"--space={tmp_path / 'space.json'}",
        "--input_size=20x24",
        PYTHONIOENCODING="ascii",
    )
    assert done.returncode == 0, done.stderr
    assert "k3e2 | k5e3" in done.stdout
    assert "input 20x24" in done.stdout


@pytest.mark.parametrize("name", ["neas_s", "neas_m", "neas_l"])
def test_the_parts_add_up(name):
    printed = describe(load_architecture(name))
    for metric in ("macs", "params"):
        assert sum(part[metric] for part in printed["layers"]) == printed[metric]
    assert json.loads(json.dumps(printed)) == printed
    assert [part["layer"] for part in printed["layers"] if part["layer"]] == list(range(1, 21))
    for one, other in zip(printed["layers"], printed["layers"][1:], strict=False):
        assert one["out_shape"] == other["in_shape"]


@pytest.mark.parametrize("num_paths", [1, 2, 3])
def test_text_of_many_ensembles(num_paths):
    shrunk = some_shrunk(num_paths)
    table = CostTable(TOY)
    for i, (ensemble, _) in enumerate(all_ensembles(shrunk)):
        if i % 131:
            continue
        text = format_text(describe(ensemble, TOY))
        assert f"{table.cost(ensemble).macs:,}" in text
        assert ensemble.key in text
        rows = text.splitlines()
        assert sum("%" in row for row in rows) == TOY.num_layers + 4
        forks = [row for row in rows if row.startswith("  ├") and row.endswith("╮")]
        assert len(forks) == (num_paths > 1)


def test_text_of_a_published_ensemble():
    text = format_text(describe(load_architecture("neas_m")))
    lines = text.splitlines()
    fork = lines.index("  ├──╮")
    assert "16" in lines[fork - 1]
    assert "k7e6 | k5e6" in lines[fork + 1]
    assert lines[-2:] == ["  ├──╯", "  ▼  mean of the paths' logits"]
    assert "449,351,296" in text


def test_many_paths_are_not_all_drawn():
    shrunk = ShrunkSpace.full(TOY, 10, heterogeneous=False)
    ensemble = Architecture(4, (("k3e2",) * 4,) * shrunk.num_paths)
    assert "(8 of 10 paths are drawn)" in format_text(describe(ensemble, TOY))


def test_an_operator_that_the_authors_list_cannot_say():
    ensemble = next(all_ensembles(some_shrunk()))[0]
    assert describe(ensemble, TOY)["official"] is None


def test_spaces_from_files(tmp_path):
    path = tmp_path / "space.yaml"
    path.write_text("space:\n  num_classes: 10\n  input_size: 32\n")
    assert load_space(str(path)) == dataclasses.replace(
        SearchSpace(), num_classes=10, input_size=(32, 32)
    )
    path.write_text("num_clases: 10\n")
    with pytest.raises(NeasError, match="Did you mean 'num_classes'"):
        load_space(str(path))
    path.write_text("a: [")
    with pytest.raises(NeasError, match="no valid YAML"):
        load_space(str(path))
    path.write_text("")
    with pytest.raises(NeasError, match="a mapping"):
        load_space(str(path))
    with pytest.raises(NeasError, match="no file at"):
        load_space(str(tmp_path / "none.yaml"))
    with pytest.raises(NeasError, match="cannot be read"):
        load_space(str(tmp_path))


def test_sizes():
    assert parse_size("224") == (224, 224)
    assert parse_size(" 192 x 256 ") == (192, 256)
    for bad in ("", "x", "1x2x3", "-5", "2.5"):
        with pytest.raises(NeasError, match="input_size"):
            parse_size(bad)
