"""A conversion uses every tensor and fills every variable, or fails by name and changes nothing."""

import keras
import numpy as np
import pytest

import zoo
from zoo.converters import Assignment, assign, variable_names
from zoo.converters.assign import kernel_from_torch, matrix_from_torch
from zoo.errors import WeightsError
from zoo.registry import import_attribute


@pytest.fixture
def model(tiny):
    return import_attribute("tiny_architecture:build_tiny")(3)


@pytest.fixture
def whole(tiny):
    return import_attribute("tiny_architecture:WHOLE")


def values(model):
    return [keras.ops.convert_to_numpy(variable).copy() for variable in model.weights]


def test_apply_complete_file_fills_every_variable(tiny, model, whole):
    assert whole.apply(model, tiny, origin="a.pth", target="tiny") == []
    body, bias, head, head_bias = values(model)
    # OIHW -> HWIO: output 2, input 1, row 0, column 2 of the source.
    assert body[0, 2, 1, 2] == tiny["body.weight"][2, 1, 0, 2]
    np.testing.assert_array_equal(bias, tiny["body.bias"])
    np.testing.assert_array_equal(head[0, 0], tiny["head.weight"][:, :, 0, 0].T)
    np.testing.assert_array_equal(head_bias, tiny["head.bias"])


def changed(tensors, **changes):
    """Return the tensors with some replaced (or, by None, left out); `__` stands for a dot."""
    result = dict(tensors)
    for key, value in changes.items():
        result[key.replace("__", ".")] = value
    return {name: value for name, value in result.items() if value is not None}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"body__bias": None}, r"1 tensors missing in the file: body\.bias \(for conv2d\.0/bias\)"),
        ({"extra__weight": np.zeros(3)}, r"1 tensors of the file unused: extra\.weight"),
        (
            {"head__bias": np.zeros(4)},
            r"1 tensors of another shape: head\.bias \(4,\) for conv2d\.1/bias \(3,\)",
        ),
        ({"head__weight": np.zeros((3, 4))}, r"head\.weight \(3, 4\) for conv2d\.1/kernel \(1, 1, 4, 3\)"),
        (
            {"body__bias": None, "extra": np.zeros(1)},
            r"missing in the file: body\.bias.*; 1 tensors of the file unused: extra",
        ),
    ],
)
def test_apply_file_that_does_not_fit_names_the_tensors_and_changes_nothing(tiny, model, whole, changes, said):
    before = values(model)
    with pytest.raises(WeightsError, match=rf"a\.pth does not fit tiny: .*{said}"):
        whole.apply(model, changed(tiny, **changes), origin="a.pth", target="tiny")
    for old, new in zip(before, values(model), strict=True):
        np.testing.assert_array_equal(old, new)


def test_apply_knowingly_ignored_tensor_is_no_error(tiny, model, whole):
    tensors = changed(tiny, bn__num_batches_tracked=np.int64(3))
    assert whole.apply(model, tensors, origin="a.pth", target="tiny") == []


def test_assign_variable_without_a_source_is_an_error(tiny, model):
    pairs = [Assignment("body.weight", model.backbone.kernel, kernel_from_torch)]
    with pytest.raises(WeightsError, match=r"3 variables without a tensor: conv2d\.0/bias, conv2d\.1/kernel"):
        assign(model, {"body.weight": tiny["body.weight"]}, pairs, origin="a.pth", target="tiny")


def test_assign_variable_filled_twice_is_an_error(tiny, model):
    pairs = [Assignment(name, model.backbone.bias) for name in ("body.bias", "body.weight")]
    with pytest.raises(WeightsError, match=r"fills conv2d\.0/bias twice"):
        assign(model, tiny, pairs, origin="a.pth", target="tiny")


def test_assign_long_lists_are_shortened(model):
    tensors = {f"t{index}": np.zeros(1) for index in range(9)}
    with pytest.raises(WeightsError, match="9 tensors of the file unused: t0, t1, t2, t3, …"):
        assign(model, tensors, [], origin="a.pth", target="tiny")


def test_apply_keep_head_leaves_it_and_names_it(tiny, whole):
    model = import_attribute("tiny_architecture:build_tiny")(7)
    head = keras.ops.convert_to_numpy(model.head.kernel).copy()
    kept = whole.apply(model, tiny, origin="a.pth", target="tiny", keep_head=True)
    assert kept == ["conv2d.1/kernel", "conv2d.1/bias"]
    np.testing.assert_array_equal(head, keras.ops.convert_to_numpy(model.head.kernel))
    np.testing.assert_array_equal(tiny["body.bias"], keras.ops.convert_to_numpy(model.backbone.bias))


def test_matrix_from_torch_is_transposed():
    assert matrix_from_torch(np.zeros((5, 2))).shape == (2, 5)


def test_kernel_from_torch_transposed_convolution_equals_torch():
    torch = pytest.importorskip("torch")
    generator = np.random.default_rng(0)
    images = generator.normal(size=(1, 4, 5, 3)).astype(np.float32)
    theirs = torch.nn.ConvTranspose2d(3, 2, 2, stride=2)
    ours = keras.layers.Conv2DTranspose(2, 2, strides=2)
    ours.build(images.shape)
    ours.kernel.assign(kernel_from_torch(theirs.weight.detach().numpy()))
    ours.bias.assign(theirs.bias.detach().numpy())
    expected = theirs(torch.from_numpy(images.transpose(0, 3, 1, 2))).detach().numpy().transpose(0, 2, 3, 1)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(ours(images)), expected, atol=1e-5)


# Names of variables -----------------------------------------------------------------------------------------


def test_variable_names_do_not_depend_on_layers_made_before(tiny):
    build = import_attribute("tiny_architecture:build_tiny")
    first = list(variable_names(build(3)))
    keras.layers.Conv2D(1, 1)
    assert list(variable_names(build(3))) == first
    assert first == ["conv2d.0/kernel", "conv2d.0/bias", "conv2d.1/kernel", "conv2d.1/bias"]


def test_variable_names_leave_out_seeds_metrics_and_optimizers():
    model = keras.Sequential([keras.layers.Dense(2, name="one"), keras.layers.Dropout(0.5)])
    model.compile(optimizer="adam", loss="mse", metrics=["mae"])
    model.fit(np.zeros((2, 3)), np.zeros((2, 2)), verbose=0)
    assert list(variable_names(model)) == ["one/kernel", "one/bias"]


def test_variable_names_shared_layer_is_named_once():
    inputs = keras.Input((4,))
    shared = keras.layers.Dense(4, name="shared")
    model = keras.Model(inputs, shared(shared(inputs)))
    assert list(variable_names(model)) == ["shared/kernel", "shared/bias"]


def test_variable_names_two_layers_of_one_name_are_an_error():
    class Twins(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.twins = [keras.layers.Dense(1, name="twin") for _ in range(2)]
            for twin in self.twins:
                twin.build((None, 1))

    with pytest.raises(ValueError, match="two variables are called 'twin/kernel'"):
        variable_names(Twins())


@pytest.mark.parametrize("name", ["retinanet_resnet10_fpn", "unet_resnet10"])
def test_variable_names_cover_every_weight_of_a_real_model(name):
    model = zoo.get(name, weights=None)
    names = variable_names(model)
    assert {id(variable) for variable in names.values()} == {id(variable) for variable in model.weights}
    assert not [key for key in names if "." in key], "a layer without a name: its place could change"
