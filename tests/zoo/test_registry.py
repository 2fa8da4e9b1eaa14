"""Listing, looking up and registering models."""

import dataclasses
import json
import subprocess
import sys

import pytest

import zoo
from kerasvision.ops.resizing import ResizeRule
from zoo.class_names import COCO_80, COCO_91, VOC_21
from zoo.registry import import_attribute

SETS = [(name, weights) for name in zoo.list_models() for weights in zoo.info(name).weights]


def test_list_models_by_task_and_weights(tiny):
    everything = zoo.list_models()
    assert everything == sorted(everything)
    assert {"retinanet_resnet50_fpn", "retinanet_resnet10_fpn", "unet", "unet_resnet50"} <= set(everything)
    assert "unet" in zoo.list_models(task="segmentation")
    assert "unet" not in zoo.list_models(task="detection")
    assert "unet" in zoo.list_models(pretrained=False)
    pretrained = zoo.list_models(pretrained=True)
    assert {"retinanet_resnet50_fpn", "tiny"} <= set(pretrained)
    assert "unet_resnet50" not in pretrained  # weights of a backbone alone segment nothing


def test_list_models_unknown_task_is_an_error():
    with pytest.raises(ValueError, match="`task` 'detect' must be 'detection', 'segmentation' or None"):
        zoo.list_models(task="detect")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("retinanet_resnet50", "`name` 'retinanet_resnet50' is no model.*'retinanet_resnet50_fpn'"),
        ("UNet", "'unet'"),
        ("retinanet", "'retinanet_resnet50_fpn' or 'retinanet_resnet10_fpn'"),
        ("zzz", "it has: 'attention_unet', .*…"),
        ("retinanet_resnet50_fpn.coco", "no weights 'coco'; did you mean 'coco_v1'"),
        ("unet.coco_v1", "no weights 'coco_v1'; it has: none"),
    ],
)
def test_info_unknown_name_lists_close_ones(name, said):
    with pytest.raises(ValueError, match=said):
        zoo.info(name)


def test_info_name_of_another_type_is_an_error():
    with pytest.raises(TypeError, match="`name` is a int"):
        zoo.info(3)


def test_info_with_tag_shows_that_one_alone():
    entry = zoo.info("retinanet_resnet50_fpn.coco_v1")
    assert entry.tags == ["coco_v1"]
    assert entry.default == "coco_v1"


def test_info_printed_states_source_figures_and_conditions():
    sheet = str(zoo.info("retinanet_resnet50_fpn"))
    for fact in (
        "https://arxiv.org/abs/1708.02002",
        "Apache-2.0",
        "34.12 M with 91 classes",
        "151.54 G at 800×800",
        "retinanet_resnet50_fpn.coco_v1 (default)",
        "https://download.pytorch.org/models/retinanet_resnet50_fpn_coco-eeacb38b.pth",
        "eeacb38b",
        "shortest side 800, longest at most 1333",
        "COCO val2017 AP 36.4",
        "measured not yet",
        "epsilon=0.0",
    ):
        assert fact in sheet
    assert "fills    the backbone only" in str(zoo.info("unet_resnet50"))
    assert "fills    the backbone, fc6 and fc7 only" in str(zoo.info("fcn8s_vgg16"))


def test_entries_say_what_their_converters_fill():
    from zoo.registry import import_attribute

    partial = [
        weights for name in zoo.list_models() for weights in zoo.info(name).weights if weights.part == "backbone"
    ]
    assert partial
    for weights in partial:
        assert (weights.fills or "the backbone") == import_attribute(weights.converter).fills


def test_info_rich_panel_and_json_hold_the_same_facts():
    from rich.console import Console

    console = Console(width=200, file=open("/dev/null", "w"), record=True)  # noqa: SIM115
    with console.file:
        console.print(zoo.info("retinanet_resnet50_fpn"))
    assert "COCO val2017 AP 36.4" in console.export_text()
    assert json.loads(json.dumps(zoo.info("retinanet_resnet50_fpn").to_dict()))["macs_hw"] == [800, 800]


def test_register_same_name_needs_replace(tiny):
    entry = dataclasses.replace(zoo.info("tiny"), description="another")
    with pytest.raises(ValueError, match="'tiny' is registered already; pass replace=True"):
        zoo.register(entry)
    zoo.register(entry, replace=True)
    assert zoo.info("tiny").description == "another"
    with pytest.raises(ValueError, match="'unet' is registered already"):
        zoo.register(dataclasses.replace(entry, name="unet"))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"name": "a.b"}, "without a dot"),
        ({"task": "pose"}, "`task` 'pose' of tiny"),
        ({"builder": "module.function"}, "'module:attribute'"),
        ({"default": "v2"}, r"`default` 'v2' of tiny must be one of its tags \['v1'\]"),
    ],
)
def test_entry_wrong_field_names_it(tiny, changes, said):
    with pytest.raises(ValueError, match=said):
        dataclasses.replace(zoo.info("tiny"), **changes)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"sha256": "0123"}, "`sha256` '0123' must be 8 or more"),
        ({"source": "ftp://a"}, "`source` 'ftp://a' must begin with"),
        ({"num_classes": None, "class_names": None}, "need `num_classes` and `resize_rule`"),
        ({"class_names": "coco"}, "`class_names` 'coco' is unknown"),
        ({"class_names": "coco_91"}, "has 91 names for `num_classes` 3"),
    ],
)
def test_weights_wrong_field_names_it(tiny, changes, said):
    with pytest.raises(ValueError, match=said):
        dataclasses.replace(zoo.info("tiny").weights[0], **changes)


