"""`zoo.get`."""

import hashlib
import logging

import keras
import numpy as np
import pytest

import zoo
from kerasvision.ops.resizing import ResizeRule
from zoo import cache
from zoo.errors import DownloadError, WeightsError
from zoo.loading import builder_options


def array(variable):
    return keras.ops.convert_to_numpy(variable)


@pytest.fixture
def file(tmp_path, tiny, write_pth):
    """Give the path of a checkpoint of "tiny" for 3 classes."""
    return write_pth(tmp_path / "mine.pth", tiny)


@pytest.fixture
def published(tmp_path, tiny, file, monkeypatch):
    """Put the published weights into the cache, as a download would."""
    import dataclasses

    monkeypatch.setenv("KERASVISION_HOME", str(tmp_path / "home"))
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    entry = zoo.info("tiny")
    weights = dataclasses.replace(entry.weights[0], sha256=sha256)
    zoo.register(dataclasses.replace(entry, weights=(weights,)), replace=True)
    path = cache.cached_path(weights.source, sha256)
    path.parent.mkdir(parents=True)
    path.write_bytes(file.read_bytes())
    return tiny


def test_get_left_out_weights_are_the_default_ones(published):
    model = zoo.get("tiny")
    np.testing.assert_array_equal(array(model.head.bias), published["head.bias"])
    assert model.num_classes == 3
    assert model.class_names == ("a", "b", "c")
    assert model.resize_rule == ResizeRule("stretch", size_hw=(8, 8))
    assert model.scale == 2.0  # the weights' own option


def test_get_tag_in_name_or_as_weights_are_the_same(published):
    for model in (zoo.get("tiny.v1"), zoo.get("tiny", weights="v1")):
        np.testing.assert_array_equal(array(model.head.bias), published["head.bias"])


def test_get_users_option_wins_over_the_weights_option(published):
    assert zoo.get("tiny", scale=5.0).scale == 5.0


def test_get_none_gives_random_weights_without_network_or_file(tiny, monkeypatch):
    monkeypatch.setattr(cache, "fetch", None)
    model = zoo.get("tiny", weights=None)
    assert model.num_classes == 5  # the builder's default
    assert model.class_names is None
    assert zoo.get("tiny", weights=None, num_classes=2).num_classes == 2


def test_get_none_takes_the_options_for_random_weights_unless_the_user_has_others(tiny, file):
    import dataclasses

    zoo.register(dataclasses.replace(zoo.info("tiny"), scratch_options={"scale": 7.0}), replace=True)
    assert zoo.get("tiny", weights=None).scale == 7.0
    assert zoo.get("tiny", weights=None, scale=3.0).scale == 3.0
    assert zoo.get("tiny", weights=file).scale == 1.0  # the builder's own
    assert "scratch    scale=7.0" in str(zoo.info("tiny"))


def test_get_scratch_options_come_back_with_the_weights(tiny, tmp_path):
    import dataclasses

    zoo.register(dataclasses.replace(zoo.info("tiny"), scratch_options={"scale": 7.0}), replace=True)
    path = zoo.save_weights(zoo.get("tiny", weights=None), tmp_path / "a.safetensors")
    assert zoo.get("tiny", weights=path).scale == 7.0


def test_get_offline_names_address_place_and_remedy(tiny, monkeypatch, tmp_path):
    monkeypatch.setenv("KERASVISION_HOME", str(tmp_path))
    monkeypatch.setenv("no_proxy", "*")
    with pytest.raises(DownloadError, match=r"http://127\.0\.0\.1:9/tiny-0123abcd\.pth.*weights=None") as caught:
        zoo.get("tiny")
    assert str(tmp_path / "weights" / "tiny-0123abcd.pth") in str(caught.value)


