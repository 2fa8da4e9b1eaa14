"""torchvision's layouts, from random checkpoints that torchvision itself makes."""

import re

import keras
import numpy as np
import pytest

import zoo
from zoo.errors import WeightsError

torch = pytest.importorskip("torch")
detection = pytest.importorskip("torchvision.models.detection")
models = pytest.importorskip("torchvision.models")


def random_statistics(module):
    """Give every batch normalisation values that show a mistake: none of them 0 or 1."""
    generator = torch.Generator().manual_seed(0)
    for name, tensor in module.state_dict().items():
        if re.search(r"(bn\d|downsample\.1)\.", name) and tensor.is_floating_point():
            tensor.uniform_(0.5, 1.5, generator=generator)
    return module.eval()


@pytest.fixture(scope="module")
def reference():
    torch.manual_seed(0)
    return random_statistics(detection.retinanet_resnet50_fpn(weights=None, weights_backbone=None, num_classes=5))


def relative_error(ours, theirs):
    ours, theirs = keras.ops.convert_to_numpy(ours), theirs.detach().numpy()
    assert ours.shape == theirs.shape
    return np.abs(ours - theirs).max() / np.abs(theirs).max()


def old_spelling(state):
    """Return a state dict as torchvision wrote it before 0.13."""
    result = {}
    for name, tensor in state.items():
        name = re.sub(r"((?:inner|layer)_blocks\.\d)\.0\.", r"\1.", name)
        match = re.fullmatch(r"(head\.\w+_head\.conv)\.(\d)\.0\.(\w+)", name)
        if match:
            name = f"{match[1]}.{2 * int(match[2])}.{match[3]}"
        result[name] = tensor
    return result


def test_retinanet_raw_outputs_equal_torchvision_in_both_spellings(tmp_path, reference):
    image = torch.rand(1, 3, 96, 128, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        features = list(reference.backbone(reference.transform.normalize(image)).values())
        expected = reference.head(features)
    new, old = tmp_path / "new.pth", tmp_path / "old.pth"
    torch.save(reference.state_dict(), new)
    torch.save({"model": old_spelling(reference.state_dict())}, old, _use_new_zipfile_serialization=False)
    pixels = image.permute(0, 2, 3, 1).numpy() * 255
    model = zoo.get("retinanet_resnet50_fpn", weights=new)
    assert model.num_classes == 5
    raw = model(pixels)
    assert relative_error(np.concatenate(raw["logits"], axis=1), expected["cls_logits"]) < 1e-4
    assert relative_error(np.concatenate(raw["deltas"], axis=1), expected["bbox_regression"]) < 1e-4
    again = zoo.get("retinanet_resnet50_fpn", weights=old)
    for ours, theirs in zip(model.weights, again.weights, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(ours), keras.ops.convert_to_numpy(theirs))


def test_retinanet_missing_and_extra_tensors_are_named(tmp_path, reference):
    state = dict(reference.state_dict())
    del state["backbone.body.layer3.5.bn2.running_var"]
    state["head.classification_head.conv.7.0.weight"] = torch.zeros(1)
    path = tmp_path / "odd.pth"
    torch.save(state, path)
    with pytest.raises(
        WeightsError,
        match=r"layer3\.5\.bn2\.running_var \(for resnet/stage3_block5_conv2/normalization/moving_variance\)"
        r".*unused: head\.classification_head\.conv\.7\.0\.weight",
    ):
        zoo.get("retinanet_resnet50_fpn", weights=path)


@pytest.mark.parametrize(("name", "depth"), [("unet_resnet34", "resnet34"), ("unet_resnet50", "resnet50")])
def test_backbone_features_equal_torchvision(tmp_path, name, depth):
    torch.manual_seed(0)
    reference = random_statistics(getattr(models, depth)(weights=None))
    path = tmp_path / "classifier.pth"
    torch.save(reference.state_dict(), path)
    model = zoo.get(name, weights=path, num_classes=4)
    images = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        x = reference.layer1(reference.maxpool(reference.relu(reference.bn1(reference.conv1(images)))))
        expected = reference.layer4(reference.layer3(reference.layer2(x)))
    features = model.backbone(images.permute(0, 2, 3, 1).numpy(), training=False)
    assert relative_error(features[-1], expected.permute(0, 2, 3, 1)) < 1e-4


def test_classifier_of_another_depth_is_refused(tmp_path):
    path = tmp_path / "resnet18.pth"
    torch.save(models.resnet18(weights=None).state_dict(), path)
    with pytest.raises(WeightsError, match=r"does not fit the backbone of unet_resnet34: .* missing in the file"):
        zoo.get("unet_resnet34", weights=path)


def test_detector_file_for_a_segmenter_is_refused(tmp_path, reference):
    path = tmp_path / "detector.pth"
    torch.save(reference.state_dict(), path)
    with pytest.raises(WeightsError, match="layout that unet_resnet50 does not know"):
        zoo.get("unet_resnet50", weights=path)


@pytest.mark.parametrize(
    ("name", "tag", "enum"),
    [
        ("retinanet_resnet50_fpn", "coco_v1", detection.RetinaNet_ResNet50_FPN_Weights.COCO_V1),
        ("unet_resnet34", "imagenet", models.ResNet34_Weights.IMAGENET1K_V1),
        ("unet_resnet50", "imagenet", models.ResNet50_Weights.IMAGENET1K_V1),
    ],
)
def test_published_weights_are_described_as_torchvision_does(name, tag, enum):
    weights = zoo.info(name).weights_of(tag)
    assert weights.source == enum.url
    assert f"-{weights.sha256}." in enum.url
    assert weights.recipe == enum.meta["recipe"]
    assert weights.size_bytes == pytest.approx(enum.meta["_file_size"] * 2**20, rel=1e-3)
    (figures,) = enum.meta["_metrics"].values()
    assert next(iter(weights.reported.values())) in figures.values()
    if weights.part == "model":
        assert list(weights.class_names) == enum.meta["categories"]
        # torchvision leaves the parameters of frozen normalisation out: 26,560 channels, four values each.
        assert zoo.info(name).parameters == enum.meta["num_params"] + 4 * 26_560
        assert zoo.info(name).macs / 1e9 == pytest.approx(enum.meta["_ops"], abs=0.005)