def test_scratch_options_are_options_of_the_builder():
    from zoo.loading import builder_options

    for name in zoo.list_models():
        entry = zoo.info(name)
        assert set(entry.scratch_options) <= set(builder_options(entry))


def test_retinanet_resnet50_without_weights_trains_every_part_as_torchvision():
    from kerasvision.layers import FrozenBatchNormalization

    model = zoo.get("retinanet_resnet50_fpn", weights=None, num_classes=2)
    layers = model._flatten_layers()
    assert all(layer.trainable and not isinstance(layer, FrozenBatchNormalization) for layer in layers)
    # 53 convolutions with kernel, gamma and beta; 3 lateral, 3 output, P6 and P7 with kernel and bias; two heads of 5.
    assert len(model.trainable_variables) == 53 * 3 + 8 * 2 + 2 * 5 * 2
    kept = zoo.get("retinanet_resnet50_fpn", weights=None, num_classes=2, frozen_stages=2)
    assert not kept.backbone.get_layer("stem").trainable


@pytest.mark.parametrize(("name", "weights"), SETS, ids=[f"{name}.{w.tag}" for name, w in SETS])
def test_weights_of_every_entry_are_described_in_full(name, weights):
    assert weights.license
    assert weights.recipe
    assert weights.reported or weights.measured
    assert weights.source.startswith(("https://", "embedded:"))
    if weights.converter != "native":
        assert import_attribute(weights.converter).part == weights.part
    if weights.part == "model":
        assert isinstance(weights.resize_rule, ResizeRule)
        assert weights.class_names


@pytest.mark.parametrize("name", ["retinanet_resnet10_fpn", "unet_resnet10"])
def test_recipe_of_a_small_model_is_that_of_its_embedded_weights(name):
    import re

    recipe = zoo.get(name, weights=None).recipe
    (weights,) = zoo.info(name).weights
    commands = weights.recipe
    assert recipe.epochs == max(int(number) for number in re.findall(r"--epochs (\d+)", commands))
    scenes = set(re.findall(r"--scenes (\d+)", commands))
    assert all(f"{number} scenes" in recipe.source for number in scenes)
    assert {str(recipe.batch_size)} == set(re.findall(r"--batch-size (\d+)", commands) or ["8"])  # its default
    for epochs in re.findall(r"--stop-after (\d+)", commands):
        assert f"stopped after epoch {epochs} of {recipe.epochs}" in recipe.source


def test_embedded_files_are_those_of_the_index_and_small():
    from zoo.cache import sha256_of
    from zoo.embedded import FOLDER, MAX_BYTES, _read_index

    index = _read_index(FOLDER)
    assert {line["file"] for line in index.values()} == {path.name for path in FOLDER.glob("*.safetensors")}
    for line in index.values():
        path = FOLDER / line["file"]
        assert sha256_of(path) == line["sha256"]
        assert path.stat().st_size == line["size_bytes"] <= MAX_BYTES


def test_page_of_streets_figures_is_that_of_the_index():
    # After new weights: python -m zoo.recipes.table > docs/streets.md
    from pathlib import Path

    from zoo.recipes.table import page

    assert (Path(__file__).parents[2] / "docs/streets.md").read_text() == page()


def test_class_names_count_and_order():
    assert (len(COCO_91), len(COCO_80), len(VOC_21)) == (91, 80, 21)
    # COCO category ids: person 1, car 3, stop sign 13, toothbrush 90 (instances_val2017.json).
    assert [COCO_91[i] for i in (0, 1, 3, 12, 13, 90)] == [
        "__background__", "person", "car", "N/A", "stop sign", "toothbrush",
    ]  # fmt: skip
    assert (COCO_80[0], COCO_80[11], COCO_80[79]) == ("person", "stop sign", "toothbrush")
    assert (VOC_21[0], VOC_21[15], VOC_21[20]) == ("__background__", "person", "tvmonitor")


def test_import_zoo_loads_no_model_and_lists_without_one():
    code = (
        "import sys, keras; before = set(sys.modules); import zoo; zoo.list_models(); zoo.info('unet')\n"
        "new = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "assert not new & {'tensorflow', 'torch', 'jax', 'cv2', 'rich', 'safetensors', 'matplotlib'}, new\n"
        "loaded = [m for m in sys.modules if m.startswith('kerasvision.') and '.ops' not in m]\n"
        "assert set(loaded) <= {'kerasvision.version', 'kerasvision.files', 'kerasvision.naming'}, loaded"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
