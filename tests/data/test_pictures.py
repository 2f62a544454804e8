"""Listing pictures and reading how they were held, without TensorFlow."""

import os

import bad_images
import pytest

from neas_tf.common.errors import NeasError
from neas_tf.data.reading import pictures


def test_folders_come_after_files_and_links_after_folders(tmp_path):
    for name in ("b.png", "z/a.png", "c/d/e.PNG", "notes.txt", ".x.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "a").symlink_to("z")
    (tmp_path / "c" / "top").symlink_to("/")
    (tmp_path / "album.jpg").mkdir()
    os.mkfifo(tmp_path / "pipe.gif")
    listing = pictures.list_pictures(str(tmp_path))
    names = [os.path.relpath(path, tmp_path) for path in listing.paths]
    assert names == ["b.png", "c/d/e.PNG", "z/a.png"]
    assert [(os.path.basename(path), what) for path, what in listing.unusable] == [
        ("album.jpg", "a folder"),
        ("pipe.gif", "a pipe"),
    ]
    said = listing.said()
    assert said.startswith("4 files or folders are not read: ")
    for part in ("2 links to folders already read", "1 .txt", "1 hidden"):
        assert part in said
    assert pictures.list_pictures(str(tmp_path / "z")).said() == ""


def test_a_folder_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(NeasError, match=r"images: the folder .*gone' cannot be read \(No such"):
        pictures.list_pictures(str(tmp_path / "gone"), "images")


@pytest.mark.parametrize("value", range(1, 9))
def test_orientation(value):
    assert pictures.orientation(bad_images.rotated(value)) == value


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "JPEG"])
def test_orientation_of_other_kinds(kind, tmp_path):
    exif = bad_images.Image.Exif()
    exif[0x0112] = 8
    content = bad_images.encoded(bad_images.sound(), kind, exif=exif)
    (tmp_path / "a").write_bytes(content)
    assert pictures.orientation(pictures.head(str(tmp_path / "a"))) == 8
    assert pictures.orientation(bad_images.encoded(bad_images.sound(), kind)) == 1


def test_orientation_of_what_is_no_picture():
    for content in bad_images.damaged().values():
        assert pictures.orientation(content) == 1
    assert pictures.head("/nowhere/at/all") == b""
