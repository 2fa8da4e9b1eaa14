"""The output stride of dilated segmenters is an option of `zoo.get`."""

import numpy as np
import pytest

import zoo

SMALL = ("deeplab_v1_vgg8", "deeplabv2_resnet10", "deeplabv3_resnet10", "deeplabv3plus_resnet10", "fcn_resnet10")
OTHERS = ("deeplabv3_mobilenet_v3_large", "deeplabv3plus_mobilenet_v2")
NARROW = {"deeplab_v1_vgg16": {"widths": (2, 2, 2, 2, 2), "fc_filters": 4}}


@pytest.mark.parametrize("name", [*SMALL, *OTHERS, *NARROW])
def test_output_stride_is_that_of_the_last_features_and_changes_no_weight(name):
    shapes = set()
    for output_stride in (8, 16):
        model = zoo.get(name, weights=None, num_classes=3, output_stride=output_stride, **NARROW.get(name, {}))
        assert model.backbone.strides[-1] == output_stride
        shapes.add(tuple(tuple(variable.shape) for variable in model.variables))
        if name not in OTHERS:
            assert model(np.zeros((1, 33, 50, 3), np.float32)).shape == (1, 33, 50, 3)
    assert len(shapes) == 1


def test_xception_has_the_papers_doubled_rates_at_an_output_stride_of_8():
    model = zoo.get("deeplabv3plus_xception65", weights=None, output_stride=8)
    assert model.backbone.strides[-1] == 8 and tuple(model.head.decoder.rates) == (12, 24, 36)
