import json
import re

import numpy as np
import pytest

import benchmarks.run
import zoo
from benchmarks import environment, memory, report
from benchmarks.run import benchmark
from kerasvision.inference import Predictor
from kerasvision.models import complexity
from kerasvision.visualize import save_image


@pytest.fixture
def fast(monkeypatch):
    """Oracles are no Keras models: their task is that of the oracle, their size is made up."""
    monkeypatch.setattr(benchmarks.run, "task_of", lambda model: model.task)
    monkeypatch.setattr(complexity, "count_parameters", lambda model: 1_500_000)
    monkeypatch.setattr(complexity, "count_macs", lambda model, size_hw: 2_000_000_000)


@pytest.fixture
def models(tiny_set, oracle):
    boxes = oracle(tiny_set, "detection", ("car", "dog"))
    masks = oracle(tiny_set, "segmentation", ("background", "car", "bus"))
    for predictor in (boxes, masks):
        predictor.model.task = predictor.task
    return [("boxes.<b>", boxes), ("masks", masks)]


def test_benchmark_document_holds_what_was_measured(fast, models, tiny_set):
    steps = []
    results = benchmark(models, tiny_set, batch_sizes=(1, 2), min_batches=5, progress=lambda *step: steps.append(step))
    document = json.loads(json.dumps(results.document, allow_nan=False))
    assert document["schema"] == 1
    assert document["data"] == {
        "name": "tiny",
        "split": "test",
        "images": 6,
        "smallest_hw": [48, 64],
        "largest_hw": [48, 64],
    }
    boxes, masks = document["models"]
    assert boxes["task"] == "detection" and masks["task"] == "segmentation"
    assert boxes["accuracy"]["metrics"]["AP"] == pytest.approx(0.5)
    assert boxes["accuracy"]["missing_classes"] == ["bus"] and boxes["accuracy"]["extra_classes"] == ["dog"]
    assert [times["batch_size"] for times in boxes["timing"]] == [1, 2]
    assert boxes["timing"][0]["stages"]["end_to_end"]["samples"] == 6
    assert boxes["timing"][1]["stages"]["end_to_end"]["samples"] == 5
    assert boxes["timing"][0]["stages"]["end_to_end"]["p99"] is None
    assert boxes["macs_hw"] == [48, 64] and boxes["precision"] == "float32"
    assert boxes["memory"] is None  # Keras cannot save a stand-in
    assert any("does not know bus" in note for note in document["notes"])
    assert any("6 images were no files" in note for note in document["notes"])
    assert steps[0] == ("boxes.<b>", "accuracy", 2, 6)
    assert ("masks", "time, batch 2", 5, 5) in steps


def test_benchmark_with_a_data_set_for_each_task_measures_each_model_on_its_own(fast, oracle, tiny_set):
    class Others(type(tiny_set)):
        def sample_name(self, index):
            return f"other/{index}"

    others = Others(4)
    boxes, masks = oracle(tiny_set, "detection", ("car", "bus")), oracle(others, "segmentation", others.mask_classes)
    for predictor in (boxes, masks):
        predictor.model.task = predictor.task
    sets, options = {"detection": tiny_set, "segmentation": others}, {"batch_sizes": (1,), "min_batches": 3}
    results = benchmark([("boxes", boxes), ("masks", masks)], sets, limit=5, pictures=1, **options)
    assert [model["accuracy"]["images"] for model in results.document["models"]] == [5, 4]
    assert results.document["data"]["images"] == 9
    assert [picture.image_name.split("/")[0] for picture in results.pictures] == ["tiny", "tiny", "other", "other"]
    with pytest.raises(ValueError, match="a data set for detection only, but `model` masks does segmentation"):
        benchmark([("masks", masks)], {"detection": tiny_set}, **options)


def test_benchmark_report_is_one_page_that_loads_nothing(fast, models, tiny_set, tmp_path):
    path = benchmark(models, tiny_set, batch_sizes=(1,), min_batches=5, pictures=2).write(tmp_path / "new")
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["report.html", "results.json"]
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"""(src|href)=["'](?!data:)""", text)
    assert not re.search(r"@import|url\(|https?://", text)
    assert "boxes.&lt;b&gt;" in text and "boxes.<b>" not in text
    assert "n&lt;20" in text and "n&lt;100" in text
    # Ground truth and prediction of 2 images for each of 2 tasks.
    assert text.count("data:image/jpeg;base64,") == 8
    assert text.count('<figure class="plot"') == 2


