"""The photos example on made-up photos: its models, its table, its files, and the end of a training."""

import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import zoo
from examples import finetune_voc_photos as example
from kerasvision.ops.resizing import ResizeRule


@pytest.fixture
def voc(tmp_path):
    """Two photos of a kite, in VOC's layout."""
    folder = tmp_path / "voc"
    for place in ("JPEGImages", "Annotations", "SegmentationClass", "ImageSets/Segmentation"):
        (folder / place).mkdir(parents=True)
    for name in "ab":
        pixels = np.random.default_rng(ord(name)).integers(0, 99, (30, 40, 3)).astype(np.uint8)
        mask = np.zeros((30, 40), np.uint8)
        mask[5:20, 10:30] = 1
        pixels[mask == 1] += 150
        Image.fromarray(pixels).save(folder / f"JPEGImages/{name}.png")
        Image.fromarray(mask).save(folder / f"SegmentationClass/{name}.png")
        (folder / f"Annotations/{name}.xml").write_text("<annotation><object><name>kite</name></object></annotation>")
    (folder / "ImageSets/Segmentation/train.txt").write_text("a\nb\n")
    return folder


def test_example_writes_a_table_and_a_picture_of_each_model(voc, tmp_path, monkeypatch, capsys, eager):
    monkeypatch.setattr(example, "RULE", ResizeRule("letterbox", size_hw=(32, 48)))
    out = tmp_path / "out"
    names = ("fcn8s_vgg8", "unet_resnet10")
    arguments = ["--models", ",".join(names), "--voc", str(voc), "--out", str(out), "--epochs", "2"]
    monkeypatch.setattr(sys, "argv", ["finetune_voc_photos", *arguments])
    example.main()
    assert "segmentation, on the training photos" in capsys.readouterr().out
    results = json.loads((out / "results.json").read_text())["models"]
    assert tuple(results) == names
    for name in names:
        assert set(results[name]) == {"mIoU", "pixel_accuracy", "dice", "epochs", "seconds"}
        assert results[name]["epochs"] == 2 and 0 <= results[name]["mIoU"] <= 1
        with Image.open(out / f"{name}.png") as picture:
            assert picture.width > 2 * 40


def test_all_models_are_the_small_ones_and_narrow_forms_of_others():
    names = example.all_models()
    families = {zoo.info(name).architecture for name in names if zoo.info(name).task == "segmentation"}
    assert families == {zoo.info(name).architecture for name in zoo.list_models(task="segmentation")}
    assert "retinanet_resnet10_fpn" in names and "fcn_resnet50" not in names


@pytest.mark.parametrize(("epoch", "figure", "stops"), [(8, 1.0, False), (9, 0.94, False), (9, 0.95, True)])
def test_training_ends_at_the_target_at_every_tenth_epoch(epoch, figure, stops):
    stop = example.StopAtTarget(None, "mIoU", 0.95)
    model = SimpleNamespace(stop_training=False, evaluate=lambda *_, **__: {"mIoU": figure})
    stop.set_model(model)
    stop.on_epoch_end(epoch)
    assert model.stop_training == stops
