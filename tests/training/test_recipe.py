"""Recipes: learning rates by hand, weight decay, and that each `fit` starts its schedule anew."""

import math

import keras
import numpy as np
import pytest

from kerasvision.models.recipe import Recipe, WarmupSchedule


def _at(schedule, *steps):
    return [float(schedule(step)) for step in steps]


def test_schedule_warms_up_linearly_from_a_thousandth():
    schedule = WarmupSchedule(2.0, warmup_steps=10, decay="constant")
    # 0.001 + 0.999 * step / 10, times 2
    np.testing.assert_allclose(_at(schedule, 0, 5, 10, 1000), [0.002, 1.001, 2.0, 2.0], rtol=1e-6)


def test_schedule_cosine_falls_to_zero():
    schedule = WarmupSchedule(2.0, warmup_steps=10, total_steps=110, decay="cosine")
    # (1 + cos(pi * (step - 10) / 100)) at 10, 35, 60, 85 and 110: cos(pi / 4) = 0.70711
    expected = [2.0, 1.7071068, 1.0, 0.2928932, 0.0]
    np.testing.assert_allclose(_at(schedule, 10, 35, 60, 85, 110), expected, rtol=1e-5, atol=1e-6)
    assert _at(schedule, 500) == [pytest.approx(0, abs=1e-6)]


def test_schedule_step_falls_tenfold_at_each_milestone():
    schedule = WarmupSchedule(1.0, total_steps=100, decay="step", milestones=(0.5, 0.8))
    np.testing.assert_allclose(_at(schedule, 0, 49, 50, 79, 80, 99), [1, 1, 0.1, 0.1, 0.01, 0.01], rtol=1e-5)


def test_schedule_of_unknown_length_stays_at_the_peak():
    assert _at(WarmupSchedule(0.5, decay="cosine"), 0, 10_000) == [0.5, 0.5]


def test_schedule_start_counts_from_there():
    late = WarmupSchedule(1.0, 10, 110, "cosine", start=1000)
    early = WarmupSchedule(1.0, 10, 110, "cosine")
    assert _at(late, 1000, 1005, 1060) == _at(early, 0, 5, 60)


def test_recipe_sgd_scales_the_rate_with_the_batch_and_adamw_does_not():
    sgd = Recipe("sgd", learning_rate=0.01, batch_size=16, warmup_steps=0)
    assert sgd.schedule(batch_size=4).peak == pytest.approx(0.01 * 4 / 16)
    adamw = Recipe("adamw", learning_rate=0.01, batch_size=16)
    assert adamw.schedule(batch_size=4).peak == 0.01


def test_recipe_warm_up_is_at_most_a_tenth_of_the_training():
    recipe = Recipe(warmup_steps=100)
    assert recipe.schedule(total_steps=10_000).warmup_steps == 100
    assert recipe.schedule(total_steps=200).warmup_steps == 20
    assert recipe.schedule(total_steps=3).warmup_steps == 1


def test_recipe_of_torchvision_retinanet_by_hand():
    from kerasvision.models import RetinaNet

    schedule = RetinaNet.default_recipe.schedule(total_steps=26_000, batch_size=16)
    # references/detection: lr 0.01 for 16 images, 1000 steps of warm-up, tenfold less at epochs 16 and 22 of 26
    np.testing.assert_allclose(
        _at(schedule, 1000, 15_999, 16_001, 21_999, 22_001), [1e-2, 1e-2, 1e-3, 1e-3, 1e-4], rtol=1e-5
    )


def test_recipe_milestones_of_a_list_equal_those_of_a_tuple():
    assert Recipe(milestones=[0.5]) == Recipe(milestones=(0.5,))


def test_optimizer_decays_kernels_but_not_biases():
    kernel, bias = keras.Variable(np.ones((2, 2), np.float32)), keras.Variable(np.ones(2, np.float32))
    recipe = Recipe("sgd", learning_rate=0.5, weight_decay=0.1, momentum=0.0, warmup_steps=0, decay="constant")
    optimizer = recipe.make_optimizer([kernel, bias])
    zeros = [keras.ops.zeros((2, 2)), keras.ops.zeros(2)]
    optimizer.apply(zeros, [kernel, bias])
    # Decoupled: w - lr * decay * w = 1 - 0.5 * 0.1
    np.testing.assert_allclose(keras.ops.convert_to_numpy(kernel), np.full((2, 2), 0.95), rtol=1e-6)
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(bias), np.ones(2))


