import numpy as np
import pytest

from benchmarks import timing
from kerasvision.visualize import save_image


@pytest.fixture
def files(tiny_set, tmp_path):
    return [save_image(tiny_set[i].image, tmp_path / f"{i}.jpg") for i in range(len(tiny_set))]


def test_distribution_of_a_hundred_values_gives_all_percentiles():
    summary = timing.distribution(np.arange(1, 101) / 1000)
    # Linear interpolation over ranks 0-99: p50 = 50.5, p90 = 90.1, p99 = 99.01
    assert summary["samples"] == 100
    assert summary["p50"] == pytest.approx(0.0505)
    assert summary["p90"] == pytest.approx(0.0901)
    assert summary["p99"] == pytest.approx(0.09901)
    assert (summary["min"], summary["max"]) == (0.001, 0.1)


@pytest.mark.parametrize(
    ("samples", "given"),
    [(0, []), (4, []), (5, ["p50"]), (19, ["p50"]), (20, ["p50", "p90"]), (99, ["p50", "p90"])],
)
def test_distribution_of_too_few_samples_refuses_percentiles(samples, given):
    summary = timing.distribution([0.01] * samples)
    assert [name for name in timing.REQUIRED_SAMPLES if summary[name] is not None] == given


def test_percentile_text_of_a_refused_percentile_tells_the_samples_needed():
    assert timing.percentile_text({"p99": None}, "p99") == "n<100"
    assert timing.percentile_text({"p99": 0.01234}, "p99") == "12.3"


def test_is_stable_compares_the_last_medians():
    assert not timing.is_stable([1.0] * 5)
    assert timing.is_stable([1.0, 1.0, 9.0, 1.04, 1.04, 5.0])  # medians 1.0 and 1.04
    assert not timing.is_stable([1.0, 1.0, 1.0, 1.1, 1.1, 1.1])


def test_warm_up_meets_every_shape_and_ends_when_stable():
    seen = []

    def run(number):
        seen.append(number)
        return 1.0, (number % 2,)

    result = timing.warm_up(run, 4)
    assert set(seen) == {0, 1, 2, 3}
    assert result["stable"] and result["input_shapes"] == 2
    assert result["runs"] == 8  # 2 first meetings, then 6 runs make two windows of 3


def test_warm_up_that_never_settles_ends_at_the_bound_and_says_so():
    times = iter(2.0**k for k in range(100))
    result = timing.warm_up(lambda number: (next(times), (1,)), 1, max_runs=9)
    assert result["runs"] == 9 and not result["stable"]


def test_run_batch_takes_the_stages_in_order_and_their_sum_is_the_whole(tiny_set, oracle, files):
    predictor = oracle(tiny_set, "detection", ("car", "bus"), seconds=0.02)
    seconds, results, _ = timing.run_batch(predictor, files[:2])
    assert predictor.calls == ["read", "read", "preprocess 2", "network", "postprocess"]
    assert len(results) == 2
    assert seconds["network"] >= 0.02
    assert sum(seconds[stage] for stage in timing.STAGES) == pytest.approx(seconds[timing.END_TO_END])


def test_time_stages_goes_through_all_images_in_full_batches(tiny_set, oracle, files):
    predictor = oracle(tiny_set, "detection", ("car", "bus"))
    result = timing.time_stages(predictor, files, 4, min_batches=3)
    assert {call for call in predictor.calls if call.startswith("pre")} == {"preprocess 4"}
    assert result["complete"] and result["batch_size"] == 4
    for stage in (*timing.STAGES, timing.END_TO_END):
        assert result["stages"][stage]["samples"] == 3
    mean = result["stages"][timing.END_TO_END]["mean"]
    assert result["images_per_second"] == pytest.approx(4 / mean)


def test_time_stages_out_of_time_says_incomplete(tiny_set, oracle, files):
    predictor = oracle(tiny_set, "detection", ("car", "bus"), seconds=0.005)
    result = timing.time_stages(predictor, files, 1, max_seconds=0.0, warm_up_seconds=0.0)
    assert not result["complete"]
    assert result["stages"][timing.END_TO_END]["samples"] == 1
    assert not result["warm_up"]["stable"]


@pytest.mark.parametrize(
    ("sources", "batch_size", "message"),
    [([], 1, "`sources` is empty"), (["a.jpg"], 0, "`batch_size` 0 must be 1 or more")],
)
def test_time_stages_wrong_arguments_are_named(sources, batch_size, message):
    with pytest.raises(ValueError, match=message):
        timing.time_stages(None, sources, batch_size)


def test_synchronize_reads_one_element_of_each_array(monkeypatch):
    import keras

    fetched = []
    monkeypatch.setattr(keras.ops, "convert_to_numpy", lambda array: fetched.append(array.shape))
    outputs = {"a": keras.ops.ones((2, 3, 4)), "b": [keras.ops.ones((5,)), np.ones(7)]}
    timing.synchronize(outputs)
    assert [tuple(shape) for shape in fetched] == [(1, 1, 1), (1,)]