def test_get_other_number_of_classes_keeps_all_but_the_head_and_says_so(published, caplog):
    with caplog.at_level(logging.WARNING, logger="kerasvision"):
        model = zoo.get("tiny", num_classes=7)
    np.testing.assert_array_equal(array(model.backbone.bias), published["body.bias"])
    assert model.head.kernel.shape == (1, 1, 4, 7)
    assert model.class_names is None
    assert model.resize_rule == ResizeRule("stretch", size_hw=(8, 8))
    (message,) = caplog.messages
    assert message == (
        "tiny: 7 classes instead of the 3 of tiny.v1; all weights are kept but the head's "
        "(conv2d.1/kernel, conv2d.1/bias), which are random and want training"
    )


def test_get_same_number_of_classes_says_nothing(published, caplog):
    with caplog.at_level(logging.WARNING, logger="kerasvision"):
        zoo.get("tiny", num_classes=3)
    assert caplog.messages == []


def test_get_path_takes_the_number_of_classes_from_the_file(tiny, file):
    model = zoo.get("tiny", weights=file)
    np.testing.assert_array_equal(array(model.head.bias), tiny["head.bias"])
    assert model.num_classes == 3
    assert model.class_names is None  # a user's own three classes
    assert model.scale == 1.0
    assert zoo.get("tiny", weights=str(file), num_classes=4).num_classes == 4


def test_get_path_of_the_published_file_is_recognised_by_its_checksum(published, file):
    model = zoo.get("tiny", weights=file)
    assert model.class_names == ("a", "b", "c")
    assert model.scale == 2.0


def test_get_path_of_backbone_weights_fills_it_and_says_so(tmp_path, tiny, write_pth, caplog):
    tensors = {
        "body.weight": tiny["body.weight"],
        "body.bias": tiny["body.bias"],
        "fc.weight": np.zeros((9, 9)),
    }
    path = write_pth(tmp_path / "classifier.pth", tensors)
    with caplog.at_level(logging.WARNING, logger="kerasvision"):
        model = zoo.get("tiny", weights=path)
    np.testing.assert_array_equal(array(model.backbone.bias), tiny["body.bias"])
    assert model.num_classes == 5
    assert caplog.messages == [
        "tiny: classifier.pth fills the backbone alone; everything after it is random and wants training"
    ]


@pytest.mark.parametrize("ending", [".safetensors", ".weights.h5", ".keras"])
def test_get_path_of_own_format_gives_the_same_outputs(tmp_path, tiny, ending):
    rule = ResizeRule("letterbox", size_hw=(32, 48))
    saved = zoo.get("tiny", weights=None, num_classes=2, scale=3.0, class_names=("x", "y"), resize_rule=rule)
    path = tmp_path / f"mine{ending}"
    if ending == ".safetensors":
        zoo.save_weights(saved, path, float16=False)
    elif ending == ".keras":
        saved.save(path)
    else:
        saved.save_weights(path)
    # Keras's weights file holds numbers only; the others say what they are.
    options = {"num_classes": 2, "scale": 3.0} if ending == ".weights.h5" else {}
    model = zoo.get("tiny", weights=path, **options)
    images = np.random.default_rng(0).uniform(size=(1, 8, 9, 3)).astype(np.float32)
    np.testing.assert_array_equal(array(model(images)), array(saved(images)))
    if not options:
        assert tuple(model.class_names) == ("x", "y")
        assert model.resize_rule == rule


def test_get_own_format_with_another_number_of_classes_keeps_all_but_the_head(tmp_path, tiny, caplog):
    saved = zoo.get("tiny", weights=None, num_classes=2)
    path = zoo.save_weights(saved, tmp_path / "a.safetensors", float16=False)
    with caplog.at_level(logging.WARNING, logger="kerasvision"):
        model = zoo.get("tiny", weights=path, num_classes=6)
    np.testing.assert_array_equal(array(model.backbone.kernel), array(saved.backbone.kernel))
    assert "6 classes instead of the 2 of a.safetensors" in caplog.text