def test_benchmark_goes_on_after_a_model_that_does_not_fit(fast, models, oracle, tiny_set):
    dogs = oracle(tiny_set, "detection", ("dog",))
    dogs.model.task = "detection"
    document = benchmark([("dogs", dogs), models[1]], tiny_set, batch_sizes=(1,), min_batches=5, pictures=0).document
    assert [model["name"] for model in document["models"]] == ["masks"]
    (failure,) = document["failures"]
    assert failure["name"] == "dogs" and "none of the data's classes" in failure["error"]
    assert document["notes"][0].startswith("dogs was not measured: ")


def test_benchmark_without_any_model_that_fits_is_an_error(fast, oracle, tiny_set):
    dogs = oracle(tiny_set, "detection", ("dog",))
    dogs.model.task = "detection"
    with pytest.raises(ValueError, match="`model` dogs has none of the data's classes"):
        benchmark([("dogs", dogs)], tiny_set)


def test_benchmark_by_name_loads_each_model_once(fast, models, tiny_set):
    loaded = []

    def load(name):
        loaded.append(name)
        return dict(models)["masks"]

    results = benchmark(["a", "b"], tiny_set, batch_sizes=(1,), min_batches=5, pictures=0, load=load)
    assert loaded == ["a", "b"]
    assert results.pictures == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"models": []}, "`models` is empty"),
        ({"models": ["a", "a"]}, "names a model twice"),
        ({"models": ["a"], "batch_sizes": (0,)}, r"`batch_sizes` \[0\]"),
        ({"models": ["a"], "limit": 0}, "`limit` 0 must be 1 or more"),
    ],
)
def test_benchmark_wrong_arguments_are_named(tiny_set, options, message):
    with pytest.raises(ValueError, match=message):
        benchmark(data=tiny_set, **options)


def test_task_of_something_else_is_refused():
    with pytest.raises(ValueError, match="`model` is a dict; expected a kerasvision Detector or Segmenter"):
        benchmarks.run.task_of({})


def test_environment_describe_is_json_with_the_machine_and_versions():
    described = json.loads(json.dumps(environment.describe()))
    assert described["cores"] >= 1
    assert described["backend"] in ("tensorflow", "jax", "torch")
    assert {"python", "keras", "numpy", "kerasvision"} <= described["versions"].keys()


def test_peak_memory_sees_memory_that_was_freed_again():
    with memory.peak_memory() as measured:
        block = bytearray(200_000_000)
        block[::4096] = b"x" * len(block[::4096])
        del block
    assert measured["peak_bytes"] >= 200_000_000
    assert "resident memory" in measured["method"]


def test_peak_of_a_model_is_that_of_a_process_with_nothing_else(tmp_path):
    path = save_image(np.zeros((64, 96, 3), np.uint8), tmp_path / "a.png")
    predictor = Predictor(zoo.get("unet_resnet10", weights=None, num_classes=3))
    ballast = np.ones(300_000_000)  # 2.4 GB here
    found = memory.peak_of(predictor, [path], 2)
    assert 2e8 < found["peak_bytes"] < 2.4e9 < ballast.nbytes + 1
    assert found["before_bytes"] < found["peak_bytes"]


def test_peak_of_says_why_it_failed(tmp_path):
    predictor = Predictor(zoo.get("unet_resnet10", weights=None, num_classes=3))
    with pytest.raises(RuntimeError, match=r"missing\.png"):
        memory.peak_of(predictor, [tmp_path / "missing.png"], 1)


def test_page_of_a_model_with_no_timing_percentile_leaves_the_plot_out(fast, models, tiny_set):
    document = benchmark(models[1:], tiny_set, batch_sizes=(1,), min_batches=1, limit=2, pictures=0).document
    assert "<figure" not in report.page(document)
