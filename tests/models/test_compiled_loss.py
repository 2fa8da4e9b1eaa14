"""Losses given to a segmenter by name or as an object, and those that would read its logits wrongly."""

import functools
import inspect

import keras
import numpy as np
import pytest
from keras import ops

from kerasvision import losses
from kerasvision.losses.by_name import BY_NAME
from kerasvision.models.compiled_loss import reads_class_ids, segmentation_loss
from kerasvision.models.unet import unet_resnet10

IMAGES = np.random.default_rng(0).integers(0, 255, (2, 32, 32, 3)).astype(np.float32)
MASKS = np.random.default_rng(1).integers(0, 3, (2, 32, 32)).astype(np.int32)

# Losses of class ids; the others need a target for each class, or boxes.
OF_MASKS = [
    "boundary_cross_entropy",
    "cross_entropy",
    "dice",
    "focal_tversky",
    "jaccard",
    "lovasz_softmax",
    "ohem_cross_entropy",
    "softmax_focal",
    "tversky",
]


@pytest.fixture(scope="module")
def segmenter():
    keras.utils.set_random_seed(0)
    return unet_resnet10(3, decoder_filters=(8, 8, 8, 8, 8))


@pytest.mark.parametrize("name", OF_MASKS)
def test_loss_by_name_is_the_loss_of_the_logits(segmenter, name):
    masks = MASKS.copy()
    masks[0, :3] = 255
    segmenter.compile(loss=name)
    result = segmenter.evaluate(IMAGES, masks, verbose=0, return_dict=True)
    expected = float(ops.convert_to_numpy(BY_NAME[name]()(masks, segmenter(IMAGES))))
    assert float(result["loss"]) == pytest.approx(expected, rel=1e-4)
    assert {"mIoU", "pixel_accuracy", "dice"} <= set(result)


@pytest.mark.parametrize("name", OF_MASKS)
def test_class_id_out_of_range_is_refused_under_a_loss_of_ours(segmenter, name):
    assert reads_class_ids(losses.get(name))
    segmenter.compile(loss=name)
    with pytest.raises(ValueError, match=r"class ids 7 in 1 pixels?"):
        segmenter.fit(IMAGES, np.where(np.arange(32 * 32 * 2).reshape(2, 32, 32) == 5, 7, MASKS), verbose=0)


def test_combination_by_name_is_the_sum_of_the_losses_of_the_logits(segmenter, tmp_path):
    masks = MASKS.copy()
    masks[0, :3] = 255
    segmenter.compile(loss="cross_entropy + 0.5 * lovasz_softmax")
    result = segmenter.evaluate(IMAGES, masks, verbose=0, return_dict=True)
    logits = segmenter(IMAGES)
    expected = [
        float(ops.convert_to_numpy(losses.get(name)(masks, logits))) for name in ("cross_entropy", "lovasz_softmax")
    ]
    assert float(result["loss"]) == pytest.approx(expected[0] + 0.5 * expected[1], rel=1e-4)
    with pytest.raises(ValueError, match=r"class ids 7 in 1 pixels?"):
        segmenter.fit(IMAGES, np.where(np.arange(32 * 32 * 2).reshape(2, 32, 32) == 5, 7, masks), verbose=0)
    segmenter.fit(IMAGES, masks, verbose=0)
    segmenter.save(tmp_path / "model.keras")
    assert keras.saving.load_model(tmp_path / "model.keras").loss.factors == (1.0, 0.5)


@pytest.mark.parametrize("name", ["focal", "2 * focal", "focal + cross_entropy"])
def test_focal_by_name_leaves_out_ignored_pixels(segmenter, name):
    """Whatever is predicted there: the logits of an image whose ignored half is another picture."""
    masks = MASKS.copy()
    masks[:, :, 16:] = 255
    segmenter.compile(loss=name)
    assert segmenter.loss.ignore_class == 255
    logits = ops.convert_to_numpy(segmenter(IMAGES))
    changed = np.where((masks == 255)[..., None], -logits, logits)
    value, other = (float(ops.convert_to_numpy(segmenter.loss(masks, part))) for part in (logits, changed))
    assert value == pytest.approx(other, rel=1e-6) and value > 0
    mine = losses.SigmoidFocalLoss()
    segmenter.compile(loss=mine)
    assert segmenter.loss is mine and mine.ignore_class is None  # an object is as its maker wanted it


def test_loss_by_name_survives_saving(segmenter, tmp_path):
    segmenter.compile(loss="lovasz_softmax")
    segmenter.fit(IMAGES, MASKS, verbose=0)
    segmenter.save(tmp_path / "model.keras")
    assert isinstance(keras.saving.load_model(tmp_path / "model.keras").loss, losses.LovaszSoftmaxLoss)


def test_losses_of_a_target_for_each_class_read_no_class_ids():
    for loss in (losses.get("dice", mode="multilabel"), losses.get("focal"), losses.get("lovasz_hinge"), None):
        assert not reads_class_ids(loss)


