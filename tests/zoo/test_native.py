"""The package's own weights file."""

import keras
import numpy as np
import pytest

import zoo
from kerasvision.ops.resizing import ResizeRule
from kerasvision.training import save_checkpoint
from zoo import native
from zoo.errors import WeightsError
from zoo.registry import import_attribute

RULE = ResizeRule("shortest_side", shortest=80, longest=133, antialias=True)


@pytest.fixture
def build(tiny):
    return import_attribute("tiny_architecture:build_tiny")


def values(model):
    return [keras.ops.convert_to_numpy(variable) for variable in model.weights]


@pytest.mark.parametrize("float16", [True, False])
def test_save_weights_load_weights_gives_the_same_model(tmp_path, build, float16):
    model = build(3, class_names=("a", "b", "c"), resize_rule=RULE)
    path = zoo.save_weights(model, tmp_path / "deep" / "a.safetensors", name="tiny", float16=float16, extra={"AP": 0.5})
    other = build(3)
    metadata = zoo.load_weights(other, path)
    assert (metadata.name, metadata.num_classes, metadata.class_names) == ("tiny", 3, ("a", "b", "c"))
    assert metadata.resize_rule == RULE
    assert metadata.extra == {"AP": 0.5}
    for old, new in zip(values(model), values(other), strict=True):
        if float16 and old.ndim > 1:
            old = old.astype(np.float16).astype(np.float32)
        np.testing.assert_array_equal(old, new)
        assert new.dtype == np.float32
    assert [file.name for file in path.parent.iterdir()] == ["a.safetensors"]


def test_save_weights_float16_halves_kernels_and_keeps_vectors_and_large_values(tmp_path, build):
    from safetensors.numpy import load_file

    model = build(3)
    model.head.kernel.assign(model.head.kernel + 70000.0)  # beyond float16's 65504
    stored = load_file(zoo.save_weights(model, tmp_path / "a.safetensors", float16=True))
    assert {name: array.dtype.name for name, array in stored.items()} == {
        "conv2d.0/kernel": "float16",
        "conv2d.0/bias": "float32",
        "conv2d.1/kernel": "float32",
        "conv2d.1/bias": "float32",
    }


def test_save_weights_same_model_gives_the_same_bytes(tmp_path, build):
    model = build(3)
    paths = [zoo.save_weights(model, tmp_path / f"{index}.safetensors", name="tiny") for index in range(2)]
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_save_weights_not_finite_is_refused_by_name(tmp_path, build):
    model = build(3)
    model.head.bias.assign(np.array([0, np.nan, 0]))
    with pytest.raises(WeightsError, match=r"conv2d\.1/bias holds values that are not finite"):
        zoo.save_weights(model, tmp_path / "a.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_save_weights_other_ending_is_refused(tmp_path, build):
    with pytest.raises(WeightsError, match=r"a\.pth' must end in \.safetensors"):
        zoo.save_weights(build(3), tmp_path / "a.pth")


def test_load_weights_other_number_of_classes_names_the_tensors(tmp_path, build):
    path = zoo.save_weights(build(3), tmp_path / "a.safetensors")
    with pytest.raises(WeightsError, match=r"conv2d\.1/kernel \(1, 1, 4, 3\) for .*\(1, 1, 4, 5\)"):
        zoo.load_weights(build(5), path)


def test_load_weights_foreign_file_says_how_to_convert_it(tmp_path, build):
    from safetensors.numpy import save_file

    save_file({"a": np.zeros(1)}, tmp_path / "a.safetensors")
    with pytest.raises(WeightsError, match=r"was not written by save_weights; give zoo\.get its path"):
        zoo.load_weights(build(3), tmp_path / "a.safetensors")


def test_read_safetensors_truncated_at_any_length_names_the_file(tmp_path, build):
    content = zoo.save_weights(build(3), tmp_path / "a.safetensors").read_bytes()
    path = tmp_path / "cut.safetensors"
    for length in [*range(0, len(content), 97), len(content) - 1]:
        path.write_bytes(content[:length])
        with pytest.raises(WeightsError, match=r"cut\.safetensors is truncated or damaged"):
            native.read_safetensors(path)


def test_read_safetensors_bfloat16_becomes_float32(tmp_path):
    import ml_dtypes
    from safetensors.numpy import save_file

    save_file({"x": np.array([1.5, -3.0], ml_dtypes.bfloat16)}, tmp_path / "a.safetensors")
    tensors, metadata = native.read_safetensors(tmp_path / "a.safetensors")
    assert metadata is None
    assert tensors["x"].dtype == np.float32
    np.testing.assert_array_equal(tensors["x"], [1.5, -3.0])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "damaged metadata"),
        ("{}", "damaged metadata"),
        ('{"format": 2}', "has format 2; this version reads 1"),
    ],
)
def test_read_safetensors_damaged_metadata_is_an_error(tmp_path, text, said):
    from safetensors.numpy import save_file

    save_file({"a": np.zeros(1)}, tmp_path / "a.safetensors", {"kerasvision": text})
    with pytest.raises(WeightsError, match=said):
        native.read_safetensors(tmp_path / "a.safetensors")


def test_embed_writes_the_file_and_its_line(tmp_path, build, monkeypatch):
    from zoo import embedded, loading

    model = build(3, class_names=("a", "b", "c"), resize_rule=RULE, scale=4.0)
    path = embedded.embed(model, "tiny", "streets", measured={"val mIoU": 0.9}, recipe="make tiny", folder=tmp_path)
    (weights,) = embedded.weights_of("tiny", folder=tmp_path)
    assert (weights.tag, weights.source) == ("streets", "embedded:tiny.streets.safetensors")
    assert (weights.num_classes, weights.class_names, weights.resize_rule) == (3, ("a", "b", "c"), RULE)
    assert weights.measured == {"val mIoU": 0.9}
    assert embedded.weights_of("tin", folder=tmp_path) == ()

    import dataclasses

    monkeypatch.setattr(loading, "FOLDER", tmp_path)
    entry = dataclasses.replace(zoo.info("tiny"), weights=(weights,), default="streets")
    zoo.register(entry, replace=True)
    loaded = zoo.get("tiny")
    assert loaded.scale == 4.0  # from the configuration in the file
    assert loaded.class_names == ("a", "b", "c")
    np.testing.assert_allclose(values(loaded)[1], values(model)[1])
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(WeightsError, match=r"tiny\.streets\.safetensors is not the file that index\.json"):
        zoo.get("tiny")
    path.unlink()
    with pytest.raises(WeightsError, match="missing from this installation"):
        zoo.get("tiny.streets")


def test_embed_too_large_is_refused(tmp_path, build, monkeypatch):
    from zoo import embedded

    monkeypatch.setattr(embedded, "MAX_BYTES", 100)
    with pytest.raises(WeightsError, match="embedded weights have at most 100"):
        embedded.embed(build(3), "tiny", "streets", measured={}, recipe="", folder=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_load_weights_of_a_training_checkpoint_names_the_files_to_use(tmp_path, build):
    model = build(3)
    model.compile("sgd", "mse")
    save_checkpoint(tmp_path / "last.safetensors", model, epoch=1, history={"loss": [1.0]})
    with pytest.raises(WeightsError, match=r"last\.safetensors is what a training run resumes from; use best\.keras"):
        zoo.load_weights(model, tmp_path / "last.safetensors")
