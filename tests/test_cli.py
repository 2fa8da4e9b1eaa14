import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import zoo
from kerasvision import cli_datasets, cli_inputs, cli_measure, cli_predict, cli_train
from kerasvision.cli import app
from kerasvision.data.voc import VOC_CLASSES
from kerasvision.models.recipe import Recipe
from kerasvision.ops.tiles import Tiles
from kerasvision.segmentation import DenseCRF, Segmentation
from kerasvision.visualize import default_palette, save_image

SCENE = np.full((60, 80, 3), 90, np.uint8)


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def pixels_of(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def assert_user_error(result, *parts):
    """One line on stderr that holds all parts, exit status 2, no traceback."""
    assert result.exit_code == 2, result.output
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: "), result.stderr
    assert "Traceback" not in result.output
    for part in parts:
        assert part in lines[0]


class FakePredictor:
    """Finds one car in every image, or one class on the left and another on the right."""

    def __init__(self, model, *, score_threshold=None, freeze=False, **options):
        self.model, self.score_threshold, self.options = model, score_threshold, options
        self.class_names = ("car", "bus")

    def read(self, path):
        try:
            return pixels_of(path)
        except OSError as error:
            raise ValueError(f"{path}: no image that can be decoded") from error

    def predict(self, images, names):
        if "progress" in self.options:
            self.options["progress"](1, 2)
        return [self.result(image, name) for image, name in zip(images, names, strict=True)]

    def result(self, image, name):
        if self.model.task == "segmentation":
            mask = np.zeros(image.shape[:2], np.int32)
            mask[:, image.shape[1] // 4 :] = 1
            return Segmentation(name, image.shape[:2], mask, self.class_names, self.options["palette"])
        boxes = np.array([[20, 30, 60, 50]], np.float32)
        content = {"boxes": boxes.tolist(), "labels": [0]}
        return SimpleNamespace(
            boxes=boxes,
            scores=np.array([0.75]),
            labels=np.array([0]),
            to_dict=lambda: content,
            size_hw=image.shape[:2],
            class_names=self.class_names,
        )


@pytest.fixture
def fake(monkeypatch):
    """Replace the model, the predictor and the question for the task by stand-ins; returns the model."""
    recipe = Recipe(epochs=7, batch_size=3)
    names = ("car", "bus")
    model = SimpleNamespace(name="m", task="detection", num_classes=2, class_names=names, recipe=recipe, predictors=[])

    def make(*arguments, **options):
        model.predictors.append(FakePredictor(*arguments, **options))
        return model.predictors[-1]

    monkeypatch.setitem(sys.modules, "kerasvision.inference", SimpleNamespace(Predictor=make))
    for module in (cli_predict, cli_measure, cli_train):
        monkeypatch.setattr(module, "load_model", lambda *_, **__: model)
        monkeypatch.setattr(module, "task_of", lambda model: model.task, raising=False)
    return model


@pytest.fixture
def scene(tmp_path):
    return save_image(SCENE, tmp_path / "in" / "scene.png")


def write_voc(folder, boxes, *, lists, masks=()):
    """Write a VOC folder with images of 40×60: `boxes` maps an image to the classes on it, `lists` a path to images."""
    for place in ("JPEGImages", "Annotations", "SegmentationClass"):
        (folder / place).mkdir(parents=True, exist_ok=True)
    for image, names in boxes.items():
        save_image(SCENE[:40, :60], folder / f"JPEGImages/{image}.png")
        box = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>30</xmax><ymax>20</ymax></bndbox>"
        objects = "".join(f"<object><name>{name}</name>{box}</object>" for name in names)
        (folder / f"Annotations/{image}.xml").write_text(f"<annotation>{objects}</annotation>")
    for image in masks:
        mask = np.zeros((40, 60), np.uint8)
        mask[:20, :30] = 1
        Image.fromarray(mask).save(folder / f"SegmentationClass/{image}.png")
    for path, images in lists.items():
        (folder / "ImageSets" / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / "ImageSets" / path).write_text("\n".join(images))
    return folder


@pytest.fixture
def voc(tmp_path):
    """Classes of its own; of the images with boxes only b has a mask, and d has nothing but a mask."""
    return write_voc(
        tmp_path / "mine",
        {"a": ["scooter", "kite"], "b": ["kite"], "c": ["kite"], "d": []},
        masks="bd",
        lists={
            "Main/train.txt": "ab",
            "Main/val.txt": "c",
            "Segmentation/train.txt": "bd",
            "Segmentation/val.txt": "d",
        },
    )


# -- The program -------------------------------------------------------------------------------------------


def test_help_names_every_command_and_imports_no_keras():
    code = (
        "import sys\n"
        "from typer.testing import CliRunner\n"
        "from kerasvision.cli import app\n"
        "result = CliRunner().invoke(app, ['--help'])\n"
        "assert result.exit_code == 0\n"
        "commands = 'list info predict train evaluate benchmark convert data'.split()\n"
        "assert all(name in result.output for name in commands), result.output\n"
        "heavy = {'keras', 'numpy', 'tensorflow', 'zoo', 'PIL', 'cv2'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_python_dash_m_prints_the_version():
    done = subprocess.run(
        [sys.executable, "-m", "kerasvision", "--version"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.startswith("kerasvision ")


def test_root_hides_tensorflow_noise_unless_the_user_chose(monkeypatch):
    monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL", raising=False)
    run("list")
    assert os.environ["TF_CPP_MIN_LOG_LEVEL"] == "3"
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "0")
    run("list")
    assert os.environ["TF_CPP_MIN_LOG_LEVEL"] == "0"


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (("predict", "a.jpg"), ["--model"]),
        (("nonsense",), ["nonsense"]),
        (("train", "--model", "unet", "--data", "streets", "--out", "x", "--epochs", "many"), ["--epochs"]),
        (("predict", "a.jpg", "--model", "unet", "--threshold", "2"), ["--threshold"]),
    ],
)
def test_usage_errors_are_one_line(arguments, parts):
    assert_user_error(run(*arguments), *parts)


def test_unexpected_errors_are_one_line_with_status_1(monkeypatch):
    def fail(**_):
        raise KeyError("gone")

    monkeypatch.setattr(zoo, "list_models", fail)
    result = run("list")
    assert result.exit_code == 1
    assert "unexpected KeyError: 'gone'" in result.stderr and "--debug" in result.stderr
    assert "Traceback" not in result.output


def test_debug_raises_the_error(monkeypatch):
    def fail(**_):
        raise ValueError("gone")

    monkeypatch.setattr(zoo, "list_models", fail)
    result = run("--debug", "list")
    assert isinstance(result.exception, ValueError)


def test_message_of_a_long_coloured_error_is_one_line():
    text = cli_inputs.message_of(ValueError("Exception \x1b[1mwhen\x1b[0m\n\ncalling " + "x" * 900))
    assert text.startswith("Exception when calling xxx") and len(text) == 600 and "\n" not in text


# -- list, info, convert -----------------------------------------------------------------------------------


def test_list_shows_models_of_a_task():
    result = run("list", "--task", "detection")
    assert result.exit_code == 0
    assert "retinanet_resnet50_fpn" in result.stdout and "unet" not in result.stdout


def test_list_json_is_what_the_zoo_knows():
    listed = json.loads(run("list", "--json").stdout)
    assert [entry["name"] for entry in listed] == zoo.list_models()


def test_list_of_an_unknown_task_is_a_user_error():
    assert_user_error(run("list", "--task", "depth"), "--task depth", "'detection', 'segmentation'")


def test_info_shows_the_paper_and_unknown_names_list_close_ones():
    result = run("info", "retinanet_resnet50_fpn")
    assert result.exit_code == 0 and "Focal Loss" in result.stdout
    assert_user_error(run("info", "retinanet_resnet50"), "MODEL retinanet_resnet50", "retinanet_resnet50_fpn")


def test_convert_refuses_missing_and_existing_files_and_other_endings(tmp_path):
    source = tmp_path / "weights.pth"
    model = ("--model", "unet_resnet10")
    assert_user_error(run("convert", source, tmp_path / "w.safetensors", *model), f"SOURCE {source}", "no such")
    source.write_bytes(b"")
    assert_user_error(run("convert", source, tmp_path / "w.h5", *model), "must end in .safetensors")
    (tmp_path / "w.safetensors").write_bytes(b"mine")
    assert_user_error(run("convert", source, tmp_path / "w.safetensors", *model), "OUT", "--overwrite")
    assert (tmp_path / "w.safetensors").read_bytes() == b"mine"


def test_convert_of_a_truncated_pth_is_a_user_error(tmp_path):
    source = tmp_path / "weights.pth"
    source.write_bytes(b"PK\x03\x04 and no more")
    result = run("convert", source, tmp_path / "w.safetensors", "--model", "retinanet_resnet50_fpn")
    assert_user_error(result, f"SOURCE {source}")
    assert not (tmp_path / "w.safetensors").exists()


# -- predict -----------------------------------------------------------------------------------------------


def test_predict_draws_and_prints_a_table(fake, scene, tmp_path):
    result = run("predict", scene, "--model", "m", "--out", tmp_path / "out", "--threshold", "0.3")
    assert result.exit_code == 0, result.output
    assert "car" in result.stdout and "0.75" in result.stdout and "20" in result.stdout
    assert fake.predictors[0].score_threshold == 0.3
    drawn = pixels_of(tmp_path / "out" / "scene.png")
    assert drawn.shape == SCENE.shape
    assert (drawn[30, 20:61] != 90).any(axis=1).all()  # the box's upper edge
    assert (drawn[35:48, 25:55] == 90).all()


def test_predict_json_is_all_that_is_on_stdout(fake, scene, tmp_path):
    result = run("predict", scene, "--model", "m", "--out", tmp_path / "out", "--json")
    (entry,) = json.loads(result.stdout)
    assert entry["boxes"] == [[20, 30, 60, 50]]
    assert entry["file"] == str(scene) and entry["picture"] == str(tmp_path / "out" / "scene.png")


def test_predict_segmentation_prints_shares_and_draws_a_legend(fake, scene, tmp_path):
    fake.task = "segmentation"
    result = run("predict", scene, "--model", "m", "--out", tmp_path / "out")
    assert "25.0%" in result.stdout and "75.0%" in result.stdout
    assert fake.predictors[0].score_threshold is None
    assert len(pixels_of(tmp_path / "out" / "scene.png")) > 60


def test_predict_masks_are_indexed_png_of_the_ids_and_never_overwrite_an_input(fake, scene):
    fake.task = "segmentation"
    before = scene.read_bytes()
    result = run("predict", scene, "--model", "m", "--no-draw", "--masks", scene.parent, "--json")
    assert result.exit_code == 0, result.output
    (entry,) = json.loads(result.stdout)
    assert scene.read_bytes() == before and entry["mask"] == str(scene.parent / "scene-2.png")
    with Image.open(entry["mask"]) as image:
        assert image.mode == "P"
        ids = np.asarray(image)
        assert np.asarray(image.convert("RGB"))[0, 0].tolist() == default_palette(1)[0].tolist()
    assert (ids[:, :20] == 0).all() and (ids[:, 20:] == 1).all()
    assert [(part["class"], part["share"]) for part in entry["classes"]] == [("bus", 0.75), ("car", 0.25)]


def test_predict_in_one_folder_gives_picture_and_mask_a_name_each(fake, scene, tmp_path):
    fake.task = "segmentation"
    result = run("predict", scene, "--model", "m", "--out", tmp_path / "out", "--masks", tmp_path / "out")
    assert "1 picture in" in result.stderr and "1 mask in" in result.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["scene-2.png", "scene.png"]


def test_predict_passes_on_tiles_views_and_crf(fake, scene, tmp_path):
    fake.task = "segmentation"
    arguments = ("predict", scene, "--model", "m", "--out", tmp_path / "out")
    options = ("--tile", 64, "--overlap", 16, "--tile-mode", "centre", "--mirror", "--batch-size", 4)
    result = run(*arguments, *options, "--scales", "0.5,1", "--flip", "--crf")
    assert result.exit_code == 0, result.output
    given = fake.predictors[0].options
    assert given["tiles"] == Tiles(64, overlap=16, mode="centre", mirror=True) and given["batch_size"] == 4
    assert given["augment"].scales == (0.5, 1.0) and given["augment"].flip and given["augment"].merge == "mean"
    assert given["crf"] == DenseCRF()
    run(*arguments, "--tile", 64)
    assert fake.predictors[1].options["tiles"] == Tiles(64, overlap=16, mode="linear")
    run(*arguments, "--flip")
    assert fake.predictors[2].options["augment"].scales == (1.0,)
    run(*arguments, "--scales", "2")
    assert not fake.predictors[3].options["augment"].flip and "tiles" not in fake.predictors[3].options


def test_predict_in_tiles_shows_a_bar_of_them_on_a_terminal(fake, scene, tmp_path, monkeypatch):
    fake.task = "segmentation"
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich then takes stderr for a terminal
    arguments = ("predict", scene, "--model", "m", "--out", tmp_path / "out")
    for options, shown in ((("--tile", 64), True), ((), False)):
        result = run(*arguments, *options)
        assert result.exit_code == 0 and "predicting" in result.stderr
        assert ("tiles" in result.stderr and "1/2" in result.stderr) == shown  # the stand-in has done 1 of 2


def test_predict_in_tiles_draws_large_images_smaller(fake, scene, tmp_path, monkeypatch):
    fake.task = "segmentation"
    monkeypatch.setattr(cli_predict, "_LONGEST_DRAWN", 40)  # of 80
    arguments = ("predict", scene, "--model", "m", "--out", tmp_path / "out", "--masks", tmp_path / "masks")
    run(*arguments, "--tile", 64)
    assert pixels_of(tmp_path / "out/scene.png").shape[1] == 40
    assert pixels_of(tmp_path / "masks/scene.png").shape == SCENE.shape
    run(*arguments)
    assert pixels_of(tmp_path / "out/scene.png").shape[1] == 80


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (["--overlap", "8"], ["--overlap: is for tiles", "--tile 512"]),
        (["--mirror"], ["--mirror: is for tiles"]),
        (["--tile-mode", "centre"], ["--tile-mode: is for tiles"]),
        (["--tile", "64", "--overlap", "64"], ["--tile 64", "`overlap` (64, 64) must be below"]),
        (["--tile", "64", "--tile-mode", "center"], ["--tile-mode", "center"]),
        (["--scales", "half"], ["--scales half", "such as 0.5,1,1.5"]),
        (["--scales", "0,1"], ["--scales 0,1", "each above 0"]),
    ],
)
def test_predict_wrong_options_of_segmenters_are_user_errors(fake, scene, options, parts):
    fake.task = "segmentation"
    assert_user_error(run("predict", scene, "--model", "m", *options), *parts)


