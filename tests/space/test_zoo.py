import json
from pathlib import Path

import pytest
from spaces_for_tests import TOY

from neas_tf.common.errors import NeasError
from neas_tf.common.files import write_json_atomic
from neas_tf.space.architecture import Architecture
from neas_tf.space.search_space import SearchSpace
from neas_tf.space.zoo import load_architecture, zoo_names

# method.md section 3.
OFFICIAL = {
    "neas_s": "20,2,0,0,-1,0,2,0,0,2,-1,0,-1,0,3,2,4,0,2,5,0,4,3,0,0",
    "neas_m": "16,2,0,3,2,0,2,5,0,-1,3,0,2,0,0,3,5,4,0,5,0,5,4,0,3,5,2,5,0",
    "neas_l": "16,2,0,5,5,1,3,5,1,3,4,1,2,5,4,1,3,3,1,3,1,5,1,0,5,4,4,3,0",
}


def test_the_zoo():
    assert set(OFFICIAL) <= set(zoo_names())


@pytest.mark.parametrize("name", OFFICIAL)
def test_every_form_reads_the_same(name, tmp_path):
    space = SearchSpace()
    architecture = load_architecture(name, space)
    assert architecture.name == name
    numbers = [int(v) for v in OFFICIAL[name].split(",")]
    assert architecture.to_official() == numbers
    path = tmp_path / "found.json"
    write_json_atomic(path, architecture.to_dict())
    for form in (
        name.upper().replace("_", "-"),
        OFFICIAL[name],
        f" [{OFFICIAL[name].replace(',', ', ')}] ",
        numbers,
        architecture.key,
        architecture.to_dict(),
        architecture,
        str(path),
        path,
    ):
        assert load_architecture(form, space) == architecture


def test_a_file_without_a_name_is_named_after_itself(tmp_path):
    path = tmp_path / "mine.json"
    write_json_atomic(path, {**Architecture(0, (("k3e4",),)).to_dict(), "name": ""})
    assert load_architecture(path).name == "mine"


def test_relative_paths_mean_the_callers_folder(tmp_path, monkeypatch):
    write_json_atomic(tmp_path / "mine.json", Architecture(0, (("k3e4",),)).to_dict())
    monkeypatch.setenv("BUILD_WORKING_DIRECTORY", str(tmp_path))
    assert load_architecture("mine.json").num_paths == 1


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("neas_x", "Did you mean 'neas_"),
        ("nea_s", "Did you mean 'neas_s'"),
        ("", "a zoo name"),
        ("something else", "neas_l, neas_m, neas_s"),
        ("none.json", "no file at"),
        (None, "a zoo name"),
        (3, "a zoo name"),
        ("1,2,0", "official list"),
        ([1, 2, "a", 0], "official list"),
        ("s1:", "canonical"),
        ({"format": "x"}, "format"),
    ],
)
def test_anything_else_is_refused(source, message):
    with pytest.raises(NeasError, match=message):
        load_architecture(source)


def test_a_bad_file_is_named(tmp_path):
    path = tmp_path / "bad.json"
    path.write_text(json.dumps({"format": "neas-architecture/1", "paths": 3}))
    with pytest.raises(NeasError, match=r"bad\.json: architecture\.paths"):
        load_architecture(path)
    with pytest.raises(NeasError, match="cannot be read"):
        load_architecture(Path(tmp_path / "folder.json").mkdir() or tmp_path / "folder.json")


def test_an_architecture_that_is_not_in_the_space():
    with pytest.raises(NeasError, match="'neas_s': has 20 layers, space 'toy' has 4"):
        load_architecture("neas_s", TOY)
