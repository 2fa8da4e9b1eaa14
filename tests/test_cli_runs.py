"""The commands as a user runs them, from files to files: no part of the package is replaced.

One small VOC folder with classes of its own goes through `data`, `train`, `--resume`, `evaluate`, `predict`, `convert`
and `benchmark`; the embedded weights through `predict` and `evaluate`.
"""

import json
import re

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from kerasvision import data
from kerasvision.cli import app
from kerasvision.training import load_model
from kerasvision.visualize import save_image

CLASSES = ("car", "pedestrian", "tree")  # "auto" sorts them; VOC knows the first alone


def run(*arguments, status=0):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == status, result.output
    return result


@pytest.fixture(scope="module")
def scenes():
    return data.load("streets", split="test", count=6)


@pytest.fixture(scope="module")
def voc(scenes, tmp_path_factory):
    """Four scenes to train on, two to validate on: cars, pedestrians and vegetation, in VOC's layout."""
    folder = tmp_path_factory.mktemp("voc")
    for place in ("JPEGImages", "Annotations", "SegmentationClass", "ImageSets/Segmentation"):
        (folder / place).mkdir(parents=True)
    values = np.zeros(256, np.uint8)
    for value, name in enumerate(("car", "pedestrian", "vegetation"), start=1):
        values[scenes.mask_classes.index(name)] = value
    values[255] = 255
    for number, scene in enumerate(scenes):
        save_image(scene.image, folder / f"JPEGImages/{number}.png")
        Image.fromarray(values[scene.mask]).save(folder / f"SegmentationClass/{number}.png")
        objects = "".join(f"<object><name>{name}</name></object>" for name in CLASSES)  # no boxes: masks are enough
        (folder / f"Annotations/{number}.xml").write_text(f"<annotation>{objects}</annotation>")
    (folder / "ImageSets/Segmentation/train.txt").write_text("0\n1\n2\n3\n")
    (folder / "ImageSets/Segmentation/val.txt").write_text("4\n5\n")
    return folder


@pytest.fixture(scope="module")
def trained(voc, tmp_path_factory):
    """(folder, output) of a run of one epoch without validation, resumed for a second one with it."""
    out = tmp_path_factory.mktemp("runs") / "mine"
    arguments = ("train", "--model", "unet_resnet10", "--data", f"voc:{voc}", "--classes", "auto", "--out", out)
    arguments += ("--size", 64, 96, "--batch-size", 2)
    first = run(*arguments, "--epochs", 1, "--val-split", "none")
    assert "4 images to train on, none to validate on" in first.stdout
    second = run(*arguments, "--epochs", 2, "--resume")
    return out, second


def test_train_resumed_with_validation_shows_both_epochs(trained):
    out, second = trained
    assert "4 images to train on, 2 to validate on" in second.stdout
    assert "4 classes: background, car, pedestrian, tree" in second.stdout
    assert "epochs: 2, batch size: 2 (the recipe's are 8 and 8)" in second.stdout
    figures = dict(re.findall(r"^(\w+) +(\S+ +\S+)$", second.stdout, re.MULTILINE))
    assert re.fullmatch(r"[\d.]+ +[\d.]+", figures["loss"]) and re.fullmatch(r"– +[\d.]+", figures["val_mIoU"])
    history = json.loads((out / "history.json").read_text())
    assert len(history["loss"]) == 2 and history["val_mIoU"][0] is None
    assert f"--model {out / 'best.keras'}" in second.stderr


def test_train_a_finished_run_again_needs_resume(trained, voc):
    arguments = ("train", "--model", "unet_resnet10", "--data", f"voc:{voc}", "--classes", "auto")
    assert "holds a run already" in run(*arguments, "--out", trained[0], status=2).stderr


def test_a_trained_model_is_used_by_its_file_in_python_and_on_the_command_line(trained, voc, tmp_path):
    model = load_model(trained[0] / "best.keras")
    assert model.class_names == ("background", *CLASSES) and model.resize_rule.size_hw == (64, 96)
    best = trained[0] / "best.keras"
    result = run("predict", voc / "JPEGImages/4.png", "--model", best, "--out", tmp_path / "drawn", "--json")
    (found,) = json.loads(result.stdout)
    assert (found["height"], found["width"]) == (256, 384)
    assert {entry["class"] for entry in found["classes"]} <= set(model.class_names)
    assert sum(entry["share"] for entry in found["classes"]) == pytest.approx(1)
    with Image.open(found["picture"]) as picture:
        assert picture.width >= 384