@pytest.mark.parametrize("options", [["--tile", "64"], ["--scales", "1"], ["--flip"], ["--crf"], ["--masks", "m"]])
def test_predict_options_of_segmenters_are_refused_for_a_detector(fake, scene, options):
    result = run("predict", scene, "--model", "m", *options)
    assert_user_error(result, f"{options[0]}: is for segmenters, but --model m is a detector")


def test_predict_never_overwrites_an_input(fake, scene):
    before = scene.read_bytes()
    result = run("predict", scene, "--model", "m", "--out", scene.parent)
    assert result.exit_code == 0
    assert scene.read_bytes() == before
    assert sorted(path.name for path in scene.parent.iterdir()) == ["scene-2.png", "scene.png"]


def test_predict_images_of_one_name_get_a_picture_each(fake, scene, tmp_path):
    other = save_image(SCENE, tmp_path / "other" / "scene.png")
    run("predict", scene, other, "--model", "m", "--out", tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["scene-2.png", "scene.png"]


def test_predict_no_draw_writes_nothing(fake, scene, tmp_path):
    assert run("predict", scene, "--model", "m", "--out", tmp_path / "out", "--no-draw").exit_code == 0
    assert not (tmp_path / "out").exists()


def test_predict_a_corrupt_image_is_named_and_the_others_are_done(fake, scene, tmp_path):
    corrupt = scene.parent / "broken.jpg"
    corrupt.write_bytes(b"\xff\xd8 no image")
    result = run("predict", scene.parent, "--model", "m", "--out", tmp_path / "out", "--batch-size", "2")
    assert result.exit_code == 2
    assert "car" in result.stdout and (tmp_path / "out" / "scene.png").exists()
    assert [line for line in result.stderr.splitlines() if line.startswith("error:")] == [
        f"error: SOURCE {corrupt}: no image that can be decoded"
    ]


def test_predict_a_missing_file_or_an_empty_folder_is_a_user_error(tmp_path):
    assert_user_error(run("predict", tmp_path / "no.jpg", "--model", "unet"), "no.jpg", "no such file")
    assert_user_error(run("predict", tmp_path, "--model", "unet"), "holds no image")
    assert_user_error(run("predict", tmp_path / "*.jpg", "--model", "unet"), "matches no image")


def test_predict_of_unknown_models_and_weights_is_a_user_error(scene, tmp_path):
    assert_user_error(run("predict", scene, "--model", "unet_resnet5"), "--model unet_resnet5", "unet_resnet50")
    assert_user_error(run("predict", scene, "--model", "gone.keras"), "--model gone.keras", "no such file")
    result = run("predict", scene, "--model", "unet_resnet10", "--weights", tmp_path / "gone.pth")
    assert_user_error(result, "--weights", "gone.pth", "no file")
    (tmp_path / "broken.keras").write_bytes(b"PK")
    assert_user_error(run("predict", scene, "--model", tmp_path / "broken.keras"), "broken.keras")


def test_find_images_of_folders_and_patterns_gives_each_once(tmp_path):
    for name in ("b.jpg", "a.PNG", "c.txt", "deep/d.webp"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")
    found = cli_inputs.find_images([str(tmp_path), str(tmp_path / "*.jpg"), str(tmp_path / "**" / "*.webp")])
    assert [path.name for path in found] == ["a.PNG", "b.jpg", "d.webp"]


# -- train, evaluate, benchmark ----------------------------------------------------------------------------


class NonFiniteLossError(RuntimeError):
    pass


def training_module(train):
    return SimpleNamespace(train=train, NonFiniteLossError=NonFiniteLossError)


@pytest.fixture
def training(monkeypatch):
    """Replace kerasvision.training.train; returns the arguments of its calls."""
    calls = []

    def train(model, train_data, val_data, **options):
        calls.append((model, train_data, val_data, options))
        return {"loss": [2.0, 1.0], "val_AP": [0.1, 0.5]}

    monkeypatch.setitem(sys.modules, "kerasvision.training", training_module(train))
    return calls


def test_train_passes_on_what_was_asked_and_shows_the_history(fake, training, tmp_path, monkeypatch):
    loaded = []

    def load(name, weights, **options):
        loaded.append((name, weights, options))
        return fake

    monkeypatch.setattr(cli_train, "load_model", load)
    result = run(
        *("train", "--model", "retinanet_resnet10_fpn", "--data", "streets", "--out", tmp_path / "run"),
        *("--epochs", 3, "--batch-size", 4, "--size", 64, 96, "--seed", 5, "--limit", 7, "--weights", "none"),
    )
    assert result.exit_code == 0, result.output
    assert "val_AP" in result.stdout and "0.5" in result.stdout
    ((model, train_data, val_data, options),) = training
    assert model is fake
    assert len(train_data) == 7 and train_data.name == "streets" and train_data[0].name == "streets/train/00000"
    assert val_data.sample_name(0) == "streets/validation/00000"
    assert options == {
        "epochs": 3,
        "batch_size": 4,
        "run_dir": tmp_path / "run",
        "resume": False,
        "seed": 5,
        "augment": True,
        "verbose": 2,
    }
    name, weights, model_options = loaded[0]
    assert (name, weights) == ("retinanet_resnet10_fpn", "none")
    assert model_options["num_classes"] == 7 and model_options["class_names"] == train_data.classes
    assert model_options["resize_rule"].size_hw == (64, 96)


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (["--num-classes", "7"], ["No such option", "--num-classes"]),
        (["--classes", "auto"], ["--classes auto", "--data streets names its classes itself", "voc:DIR"]),
        (["--resume"], ["--out", "does not exist", "--resume"]),
        (["--split", "trian"], ["--data streets --split trian", "train, validation, test"]),
        (["--val-split", "dev"], ["--data streets --val-split dev"]),
        (["--size", "0", "5"], ["--size 0 5", "size_hw"]),
    ],
)
def test_train_wrong_arguments_are_user_errors(fake, training, tmp_path, options, parts):
    arguments = ["train", "--model", "retinanet_resnet10_fpn", "--data", "streets", "--out", tmp_path / "run"]
    assert_user_error(run(*arguments, *options), *parts)
    assert training == []


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (["--loss", "dise"], ["--loss dise", "is no loss's name; did you mean 'dice'"]),
        (["--loss", "dice + dise"], ["--loss dice + dise", "adds up 'dise'"]),
        (["--class-weights", "enet"], ["--class-weights enet: is for a loss", "--loss cross_entropy"]),
        (["--loss", "lovasz_softmax", "--class-weights", "enet"], ["--loss lovasz_softmax", "takes no class weights"]),
        (["--model", "retinanet_resnet10_fpn", "--loss", "dice"], ["--loss dice: is for segmenters", "is a detector"]),
    ],
)
def test_train_with_a_loss_that_does_not_fit_is_a_user_error(fake, training, tmp_path, options, parts):
    fake.compile = lambda loss: None
    arguments = ["train", "--model", "unet_resnet10", "--data", "streets", "--limit", 1, "--out", tmp_path / "run"]
    assert_user_error(run(*arguments, *options), *parts)
    assert training == []