@pytest.mark.parametrize(
    ("loss", "said"),
    [
        ("sparse_categorical_crossentropy", "reads probabilities, but a segmenter gives logits; use 'cross_entropy'"),
        (keras.losses.binary_crossentropy, "'binary_crossentropy' reads probabilities.*use 'focal'"),
        (keras.losses.SparseCategoricalCrossentropy(), "SparseCategoricalCrossentropy reads prob.*from_logits=True"),
        (losses.DiceLoss(from_logits=False), "DiceLoss reads probabilities"),
        ("bce", r"'bce' reads prob.*use 'focal', which is kerasvision.losses.SigmoidFocalLoss, or keras.*from_logits"),
        ("BCE", "'BCE' reads probabilities.*use 'focal'"),
        ("BinaryCrossentropy", r"'BinaryCrossentropy' reads .*keras.losses.BinaryCrossentropy\(from_logits=True\)"),
        ("binary_focal_crossentropy", "'binary_focal_crossentropy' reads probabilities.*use 'focal'"),
        ("kld", "'kld' reads probabilities.*use 'cross_entropy', which is kerasvision.losses.CrossEntropyLoss$"),
        ("KLDivergence", "'KLDivergence' reads probabilities"),
        ("poisson", "'poisson' reads probabilities.*use 'cross_entropy'"),
        (keras.losses.Dice(), "Dice reads probabilities.*use 'dice', which is kerasvision.losses.DiceLoss$"),
        (keras.losses.Tversky(alpha=0.3), "Tversky reads probabilities.*use 'tversky'"),
        (keras.losses.Dice, "'Dice' reads probabilities.*use 'dice'"),
        (keras.losses.dice, "'dice' reads probabilities.*use 'dice', which is kerasvision"),
        (keras.losses.tversky, "'tversky' reads probabilities.*use 'tversky'"),
        (keras.ops.sparse_categorical_crossentropy, "'sparse_categorical_crossentropy' reads .*use 'cross_entropy'"),
        (functools.partial(keras.losses.categorical_crossentropy, axis=-1), "'categorical_crossentropy' reads prob"),
        ({"class_name": "Dice", "config": {}}, "{'class_name': 'Dice'.* reads probabilities"),
        (["tversky", keras.losses.Dice()], "Dice reads probabilities"),
        (losses.CombinedLoss([losses.DiceLoss(from_logits=False)]), "DiceLoss reads probabilities"),
        ("dise", "'dise' is no loss's name; did you mean 'dice'"),
    ],
)
def test_loss_that_does_not_fit_logits_is_refused(segmenter, loss, said):
    with pytest.raises(ValueError, match=said):
        segmenter.compile(loss=loss)


def test_functions_and_objects_pass():
    def mine(y_true, y_pred):
        return y_pred

    kept = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    assert segmentation_loss(mine) is mine
    assert segmentation_loss(kept) is kept
    assert segmentation_loss(None) is None


@pytest.mark.parametrize(
    "loss",
    [
        keras.losses.BinaryCrossentropy(from_logits=True),
        keras.losses.BinaryFocalCrossentropy(from_logits=True),
        keras.losses.CategoricalFocalCrossentropy(from_logits=True),
        functools.partial(keras.losses.binary_crossentropy, from_logits=True),
        keras.losses.CategoricalHinge(),  # reads scores
        keras.losses.mean_squared_error,  # of any numbers
    ],
)
def test_losses_of_logits_or_of_any_numbers_pass(loss):
    assert segmentation_loss(loss) is loss


def test_a_subclass_that_reads_logits_itself_passes():
    class OfLogits(keras.losses.Dice):
        def call(self, y_true, y_pred):
            return super().call(y_true, ops.softmax(y_pred))

    loss = OfLogits()
    assert segmentation_loss(loss) is loss


@pytest.mark.parametrize(("name", "kind"), [("Dice", losses.DiceLoss), ("Tversky", losses.TverskyLoss)])
def test_names_in_capitals_are_ours_and_not_those_of_keras(name, kind):
    assert type(segmentation_loss(name)) is kind
    assert type(segmentation_loss(name.lower())) is kind
    assert segmentation_loss("mse") is keras.losses.mean_squared_error


def test_every_function_of_keras_was_judged():
    """A new one must be looked at: whether it reads probabilities."""
    of_anything = {"cosine_similarity", "huber", "log_cosh", "mean_absolute_error", "mean_absolute_percentage_error"}
    of_anything |= {"mean_squared_error", "mean_squared_logarithmic_error", "circle"}
    of_scores = {"categorical_hinge", "ctc", "hinge", "squared_hinge"}
    functions = {f for f in vars(keras.losses).values() if inspect.isfunction(f)}
    functions -= {keras.losses.get, keras.losses.serialize, keras.losses.deserialize}
    refused = set()
    for function in functions:
        try:
            segmentation_loss(function)
        except ValueError:
            refused.add(function.__name__)
    assert {function.__name__ for function in functions} - refused == of_anything | of_scores
