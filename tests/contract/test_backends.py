"""The other backends: the contract of the small models, and the same numbers from the same weights.

Each backend needs a process of its own. The whole contract under one: `KERAS_BACKEND=jax pytest tests/contract`.
"""

import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

import zoo
from kerasvision.data.streets import Streets
from kerasvision.metrics import CocoAP, confusion_matrix, figures_of
from kerasvision.models.base import Detector
from zoo.embedded import FOLDER
from zoo.registry import EMBEDDED

HERE = Path(__file__).parent
BACKENDS = ("tensorflow", "jax", "torch")
# What differs between backends: training steps, compiled and not, saving, and masks of padding. The rest of the
# contract, and the large models, are left to `make test-contract`: JAX compiles each operation of an eager call.
SUBSET = ("makes_the_loss_fall", "empty_targets", "fit_with_the_recipe", "save_then_load", "padded_batch")
SMALL = ("retinanet_resnet10_fpn", "unet_resnet10")


def _run(backend, *arguments, **variables):
    environment = {**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3", **variables}
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        env=environment,
        cwd=HERE.parent.parent,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, f"under {backend}:\n{done.stdout[-6000:]}\n{done.stderr[-4000:]}"
    return done.stdout


@pytest.mark.skipif("KERASVISION_INNER_RUN" in os.environ, reason="already inside the run of another backend")
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_contract_of_small_models_holds_under(backend):
    output = _run(
        backend,
        *("-m", "pytest", "-q", "-p", "no:cacheprovider", HERE / "test_contract.py"),
        *("-k", f"({' or '.join(SMALL)}) and not attention and ({' or '.join(SUBSET)})"),
        KERASVISION_INNER_RUN="1",
    )
    assert " passed" in output and " failed" not in output and " skipped" not in output


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Return {name: path} and the names whose weights are the embedded, trained ones."""
    paths, trained = {}, set()
    for name in SMALL:
        embedded = [w for w in zoo.info(name).weights if w.embedded]
        if embedded:
            paths[name] = FOLDER / embedded[0].source.removeprefix(EMBEDDED)
            trained.add(name)
            continue
        paths[name] = tmp_path_factory.mktemp("weights") / f"{name}.safetensors"
        zoo.save_weights(_random(name), paths[name], name=name, float16=False)
    return paths, trained


def _random(name):
    """Return a model with random weights whose answers vary, as fresh ones' do not."""
    keras.utils.set_random_seed(0)
    model = zoo.get(name, weights=None, num_classes=7)
    generator = np.random.default_rng(0)
    for variable in model.non_trainable_variables:
        if variable.path.endswith("moving_variance"):
            variable.assign(generator.uniform(0.5, 2, variable.shape))
    if isinstance(model, Detector):
        for head, factor in ((model.classification_head, 200.0), (model.box_head, 20.0)):
            kernel = head.output_convolution.kernel
            kernel.assign(factor * keras.ops.convert_to_numpy(kernel))
    return model


@pytest.fixture(scope="module")
def outputs(weights, tmp_path_factory):
    """Return {backend: arrays}, of 40 scenes with the embedded weights and of 4 with random ones."""
    paths, trained = weights
    folder = tmp_path_factory.mktemp("outputs")
    arrays = {}
    for backend in BACKENDS:
        models = [f"{name}={path}" for name, path in paths.items()]
        _run(backend, HERE / "backend_outputs.py", folder / f"{backend}.npz", 40 if trained else 4, *models)
        with np.load(folder / f"{backend}.npz") as file:
            arrays[backend] = dict(file)
        assert arrays[backend].pop("backend") == backend
    return arrays


def test_raw_outputs_agree_across_backends(outputs):
    reference = {key: value for key, value in outputs["tensorflow"].items() if "/raw/" in key}
    assert {key.split("/")[0] for key in reference} == set(SMALL)
    for backend in BACKENDS[1:]:
        for key, expected in reference.items():
            difference = np.abs(outputs[backend][key] - expected).max() / np.abs(expected).max()
            assert difference < 1e-4, (backend, key)


def _detections(arrays, index):
    return tuple(arrays[f"{SMALL[0]}/{index}/{key}"] for key in ("boxes", "scores", "labels"))


def _count(arrays):
    return sum(key.startswith(SMALL[0]) and key.endswith("/boxes") for key in arrays)


def test_detections_agree_across_backends_one_to_one(outputs):
    """Each confident detection has a twin; ones at the score or NMS threshold may fall on either side."""
    for backend in BACKENDS[1:]:
        total = missing = 0
        for index in range(_count(outputs["tensorflow"])):
            boxes, scores, labels = _detections(outputs["tensorflow"], index)
            other_boxes, other_scores, other_labels = _detections(outputs[backend], index)
            near = np.abs(boxes[:, None] - other_boxes[None]).max(axis=-1) < 0.1
            near &= np.abs(scores[:, None] - other_scores[None]) < 1e-3
            near &= labels[:, None] == other_labels[None]
            total += len(boxes)
            missing += int((~near.any(axis=1)).sum())
        assert total > 20
        assert missing <= 0.005 * total, (backend, missing, total)


def test_average_precision_agrees_across_backends(outputs, weights):
    """Against the scenes' boxes; random weights, whose AP there is 0, against their own best boxes, moved a little."""
    _, trained = weights
    figures = {}
    scenes = Streets("test", count=_count(outputs["tensorflow"]))
    for backend in BACKENDS:
        metric = CocoAP()
        for index in range(len(scenes)):
            boxes, scores, labels = _detections(outputs[backend], index)
            if SMALL[0] in trained:
                sample = scenes[index]
                truth, classes, ignored = sample.boxes, sample.labels, sample.ignored
            else:
                truth, _, classes = (part[::7] for part in _detections(outputs["tensorflow"], index))
                truth, ignored = truth + 0.05 * (truth[:, 2:3] - truth[:, :1]), np.zeros(len(truth), bool)
            metric.add(
                {"boxes": boxes[None], "scores": scores[None], "labels": labels[None]},
                {"boxes": truth[None], "labels": classes[None], "ignored": ignored[None]},
            )
        figures[backend] = metric.result()
    assert figures["tensorflow"]["AP"] > 0.05
    for backend in BACKENDS[1:]:
        for name, value in figures["tensorflow"].items():
            assert figures[backend][name] == pytest.approx(value, abs=0.002), (backend, name)


def test_mean_iou_agrees_across_backends(outputs, weights):
    _, trained = weights
    scenes = Streets("test", count=_count(outputs["tensorflow"]))
    figures = {}
    for backend in BACKENDS:
        classes = len(scenes.mask_classes)
        matrix = np.zeros((classes, classes), np.int64)
        for index in range(len(scenes)):
            mask = outputs[backend][f"{SMALL[1]}/{index}/mask"]
            truth = scenes[index].mask if SMALL[1] in trained else outputs["tensorflow"][f"{SMALL[1]}/{index}/mask"]
            matrix += confusion_matrix(truth, mask, classes)
        figures[backend] = figures_of(matrix)["mIoU"]
    for backend in BACKENDS[1:]:
        assert figures[backend] == pytest.approx(figures["tensorflow"], abs=0.002), backend