def test_train_compiles_the_loss_that_was_asked_for_with_weights_of_the_data(fake, training, tmp_path, monkeypatch):
    from kerasvision import data

    compiled = []
    fake.compile = lambda loss: compiled.append(loss)
    arguments = ["train", "--model", "unet_resnet10", "--data", "streets", "--limit", 3]
    result = run(*arguments, "--out", tmp_path / "a", "--loss", "cross_entropy + 0.5 * dice")
    assert result.exit_code == 0, result.output
    result = run(*arguments, "--out", tmp_path / "b", "--loss", "cross_entropy + dice", "--class-weights", "inverse")
    assert result.exit_code == 0, result.output
    run(*arguments, "--out", tmp_path / "c")
    plain, weighted = compiled
    assert plain.factors == (1.0, 0.5) and plain.losses[0].class_weights is None
    counts = data.count_pixels(data.load("streets", split="train", task="segmentation", count=3))
    for part in weighted.losses:
        np.testing.assert_allclose(part.class_weights, data.class_weights(counts, "inverse"), rtol=1e-6)
    assert len(training) == 3


def test_train_resume_goes_on_if_an_epoch_was_finished(fake, training, tmp_path):
    arguments = ["train", "--model", "retinanet_resnet10_fpn", "--data", "streets", "--out", tmp_path]
    result = run(*arguments, "--resume")
    assert result.exit_code == 0 and "from the beginning" in result.stderr
    (tmp_path / "last.safetensors").write_bytes(b"")
    assert run(*arguments, "--resume").exit_code == 0
    assert [call[3]["resume"] for call in training] == [False, True]


