"""The speed of the input pipeline, at tiny size."""

import json

from benchmarks import input_pipeline


def test_images_in_memory_and_files_are_measured(tmp_path, capsys):
    arguments = ["--variants=none,jpeg_auto_augment", "--batch_size=4", "--seconds=0.1"]
    assert input_pipeline.main(arguments) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["data"] == "random" and report["input_shape"] == [32, 32, 3]
    none, jpeg = report["variants"]["none"], report["variants"]["jpeg_auto_augment"]
    assert none["share"] == 1 and 0 < jpeg["share"] < 1 and jpeg["images_per_second"] > 0
    info = input_pipeline.photographs(tmp_path)
    assert info.input_shape == (224, 224, 3) and info.sizes["train"] == 36


def test_bad_input_ends_with_2(capsys):
    bad = {"--variants=all": "--variants: unknown", "--batch_size=0": "--batch_size: received 0"}
    for argument, text in bad.items():
        assert input_pipeline.main([argument]) == 2
        assert text in capsys.readouterr().err