class _Rates(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.rates = []

    def on_train_batch_begin(self, batch, logs=None):
        self.rates.append(float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate)))


def _fit(model, masks, **options):
    rates = _Rates()
    images, targets = (np.repeat(part, 10, axis=0) for part in masks)
    model.fit(images, targets, batch_size=2, callbacks=[rates], verbose=0, **options)
    return rates.rates


def test_fit_again_restarts_the_schedule(make_segmenter, masks):
    model = make_segmenter(recipe=Recipe(learning_rate=1e-3, warmup_steps=2))
    first = _fit(model, masks)
    second = _fit(model, masks)
    # 10 steps, 1 of warm-up (a tenth): from a thousandth up to the peak, then half a cosine over 9 steps
    assert first[0] == pytest.approx(1e-6)
    assert first[1] == pytest.approx(1e-3)
    assert first[5] == pytest.approx(0.5e-3 * (1 + math.cos(math.pi * 4 / 9)))
    np.testing.assert_allclose(second, first, rtol=1e-5)


def test_fit_from_a_later_epoch_goes_on_with_the_schedule(make_segmenter, masks):
    recipe = Recipe(learning_rate=1e-3, warmup_steps=2)
    whole = _fit(make_segmenter(recipe=recipe), masks, epochs=2)
    model = make_segmenter(recipe=recipe)
    _fit(model, masks, epochs=1)
    rest = _fit(model, masks, epochs=2, initial_epoch=1)
    np.testing.assert_allclose(rest, whole[10:], rtol=1e-5)


def test_fit_with_an_own_optimizer_keeps_its_learning_rate(make_segmenter, masks):
    model = make_segmenter()
    model.compile(optimizer=keras.optimizers.SGD(0.125))
    assert set(_fit(model, masks)) == {0.125}


class _Numbers(keras.utils.PyDataset):
    """Batches of given sizes, as a user's own data set yields them."""

    def __init__(self, *sizes):
        super().__init__()
        self.sizes = sizes

    def __len__(self):
        return len(self.sizes)

    def __getitem__(self, index):
        return np.zeros((self.sizes[index], 64, 96, 3), np.float32), np.zeros((self.sizes[index], 64, 96), np.int32)


@pytest.fixture
def peak(make_segmenter, monkeypatch):
    """`peak(data)` is the highest learning rate of a `fit` whose recipe is SGD at 0.16 for 16 images."""

    def of(*data, **options):
        model = make_segmenter(recipe=Recipe("sgd", learning_rate=0.16, batch_size=16))
        model.fit(*data, **options)
        return model.optimizer._learning_rate.peak

    monkeypatch.setattr(keras.Model, "fit", lambda *args, **options: None)
    return of


@pytest.mark.parametrize("framework", ["tf", "pydataset"])
@pytest.mark.parametrize(("count", "batch_size", "images_a_step"), [(8, 4, 4), (9, 4, 4), (5, 8, 5)])
def test_fit_scales_the_rate_alike_for_both_front_ends(peak, framework, count, batch_size, images_a_step):
    from kerasvision.data import pipeline
    from kerasvision.data.streets import Streets
    from kerasvision.ops.resizing import ResizeRule

    for training in (True, False):
        batches = pipeline(
            Streets("train", count=count, size_hw=(64, 96)),
            task="segmentation",
            resize=ResizeRule("letterbox", size_hw=(64, 96)),
            batch_size=batch_size,
            training=training,
            framework=framework,
        )
        assert peak(batches) == pytest.approx(0.01 * images_a_step)


def test_fit_scales_the_rate_by_the_batches_of_other_data(peak):
    import tensorflow as tf

    images, masks = np.zeros((10, 64, 96, 3), np.float32), np.zeros((10, 64, 96), np.int32)
    assert peak(images, masks, batch_size=2) == pytest.approx(0.02)
    assert peak(images, masks) == pytest.approx(0.10)  # Keras's 32 are not there
    assert peak(_Numbers(4, 4, 2)) == pytest.approx(0.04)
    examples = tf.data.Dataset.from_tensor_slices((images, masks))
    assert peak(examples.batch(5, drop_remainder=True)) == pytest.approx(0.05)
    assert peak(examples.batch(4)) == pytest.approx(0.04)
    assert peak((images, masks) for _ in range(2)) == pytest.approx(0.16)  # a generator cannot be looked at