def test_train_without_lengths_takes_the_recipes_and_says_so(fake, training, tmp_path):
    arguments = ["train", "--model", "retinanet_resnet10_fpn", "--data", "streets"]
    result = run(*arguments, "--out", tmp_path / "a")
    assert "epochs: 7, batch size: 3 (the recipe's)" in result.stdout
    result = run(*arguments, "--out", tmp_path / "b", "--batch-size", 2)
    assert "epochs: 7, batch size: 2 (the recipe's are 7 and 3)" in result.stdout
    assert [(call[3]["epochs"], call[3]["batch_size"]) for call in training] == [(7, 3), (7, 2)]


def test_train_of_a_finished_model_says_how(tmp_path):
    result = run("train", "--model", "best.keras", "--data", "streets", "--out", tmp_path / "run")
    assert_user_error(result, "--model best.keras", "give its name in the zoo as --model and the file as --weights")


def test_train_history_shows_a_dash_for_what_was_not_measured(capsys, tmp_path):
    history = {"loss": [2.0, 1.0], "val_AP": [None, 0.25], "old": [0.5], "never": [None, None]}
    cli_train._show_history(history, tmp_path)
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert rows[1:] == [["loss", "2", "1"], ["val_AP", "–", "0.25"], ["old", "0.5", "–"]]