def test_get_own_format_users_option_wins_over_the_saved_one(tmp_path, tiny, caplog):
    path = zoo.save_weights(zoo.get("tiny", weights=None, scale=3.0), tmp_path / "a.safetensors")
    with caplog.at_level(logging.WARNING, logger="kerasvision"):
        assert zoo.get("tiny", weights=path, scale=4.0).scale == 4.0
    assert caplog.messages == []


def test_get_own_format_of_another_model_says_which(tmp_path, tiny):
    path = zoo.save_weights(zoo.get("unet_resnet10", weights=None), tmp_path / "a.safetensors")
    with pytest.raises(WeightsError, match=r"a\.safetensors \(weights of unet_resnet10\) does not fit tiny: "):
        zoo.get("tiny", weights=path)


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        ({"name": "tiney"}, ValueError, "`name` 'tiney' is no model of the zoo; did you mean 'tiny'"),
        ({"name": "tiny.v2"}, ValueError, "tiny has no weights 'v2'; did you mean 'v1'"),
        (
            {"name": "tiny.v1", "weights": None},
            ValueError,
            r"'tiny\.v1' picks weights, but `weights` is None",
        ),
        (
            {"name": "tiny", "weights": "v3"},
            WeightsError,
            r"'v3' is no file, and no tag.*\['v1'\].*None for random",
        ),
        ({"name": "tiny", "weights": "/"}, WeightsError, "'/' is a folder"),
        ({"name": "tiny", "weights": "https://a/b.pth"}, ValueError, "is an address without a checksum"),
        ({"name": "tiny", "weights": 3}, TypeError, "`weights` is a int"),
        ({"name": "tiny", "num_classes": 0}, ValueError, "`num_classes` 0 must be an integer of at least 1"),
        ({"name": "tiny", "num_classes": 2.5}, ValueError, r"`num_classes` 2\.5"),
        (
            {"name": "tiny", "scael": 1},
            ValueError,
            "`scael` is no option of tiny; did you mean `scale`. It takes scale, class_names, resize_rule",
        ),
        ({"name": "tiny", "qqq": 1}, ValueError, "`qqq` is no option of tiny; it takes scale, class_names"),
    ],
)
def test_get_wrong_argument_names_it_and_the_remedy(tiny, arguments, error, said):
    with pytest.raises(error, match=said):
        zoo.get(**arguments)


def test_get_file_of_unknown_layout_says_what_is_expected(tmp_path, tiny, write_pth):
    path = write_pth(tmp_path / "odd.pth", {"some.weight": np.zeros(2)})
    with pytest.raises(
        WeightsError,
        match=r"odd\.pth.*such as \['some\.weight'\]; expected a tiny checkpoint or a tiny class",
    ):
        zoo.get("tiny", weights=path)


@pytest.mark.parametrize("ending", [".pth", ".safetensors", ".keras", ".weights.h5", ".zip"])
def test_get_file_of_garbage_is_one_clear_error(tmp_path, tiny, ending):
    path = tmp_path / f"garbage{ending}"
    path.write_bytes(b"garbage" * 100)
    with pytest.raises(WeightsError, match=r"garbage\.") as caught:
        zoo.get("tiny", weights=path)
    assert "\n" not in str(caught.value)


def test_get_h5_of_another_number_of_classes_is_one_clear_error(tmp_path, tiny):
    zoo.get("tiny", weights=None, num_classes=2).save_weights(tmp_path / "a.weights.h5")
    with pytest.raises(WeightsError, match=r"a\.weights\.h5 does not fit .* with 5 classes") as caught:
        zoo.get("tiny", weights=tmp_path / "a.weights.h5")
    assert "\n" not in str(caught.value)


def test_builder_options_are_those_of_builder_class_and_bases():
    options = builder_options(zoo.info("retinanet_resnet50_fpn"))
    assert {"epsilon", "frozen_stages", "score_threshold", "class_names", "image_mean", "name"} <= set(options)
    assert not {"self", "backbone", "num_classes", "options", "kwargs"} & set(options)
