"""torchvision's VGG and AlexNet layouts with the classifier's dense layers, from narrow random checkpoints.

The features alone are compared for all depths in tests/parity/test_vgg_alexnet.py.
"""

import keras
import numpy as np
import pytest

import zoo
from zoo.errors import WeightsError

torch = pytest.importorskip("torch")
vgg = pytest.importorskip("torchvision.models.vgg")
models = pytest.importorskip("torchvision.models")

NARROW = (2, 3, 4, 5, 6)


def _vgg16(path):
    """Save a VGG-16 of few channels, whose dense layers have the published width."""
    torch.manual_seed(0)
    configuration = []
    for width, depth in zip(NARROW, (2, 2, 3, 3, 3), strict=True):
        configuration += [width] * depth + ["M"]
    model = vgg.VGG(vgg.make_layers(configuration), num_classes=2, init_weights=False).eval()
    model.classifier[0] = torch.nn.Linear(NARROW[-1] * 49, 4096)
    torch.save(model.state_dict(), path)
    return model


def _alexnet(path):
    torch.manual_seed(0)
    with torch.device("meta"):
        model = models.alexnet(weights=None, num_classes=2)
    channels = 3
    for index, width in zip((0, 3, 6, 8, 10), NARROW, strict=True):
        old = model.features[index]
        model.features[index] = torch.nn.Conv2d(channels, width, old.kernel_size, old.stride, old.padding)
        channels = width
    model.classifier[1] = torch.nn.Linear(channels * 36, 4096)
    model.classifier[4] = torch.nn.Linear(4096, 4096)
    model.classifier[6] = torch.nn.Linear(4096, 2)
    torch.save(model.eval().state_dict(), path)
    return model


def _numpy(tensor):
    return keras.ops.convert_to_numpy(tensor)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """Return {name: (path, torch's model)}."""
    folder = tmp_path_factory.mktemp("weights")
    made = {"vgg16": _vgg16, "alexnet": _alexnet}
    return {name: (folder / f"{name}.pth", make(folder / f"{name}.pth")) for name, make in made.items()}


@pytest.mark.parametrize(
    ("name", "layout", "size"), [("fcn8s_vgg16", {}, 224), ("fcn32s_alexnet", {"layout": "torchvision"}, 224)]
)
def test_classifier_becomes_backbone_fc6_and_fc7(checkpoints, caplog, name, layout, size):
    """An image of the classifier's own size, without a margin, has one position: that of the dense layers."""
    path, theirs = checkpoints[name.rpartition("_")[2]]
    model = zoo.get(name, weights=path, num_classes=3, widths=NARROW, **layout)
    assert f"{name}: {path.name} fills the backbone, fc6 and fc7 alone; everything after it is random" in caplog.text
    image = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        # To the second dense layer and its ReLU; torchvision's AlexNet rounds down, which is the same at 224.
        expected = theirs.classifier[: 6 if "alexnet" in name else 5](torch.flatten(theirs.features(image), 1))
    features = model.backbone(image.permute(0, 2, 3, 1).numpy())[-1]
    found = _numpy(model.fc7(model.fc6(features)))
    assert found.shape == (1, 1, 1, 4096)
    np.testing.assert_allclose(found[0, 0, 0], expected[0].numpy(), rtol=1e-3, atol=1e-4 * float(expected.max()))


def test_deeplab_takes_every_third_tap_and_fourth_channel(checkpoints):
    path, theirs = checkpoints["vgg16"]
    model = zoo.get("deeplab_v1_vgg16", weights=path, num_classes=3, widths=NARROW)
    first, second = theirs.classifier[0], theirs.classifier[3]
    kernel = first.weight.detach().numpy().reshape(4096, NARROW[-1], 7, 7)
    for row, column, channel, filter_ in ((0, 0, 0, 0), (1, 2, 3, 5), (2, 1, 5, 1023)):
        assert (
            _numpy(model.fc6.kernel)[row, column, channel, filter_]
            == (kernel[4 * filter_, channel, 3 * row, 3 * column])
        )
        assert _numpy(model.fc6.bias)[filter_] == first.bias[4 * filter_]
        assert _numpy(model.fc7.kernel)[0, 0, channel, filter_] == second.weight[4 * filter_, 4 * channel]
        assert _numpy(model.fc7.bias)[filter_] == second.bias[4 * filter_]


def test_torchvisions_alexnet_does_not_fit_caffes(checkpoints):
    with pytest.raises(
        WeightsError, match=r"does not fit the backbone, fc6 and fc7 of fcn32s_alexnet: .*another shape"
    ):
        zoo.get("fcn32s_alexnet", weights=checkpoints["alexnet"][0], num_classes=3, widths=(2, 4, 4, 4, 6))


def test_alexnet_for_vgg_is_refused(checkpoints):
    with pytest.raises(
        WeightsError, match=r"layout that fcn8s_vgg16 does not know.*expected a torchvision VGG classif"
    ):
        zoo.get("fcn8s_vgg16", weights=checkpoints["alexnet"][0], widths=NARROW, fc_filters=4)


@pytest.mark.parametrize(
    ("name", "enum"),
    [
        ("fcn32s_vgg16", models.VGG16_Weights.IMAGENET1K_V1),
        ("fcn8s_alexnet", models.AlexNet_Weights.IMAGENET1K_V1),
        ("deeplab_v1_vgg16", models.VGG16_Weights.IMAGENET1K_V1),
    ],
)
def test_published_weights_are_described_as_torchvision_does(name, enum):
    weights = zoo.info(name).weights_of("imagenet")
    assert weights.source == enum.url
    assert f"-{weights.sha256}." in enum.url
    assert weights.recipe == enum.meta["recipe"]
    assert weights.size_bytes == pytest.approx(enum.meta["_file_size"] * 2**20, rel=1e-3)
    assert list(weights.reported.values()) == [enum.meta["_metrics"]["ImageNet-1K"]["acc@1"]]