def test_train_that_finds_a_fault_in_the_validation_split_names_it(fake, training, voc, tmp_path):
    (voc / "Annotations/c.xml").write_text("<annotation>")
    arguments = ["train", "--model", "retinanet_resnet10_fpn", "--data", f"voc:{voc}", "--classes", "auto"]
    result = run(*arguments, "--out", tmp_path / "run")
    assert_user_error(result, "--val-split val", "c.xml: line 1: XML is malformed")


def test_train_into_a_folder_with_a_run_needs_resume(fake, training, tmp_path):
    (tmp_path / "last.safetensors").write_bytes(b"")
    arguments = ["train", "--model", "retinanet_resnet10_fpn", "--data", "streets", "--out", tmp_path]
    assert_user_error(run(*arguments), "--out", "holds a run already", "--resume")
    assert training == []


def test_train_that_meets_a_non_finite_loss_ends_in_one_line(fake, tmp_path, monkeypatch):
    def train(*_, **__):
        raise NonFiniteLossError("box_regression is nan at step 3, images a.jpg")

    monkeypatch.setitem(sys.modules, "kerasvision.training", training_module(train))
    result = run("train", "--model", "retinanet_resnet10_fpn", "--data", "streets", "--out", tmp_path / "run")
    assert_user_error(result, "box_regression is nan at step 3, images a.jpg")


