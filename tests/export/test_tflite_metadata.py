"""TFLite's metadata, read back with flatbuffers' own tables and the numbers of the public schema.

MediaPipe's ImageClassifier (1.2.3) took such files and named the classes; it is no dependency.
"""

import hashlib
import io
import zipfile

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from ai_edge_litert.tools import flatbuffer_utils
from flatbuffers.number_types import Float32Flags, Int8Flags, Uint8Flags, Uint32Flags
from small_ensembles import ENSEMBLES, SPACE, randomise

from neas_tf.common.normalisation import Normalisation
from neas_tf.ensemble.deployed_costs import file_size
from neas_tf.ensemble.model import build_ensemble
from neas_tf.ensemble.store import LoadedInfo
from neas_tf.export.artifacts import labels_file, read_label_file
from neas_tf.export.formats import export_tflite, random_images
from neas_tf.export.tflite.metadata import VALUE, TensorNote, with_metadata

NAMES = ("cat", "füchse", "a\u2028b", "hen", "hen")


class Node(flatbuffers.table.Table):
    """A table whose fields are taken by their number in the schema."""

    def place(self, slot):
        offset = self.Offset(4 + 2 * slot)
        return offset and offset + self.Pos

    def number(self, slot, kind):
        return self.Get(kind, self.place(slot)) if self.place(slot) else 0

    def text(self, slot):
        return self.String(self.place(slot)).decode() if self.place(slot) else ""

    def node(self, slot):
        return Node(self.Bytes, self.Indirect(self.place(slot)))

    def items(self, slot, kind=None):
        if not self.place(slot):
            return []
        begin, count = (
            self.Vector(self.place(slot) - self.Pos),
            self.VectorLen(self.place(slot) - self.Pos),
        )
        if kind:
            return [self.Get(kind, begin + 4 * i) for i in range(count)]
        return [Node(self.Bytes, self.Indirect(begin + 4 * i)) for i in range(count)]


def metadata(content):
    """The metadata of a file, as a table."""
    model = flatbuffer_utils.read_model_from_bytearray(content)
    (entry,) = (m for m in model.metadata if m.name == b"TFLITE_METADATA")
    data = bytes(model.buffers[entry.buffer].data)
    assert data[4:8] == b"M001"
    return Node(data, int.from_bytes(data[:4], "little"))


@pytest.fixture(scope="module")
def model():
    model = build_ensemble(ENSEMBLES["two_paths"], SPACE)
    randomise(model)
    return model, LoadedInfo(ENSEMBLES["two_paths"], SPACE, NAMES, Normalisation())


@pytest.mark.parametrize(
    ("quantize", "outputs"),
    [
        ("none", ["logits", "probabilities"]),
        ("float16", ["logits", "probabilities"]),
        ("dynamic", ["logits", "probabilities"]),
        ("int8", ["logits"]),
    ],
)
def test_a_classifier_says_what_goes_in_and_what_the_classes_are(
    quantize, outputs, model, tmp_path
):
    integer = quantize == "int8"
    images = random_images(SPACE)
    path = tmp_path / "x.tflite"
    report = export_tflite(
        *model,
        path,
        quantize=quantize,
        representative=images if integer else None,
        input_type="uint8" if integer else "float32",
    )
    content = path.read_bytes()
    assert report["sha256"] == hashlib.sha256(content).hexdigest()
    expected = file_size(ENSEMBLES["two_paths"], SPACE, quantize)
    assert expected == pytest.approx(len(content), rel=0.05)
    table = metadata(content)
    assert table.text(0) and table.text(7) == "1.0.0"
    (graph,) = table.items(3)
    (image,) = graph.items(2)
    assert image.text(0) == "image"
    content_of = image.node(3)
    assert content_of.number(0, Uint8Flags) == 2  # ImageProperties
    picture = content_of.node(1)
    assert picture.number(0, Int8Flags) == 1  # RGB
    size = picture.node(1)
    assert (size.number(1, Uint32Flags), size.number(0, Uint32Flags)) == SPACE.input_size
    (unit,) = image.items(4)
    assert unit.number(0, Uint8Flags) == 1  # NormalizationOptions
    assert unit.node(1).items(0, Float32Flags) == [0.0]
    assert unit.node(1).items(1, Float32Flags) == [1.0]
    stats = image.node(5)
    assert stats.items(0, Float32Flags) == [255.0] and stats.items(1, Float32Flags) == [0.0]
    notes = graph.items(3)
    assert [note.text(0) for note in notes] == outputs
    for note in notes:
        (file,) = note.items(6)
        assert (file.text(0), file.number(2, Int8Flags)) == ("labels.txt", 2)
    # In the order of the file's outputs: probabilities are those that sum to 1.
    runner = Interpreter(str(path))
    runner.allocate_tensors()
    runner.set_tensor(
        runner.get_input_details()[0]["index"],
        images[:1].astype(np.uint8 if integer else np.float32),
    )
    runner.invoke()
    for note, detail in zip(notes, runner.get_output_details(), strict=True):
        total = runner.get_tensor(detail["index"]).sum()
        assert (abs(total - 1) < 1e-3) == (note.text(0) == "probabilities")
    with zipfile.ZipFile(path) as archive:
        (entry,) = archive.infolist()
        assert entry.filename == "labels.txt" and entry.compress_type == zipfile.ZIP_STORED
        inside = archive.read(entry)
    assert inside == labels_file(path).read_bytes()
    assert read_label_file(labels_file(path)) == list(NAMES)


def test_the_same_arguments_make_the_same_bytes(model, tmp_path):
    path = tmp_path / "x.tflite"
    export_tflite(*model, path)
    notes = {"logits": TensorNote("A note.", labels=VALUE)}
    first, second = (with_metadata(path.read_bytes(), "n", "d", notes, "a\n") for _ in range(2))
    assert first == second
    assert zipfile.ZipFile(io.BytesIO(first)).read("labels.txt") == b"a\n"
