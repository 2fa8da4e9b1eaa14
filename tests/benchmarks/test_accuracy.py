import pytest

from benchmarks import accuracy


def test_match_classes_by_name_whatever_the_order_and_spelling():
    classes = accuracy.match_classes(
        ("N/A", "Traffic-Light", "airplane", "dog"), ("aeroplane", "traffic_light", "cat"), num_classes=4
    )
    assert classes.to_data.tolist() == [-1, 1, 0, -1]
    assert classes.missing == ("cat",)
    assert classes.extra == ("dog",)


def test_match_classes_without_names_needs_the_same_number():
    assert accuracy.match_classes(None, ("a", "b"), num_classes=2).to_data.tolist() == [0, 1]
    with pytest.raises(ValueError, match="`model` m has 91 classes without names but the data has 2"):
        accuracy.match_classes(None, ("a", "b"), num_classes=91, model="m")


def test_match_classes_without_a_common_class_is_an_error_with_both_lists():
    with pytest.raises(ValueError, match=r"`model` m has none of the data's classes: it knows dog; .* car, bus"):
        accuracy.match_classes(("dog",), ("car", "bus"), num_classes=1, model="m")


def test_score_detection_of_an_oracle_is_one(tiny_set, oracle):
    predictor = oracle(tiny_set, "detection", ("car", "bus"))
    scored = accuracy.score(predictor, tiny_set, task="detection", batch_size=4, keep=3)
    assert scored.metrics == {"AP": 1.0, "AP50": 1.0, "AP75": 1.0}
    assert scored.per_class == {"car": 1.0, "bus": 1.0}
    assert scored.images == 6
    # linspace(0, 5, 3) = 0, 2.5, 5 → 0, 2, 5
    assert [index for index, _, _ in scored.kept] == [0, 2, 5]


def test_score_detection_of_other_class_ids_is_matched_by_name(tiny_set, oracle):
    predictor = oracle(tiny_set, "detection", ("dog", "bus", "car"), relabel=lambda label: {0: 2, 1: 1}[label])
    scored = accuracy.score(predictor, tiny_set, task="detection")
    assert scored.metrics["AP"] == 1.0
    assert scored.classes.extra == ("dog",)


def test_score_detection_of_a_model_without_a_class_counts_it_as_not_found(tiny_set, oracle):
    # It calls buses dogs: the AP of cars is 1, of buses 0, the mean .5.
    predictor = oracle(tiny_set, "detection", ("car", "dog"))
    scored = accuracy.score(predictor, tiny_set, task="detection")
    assert scored.metrics["AP"] == pytest.approx(0.5)
    assert scored.per_class == {"car": 1.0, "bus": 0.0}
    assert scored.classes.missing == ("bus",)


def test_score_segmentation_of_an_oracle_is_one(tiny_set, oracle):
    predictor = oracle(tiny_set, "segmentation", ("background", "car", "bus"))
    scored = accuracy.score(predictor, tiny_set, task="segmentation")
    assert scored.metrics == {"mIoU": 1.0, "pixel_accuracy": 1.0, "dice": 1.0}
    assert scored.per_class == {"background": 1.0, "car": 1.0, "bus": 1.0}


def test_score_segmentation_of_an_unknown_class_is_a_miss(tiny_set, oracle):
    # Cars are called "dog", which the data does not have: IoU of cars 0, of the others 1, the mean 2/3.
    predictor = oracle(tiny_set, "segmentation", ("background", "dog", "bus"))
    scored = accuracy.score(predictor, tiny_set, task="segmentation")
    assert scored.metrics["mIoU"] == pytest.approx(2 / 3)
    # Half of the images hold one car of 400 of 3072 pixels.
    assert scored.metrics["pixel_accuracy"] == pytest.approx(1 - 400 / 3072 / 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": "detection", "limit": 0}, "`limit` 0 of 6 images leaves none"),
        ({"task": "depth"}, "`data` 'tiny' has no annotations for depth"),
    ],
)
def test_score_wrong_arguments_are_named(tiny_set, oracle, options, message):
    with pytest.raises(ValueError, match=message):
        accuracy.score(oracle(tiny_set, "detection", ("car", "bus")), tiny_set, **options)