def test_evaluate_prints_the_scores_or_json(fake, monkeypatch):
    from benchmarks import accuracy

    classes = accuracy.ClassMap(np.array([0]), missing=("bus",))
    scored = accuracy.Accuracy({"AP": 0.5, "AP50": float("nan")}, {"car": 0.5, "bus": None}, 4, classes)
    monkeypatch.setattr(accuracy, "score", lambda *_, **options: scored)
    arguments = ("evaluate", "--model", "retinanet_resnet10_fpn", "--data", "streets", "--limit", 4)
    result = run(*arguments)
    assert result.exit_code == 0 and "0.500" in result.stdout
    assert "does not know bus" in result.stderr
    content = json.loads(run(*arguments, "--json").stdout)
    assert content["metrics"] == {"AP": 0.5, "AP50": None}
    assert content["per_class"] == {"car": 0.5, "bus": None} and content["images"] == 4


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (["--models", "unet,unett"], ["--models unett", "'unet'"]),
        (["--models", ","], ["--models"]),
        (["--models", "gone.keras"], ["--models gone.keras", "no such file"]),
        (["--models", "unet", "--batch-sizes", "1,none"], ["--batch-sizes 1,none", "whole numbers"]),
        (["--models", "unet", "--classes", "names.txt"], ["--classes names.txt", "names its classes itself"]),
    ],
)
def test_benchmark_wrong_arguments_are_user_errors(options, parts):
    assert_user_error(run("benchmark", "--data", "streets", *options), *parts)


# -- Data sets ---------------------------------------------------------------------------------------------


def test_train_opens_the_images_that_a_model_is_for(fake, training, voc, tmp_path):
    arguments = ("--data", f"voc:{voc}", "--classes", "auto")
    assert run("train", "--model", "unet_resnet10", *arguments, "--out", tmp_path / "masks").exit_code == 0
    fake.task = "segmentation"
    assert run("train", "--model", "retinanet_resnet10_fpn", *arguments, "--out", tmp_path / "boxes").exit_code == 0
    (_, masks, masks_val, _), (_, boxes, boxes_val, _) = training
    assert masks.tasks == {"segmentation"} and boxes.tasks == {"detection"}
    assert [sample_names(part) for part in (masks, masks_val, boxes, boxes_val)] == ["bd", "d", "ab", "c"]
    # No image of the validation split has a scooter on it.
    assert boxes.classes == boxes_val.classes == ("kite", "scooter")
    assert masks.mask_classes == masks_val.mask_classes == ("background", "kite", "scooter")


def sample_names(dataset):
    return "".join(Path(dataset.sample_name(index)).stem for index in range(len(dataset)))