def test_evaluate_a_trained_model_needs_no_word_about_its_classes(trained, voc):
    arguments = ("evaluate", "--model", trained[0] / "best.keras", "--data", f"voc:{voc}", "--split", "val", "--json")
    scores = json.loads(run(*arguments).stdout)
    assert scores["images"] == 2 and scores["missing_classes"] == []
    assert list(scores["per_class"]) == ["background", *CLASSES]
    assert 0 < scores["metrics"]["pixel_accuracy"] <= 1
    assert json.loads(run(*arguments, "--classes", "auto").stdout) == scores


def test_convert_a_trained_model_keeps_its_figures(trained, voc, tmp_path):
    out = tmp_path / "mine.safetensors"
    result = run("convert", trained[0] / "best.keras", out, "--model", "unet_resnet10", "--num-classes", 4)
    assert "4 classes" in result.stdout
    arguments = ("--data", f"voc:{voc}", "--split", "val", "--json")
    before = json.loads(run("evaluate", "--model", trained[0] / "best.keras", *arguments).stdout)
    after = json.loads(run("evaluate", "--model", "unet_resnet10", "--weights", out, *arguments).stdout)
    assert after["metrics"] == pytest.approx(before["metrics"], abs=1e-3)
    assert after["per_class"].keys() == before["per_class"].keys()


def test_benchmark_a_trained_model(trained, voc, tmp_path):
    best = trained[0] / "best.keras"
    arguments = ("--data", f"voc:{voc}", "--split", "train", "--batch-sizes", 1, "--max-seconds", 2, "--out", tmp_path)
    result = run("benchmark", "--models", best, *arguments)
    assert "mIoU" in result.stdout and "n<100" in result.stdout and "report.html" in result.stderr
    document = json.loads((tmp_path / "results.json").read_text())
    (measured,) = document["models"]
    assert document["failures"] == [] and document["data"]["images"] == 4
    assert measured["task"] == "segmentation" and measured["accuracy"]["images"] == 4
    assert measured["timing"][0]["stages"]["end_to_end"]["p50"] > 0 and measured["memory"]["peak_bytes"] > 10**7
    assert "<html" in (tmp_path / "report.html").read_text()


def test_predict_and_evaluate_with_the_embedded_detector(scenes, tmp_path):
    upright = save_image(scenes[0].image, tmp_path / "a.png")
    sideways = Image.fromarray(np.rot90(scenes[0].image))  # a quarter turn to the left …
    exif = sideways.getexif()
    exif[0x0112] = 6  # … and the word that it has to be turned back to the right
    sideways.save(tmp_path / "b.png", exif=exif)
    model = ("--model", "retinanet_resnet10_fpn")
    arguments = ("predict", upright, tmp_path / "b.png", *model, "--out", tmp_path / "drawn", "--json")
    found, turned = json.loads(run(*arguments).stdout)
    assert turned["detections"] == found["detections"] and turned["width"] == found["width"] == 384
    assert "car" in {entry["class"] for entry in found["detections"]}
    boxes = np.array([entry["box_xyxy"] for entry in found["detections"]])
    assert (boxes[:, 2:] <= [384, 256]).all() and (boxes >= 0).all()
    scores = json.loads(run("evaluate", *model, "--data", "streets", "--limit", 8, "--json").stdout)
    # 0.93 on 500 scenes; a detector whose boxes or classes were mixed up would be near 0.
    assert scores["metrics"]["AP50"] > 0.7 and scores["images"] == 8


def test_data_show_and_check_of_real_files(voc, tmp_path):
    out = tmp_path / "sheet.png"
    arguments = (f"voc:{voc}", "--classes", "auto", "--task", "segmentation")
    assert "4 of 4 samples" in run("data", "show", *arguments, "--out", out).stdout
    with Image.open(out) as sheet:
        assert sheet.width > 384
    assert "segmentation: 4 samples, 0 errors" in run("data", "check", *arguments).stdout
