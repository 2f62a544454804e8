"""Image files as they come: of other kinds than expected, damaged, or not images at all."""

from __future__ import annotations

import io
import pathlib
import struct
import zlib

import image_files
import numpy as np
from PIL import Image

SIZE = (24, 20)


def encoded(pixels: np.ndarray, kind: str, mode: str | None = None, **options) -> bytes:
    """An image file; `mode` is Pillow's."""
    image, stream = Image.fromarray(pixels), io.BytesIO()
    (image.convert(mode) if mode else image).save(stream, kind, **options)
    return stream.getvalue()


def sound(label: int = 1, number: int = 0) -> np.ndarray:
    """uint8 (24, 20, 3) whose mean grey level tells its label."""
    return image_files.image(label, number, SIZE)


def clear() -> np.ndarray:
    """uint8 (24, 20, 4): the same with transparency from left to right."""
    alpha = np.tile(np.arange(SIZE[1], dtype=np.uint8)[None, :, None] * 12, (SIZE[0], 1, 1))
    return np.concatenate([sound(), alpha], 2)


def sixteen_bits() -> bytes:
    pixels = sound().astype(np.uint16)[..., 0] * 257
    return encoded(pixels, "PNG")


def animated(frames: int = 3) -> bytes:
    """A GIF whose first frame has label 1's grey level, the others label 2's."""
    pictures = [Image.fromarray(sound(1 if i == 0 else 2)).convert("L") for i in range(frames)]
    stream = io.BytesIO()
    pictures[0].save(stream, "GIF", save_all=True, append_images=pictures[1:])
    return stream.getvalue()


def animated_webp() -> bytes:
    """Which TensorFlow cannot decode to three channels."""
    stream = io.BytesIO()
    Image.fromarray(sound()).save(
        stream, "WEBP", save_all=True, append_images=[Image.fromarray(sound(2))]
    )
    return stream.getvalue()


def webp_bomb() -> bytes:
    """A WebP whose header says 16,383 × 16,383."""
    data = bytearray(encoded(sound(), "WEBP"))
    data[26:30] = struct.pack("<HH", 16383, 16383)
    return bytes(data)


def rotated(orientation: int = 6) -> bytes:
    """A JPEG, dark above and bright below, whose EXIF says that it lies on its side."""
    pixels = np.full((32, 16, 3), 40, np.uint8)
    pixels[16:] = 200
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(pixels, "JPEG", quality=95, exif=exif)


def png_bomb(height: int = 60_000, width: int = 60_000) -> bytes:
    """A PNG of a few hundred bytes that declares 3.6 gigapixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(bytes(10_000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def gif_bomb() -> bytes:
    return b"GIF89a" + struct.pack("<HH", 65535, 65535) + animated()[10:]


def jpeg_bomb() -> bytes:
    """A JPEG whose frame header says 65,500 × 65,500."""
    data = bytearray(encoded(sound(), "JPEG"))
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack(">HH", 65500, 65500)
    return bytes(data)


def decodable() -> dict[str, bytes]:
    """Unusual images that must be read, all of grey level 100 (label 1)."""
    pixels = sound()
    return {
        "grey.jpg": encoded(pixels, "JPEG", "L"),
        "grey.png": encoded(pixels, "PNG", "L"),
        "grey_alpha.png": encoded(pixels, "PNG", "LA"),
        "alpha.png": encoded(pixels, "PNG", "RGBA"),
        "palette.png": encoded(pixels, "PNG", "P"),
        "cmyk.jpg": encoded(pixels, "JPEG", "CMYK"),
        "progressive.jpg": encoded(pixels, "JPEG", progressive=True),
        "sixteen_bits.png": sixteen_bits(),
        "png_named.jpg": encoded(pixels, "PNG"),
        "animated_gif_named.jpg": animated(),
        "bmp_named.png": encoded(pixels, "BMP"),
        "webp_named.jpg": encoded(pixels, "WEBP", quality=95),
        "clear.webp": encoded(clear(), "WEBP", lossless=True, exact=True),
        "clear_lossy.webp": encoded(clear(), "WEBP", quality=95, exact=True),
    }


def damaged() -> dict[str, bytes]:
    """What cannot be decoded."""
    jpeg, png = encoded(sound(), "JPEG"), encoded(sound(), "PNG")
    return {
        "empty.jpg": b"",
        "empty.png": b"",
        "text.jpg": b"This is no image.\n",
        "truncated.jpg": jpeg[: len(jpeg) // 2],
        "only_header.jpg": jpeg[:20],
        "truncated.png": png[: len(png) // 2],
        "broken_checksum.png": png[:60] + bytes([png[60] ^ 255]) + png[61:],
        "zeros.jpg": bytes(2000),
        "html.png": b"<!DOCTYPE html><html><body>404 Not Found</body></html>",
        "animated.webp": animated_webp(),
        "bomb.png": png_bomb(),
        "bomb_gif.jpg": gif_bomb(),
        "bomb.jpg": jpeg_bomb(),
    }


def tfds_set(
    root: pathlib.Path,
    splits: dict[str, list[tuple[bytes, int]]],
    classes: int = 3,
    name: str = "small",
    version: str = "1.0.0",
):
    """A prepared TFDS set `small/1.0.0` of encoded images and labels, whatever they are."""
    import tensorflow as tf
    import tensorflow_datasets as tfds

    folder = root / name / version
    folder.mkdir(parents=True)
    features = tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=(None, None, 3)),
            "label": tfds.features.ClassLabel(names=[f"class{i}" for i in range(classes)]),
        }
    )
    template = tfds.core.ShardedFileTemplate(
        data_dir=folder, dataset_name=name, filetype_suffix="tfrecord"
    )
    infos = []
    for split, examples in splits.items():
        path = folder / f"{name}-{split}.tfrecord-00000-of-00001"
        with tf.io.TFRecordWriter(str(path)) as writer:
            for image, label in examples:
                feature = {
                    "image": tf.train.Feature(bytes_list=tf.train.BytesList(value=[image])),
                    "label": tf.train.Feature(int64_list=tf.train.Int64List(value=[label])),
                }
                example = tf.train.Example(features=tf.train.Features(feature=feature))
                writer.write(example.SerializeToString())
        infos.append(
            tfds.core.SplitInfo(
                name=split,
                shard_lengths=[len(examples)],
                num_bytes=path.stat().st_size,
                filename_template=template,
            )
        )
    tfds.folder_dataset.write_metadata(
        data_dir=folder, features=features, split_infos=infos, filename_template=template
    )
    return folder