def test_train_on_classes_of_your_own_names_the_option(voc, tmp_path):
    arguments = ("train", "--model", "retinanet_resnet10_fpn", "--data", f"voc:{voc}", "--out", tmp_path / "run")
    assert_user_error(run(*arguments), "class 'scooter' is unknown", "--classes auto, or --classes FILE")
    result = run(*arguments, "--classes", tmp_path / "gone.txt")
    assert_user_error(result, f"--classes {tmp_path}/gone.txt", "cannot be read", "one a line")
    (tmp_path / "names.txt").write_text("kite\n")
    result = run(*arguments, "--classes", tmp_path / "names.txt")
    assert_user_error(result, "class 'scooter' is unknown", "add it to the file passed as --classes")


def test_train_without_the_annotations_of_the_task_says_so(voc, tmp_path):
    for path in (voc / "SegmentationClass").iterdir():
        path.unlink()
    result = run("train", "--model", "unet_resnet10", "--data", f"voc:{voc}", "--out", tmp_path / "run")
    assert_user_error(result, "has no masks, which segmentation needs")


def test_train_on_coco_with_a_missing_mask_names_the_annotation(tmp_path):
    save_image(SCENE, tmp_path / "train/a.png")
    note = {"image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9]}
    content = {
        "images": [{"id": 1, "file_name": "a.png", "height": 60, "width": 80}],
        "categories": [{"id": 1, "name": "kite"}],
        "annotations": [{"id": 5, **note, "segmentation": [[0, 0, 9, 0, 9, 9]]}, {"id": 17, **note}],
    }
    (tmp_path / "annotations.json").write_text(json.dumps(content))
    result = run("train", "--model", "unet_resnet10", "--data", f"coco:{tmp_path}", "--out", tmp_path / "run")
    assert_user_error(result, "1 of 2 annotations have no `segmentation` (17), which segmentation needs")
    checked = run("data", "check", f"coco:{tmp_path}")
    assert checked.exit_code == 0 and "(17), so no masks are read" in checked.stdout
    checked = run("data", "check", f"coco:{tmp_path}", "--task", "segmentation")
    assert checked.exit_code == 1 and "annotation 17" in checked.stdout


def test_train_says_if_it_validates_on_the_images_that_it_trains_on(fake, training, voc, tmp_path):
    arguments = ("train", "--model", "retinanet_resnet10_fpn", "--data", f"voc:{voc}", "--classes", "auto")
    result = run(*arguments, "--val-split", "train", "--out", tmp_path / "run")
    assert "note: 2 of the 2 images to validate on are also trained on" in result.stderr


OWN = ("kite", "scooter")


@pytest.mark.parametrize(
    ("task", "model_classes", "folder_classes", "expected"),
    [
        ("detection", OWN, "auto", OWN),
        ("detection", ("scooter", "boat", "kite"), "auto", ("scooter", "boat", "kite")),
        ("detection", ("kite",), "auto", None),  # scooter is unknown: the reader says what to do
        ("detection", None, "auto", None),
        ("detection", OWN, "file", None),  # class_names.txt says it
        ("segmentation", ("background", *OWN), "auto", OWN),
        ("segmentation", ("background", "scooter", "kite", "boat"), "auto", ("scooter", "kite", "boat")),
        ("segmentation", ("road", "kite", "scooter"), "auto", None),  # without background: not made for VOC masks
        ("segmentation", ("background", "bus", "dog"), "bus dog", ("bus", "dog")),
        ("segmentation", ("background", *VOC_CLASSES), "bus dog", VOC_CLASSES),
        ("segmentation", ("background", "kite"), "bus dog", None),
    ],
)
def test_classes_of_a_voc_folder_may_be_those_of_the_model(task, model_classes, folder_classes, expected, tmp_path):
    names = {"auto": OWN, "file": OWN}.get(folder_classes) or folder_classes.split()
    folder = write_voc(tmp_path, {"a": names}, lists={})
    if folder_classes == "file":
        (folder / "class_names.txt").write_text("kite\nscooter\n")
    card = cli_datasets.Card(task, model_classes)
    assert cli_datasets._classes_of_models(f"voc:{folder}", task, [card]) == expected


def test_classes_of_masks_that_could_be_counted_in_two_ways_have_to_be_named(tmp_path):
    folder = write_voc(tmp_path, {"a": ["bus"]}, lists={})
    card = cli_datasets.Card("segmentation", ("background", "truck", "bus"))
    with pytest.raises(cli_inputs.UserError, match=r"may mean truck, bus, …, .* or aeroplane, .*--classes FILE"):
        cli_datasets._classes_of_models(f"voc:{folder}", "segmentation", [card])


def test_benchmark_of_both_tasks_opens_the_images_of_each(voc):
    cards = [cli_datasets.Card("segmentation", None), cli_datasets.Card("detection", None)]
    opened = cli_datasets.open_for_models(f"voc:{voc}", "train", classes="auto", models=cards)
    assert {task: sample_names(dataset) for task, dataset in opened.items()} == {
        "segmentation": "bd",
        "detection": "ab",
    }
    scenes = cli_datasets.open_for_models("streets", "test", classes=None, models=cards)
    assert scenes["segmentation"] is scenes["detection"]


def test_card_of_a_damaged_or_foreign_keras_file_is_a_user_error(tmp_path):
    for content, part in ((b"PK", "cannot be loaded as a Keras model"), (None, "is a keras:Sequential")):
        path = tmp_path / "m.keras"
        path.write_bytes(content or b"")
        if content is None:
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr("config.json", '{"module": "keras", "class_name": "Sequential", "config": {}}')
        result = run("evaluate", "--model", path, "--data", "streets")
        assert_user_error(result, f"--model {path}", part)


# -- data --------------------------------------------------------------------------------------------------


def test_data_show_draws_the_samples_asked_for(tmp_path):
    out = tmp_path / "new" / "sheet.png"
    result = run("data", "show", "streets", "--count", 2, "--columns", 1, "--no-masks", "--out", out)
    assert result.exit_code == 0 and "2 of 4000 samples" in result.stdout
    assert len(pixels_of(out)) > 2 * 2 * 256  # two scenes of 256 rows, drawn twice as large


def test_data_show_wrong_arguments_are_user_errors(tmp_path):
    assert_user_error(run("data", "show", "street"), "--data street", "'streets'")
    assert_user_error(run("data", "show", "streets", "--first", 9999), "--first 9999", "0 to 3999")
    result = run("data", "show", "streets", "--count", 1, "--out", tmp_path / "sheet.xyz")
    assert_user_error(result, "--out", "'.xyz'")


def test_data_check_lists_problems_and_exits_with_1(monkeypatch):
    from kerasvision import data

    problems = [
        data.Problem("a.xml", "line 3", "box [5, 5, 5, 9] has no area"),
        data.Problem("b.jpg", "", "image without boxes", "note"),
    ]
    monkeypatch.setattr(data, "check", lambda dataset, progress: problems)
    result = run("data", "check", "streets", "--split", "validation")
    assert result.exit_code == 1
    assert "a.xml" in result.stdout and "line 3" in result.stdout and "has no area" in result.stdout
    assert "validation split, detection and segmentation: 200 samples, 1 errors, 1 notes" in result.stdout
    listed = json.loads(run("data", "check", "streets", "--no-notes", "--json").stdout)
    assert [problem["file"] for problem in listed] == ["a.xml"]


def test_data_of_a_task_shows_and_checks_its_own_images(voc, tmp_path):
    voc_data, out = f"voc:{voc}", tmp_path / "sheet.png"
    result = run("data", "show", voc_data, "--classes", "auto", "--task", "segmentation", "--out", out)
    assert "2 of 2 samples" in result.stdout and "note: " in result.stderr  # that mask values are guessed
    check = ("data", "check", voc_data, "--classes", "auto")
    assert "train split, detection: 2 samples, 0 errors" in run(*check).stdout
    # As JSON, since a table wraps where the folder's name makes it.
    assert "pass --task segmentation for them" in run(*check, "--json").stdout
    (voc / "SegmentationClass/d.png").unlink()
    result = run(*check, "--task", "segmentation", "--json")
    assert result.exit_code == 1 and "d.png" in result.stdout and "mask file is missing" in result.stdout
    result = run("data", "check", voc_data)
    assert result.exit_code == 1 and "--classes auto, or --classes FILE" in result.stdout
    assert_user_error(run("data", "check", voc_data, "--task", "depth"), "--task depth", "'detection'")


def test_data_check_of_good_data_exits_with_0(monkeypatch):
    from kerasvision import data

    monkeypatch.setattr(data, "check", lambda dataset, progress: [])
    assert run("data", "check", "streets").exit_code == 0


def test_data_weights_prints_counts_and_weights(voc):
    arguments = ("data", "weights", f"voc:{voc}", "--classes", "auto")
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    # 2 masks of 40 x 60 with 20 x 30 pixels of class 1: 3600 and 1200 of 4800; frequencies 3/4 and 1/4, median 1/2.
    lines = [line.split() for line in result.stdout.splitlines()]
    assert lines[1:] == [
        ["background", "3600", "75.00%", "2", "0.6667"],
        ["kite", "1200", "25.00%", "2", "2"],
        ["scooter", "0", "0.00%", "0", "0"],
    ]
    listed = json.loads(run(*arguments, "--method", "inverse", "--json").stdout)
    assert listed[1] == {"class": "kite", "pixels": 1200, "images": 2, "weight": 2.0}
    assert_user_error(run(*arguments, "--method", "median"), "--method", "median")
    assert_user_error(run("data", "weights", "voc:nowhere"), "nowhere", "no such folder")
