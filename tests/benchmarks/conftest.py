"""Stand-ins for a data set, a model and a Predictor whose answers are known."""

import time
from types import SimpleNamespace

import numpy as np
import pytest

from kerasvision.data import Dataset, Sample
from kerasvision.ops.resizing import ResizeRule


class TinySet(Dataset):
    """Grey images with one coloured box each; the box's class is its mask class + 1."""

    name = "tiny"
    tasks = frozenset({"detection", "segmentation"})
    classes = ("car", "bus")
    mask_classes = ("background", "car", "bus")

    def __init__(self, count=6):
        self.count = count

    def __len__(self):
        return self.count

    def sample_name(self, index):
        return f"tiny/{index}"

    def __getitem__(self, index):
        label, left = index % 2, 4 * index
        image = np.full((48, 64, 3), 100, np.uint8)
        mask = np.zeros((48, 64), np.uint8)
        image[10:30, left : left + 20] = (200, 40 + 40 * label, index)
        mask[10:30, left : left + 20] = label + 1
        return Sample(
            name=self.sample_name(index),
            image=image,
            boxes=np.array([[left, 10, left + 20, 30]], np.float32),
            labels=np.array([label], np.int32),
            ignored=np.zeros(1, bool),
            mask=mask,
        )


class OraclePredictor:
    """Answers with the annotations of the images it has been shown; unknown images have nothing on them.

    `relabel` maps the data set's labels to the model's, `seconds` is slept in each network call.
    """

    def __init__(self, dataset, task, class_names, relabel=None, seconds=0.0):
        self.task, self.class_names, self.seconds = task, class_names, seconds
        self.relabel = relabel or (lambda label: label)
        self.resize = ResizeRule()
        self.model = SimpleNamespace(
            num_classes=len(class_names),
            resize_rule=ResizeRule(),
            name="oracle",
            dtype_policy=SimpleNamespace(name="float32"),
        )
        self.samples = {sample.image.tobytes(): sample for sample in dataset}
        self.calls = []

    def read(self, source):
        from PIL import Image

        self.calls.append("read")
        with Image.open(source) as image:
            return np.asarray(image.convert("RGB"))

    def preprocess(self, images):
        self.calls.append(f"preprocess {len(images)}")
        return np.stack(images).astype(np.float32), images

    def network(self, inputs):
        self.calls.append("network")
        time.sleep(self.seconds)
        return {"logits": inputs[:, :2, :2, 0]}

    def postprocess(self, raw, inputs, metas):
        self.calls.append("postprocess")
        return [self.answer(image) for image in metas]

    def predict(self, images):
        return [self.answer(image) for image in images]

    def answer(self, image):
        sample = self.samples.get(image.tobytes())
        height, width = image.shape[:2]
        if self.task == "segmentation":
            mask = np.zeros((height, width), np.int64) if sample is None else sample.mask.astype(np.int64)
            mask = np.vectorize(self.relabel)(mask)
            return SimpleNamespace(mask=mask, class_names=self.class_names, size_hw=(height, width), palette=None)
        boxes = np.zeros((0, 4), np.float32) if sample is None else sample.boxes
        labels = [] if sample is None else [self.relabel(label) for label in sample.labels]
        return SimpleNamespace(
            boxes=boxes,
            scores=np.full(len(boxes), 0.9, np.float32),
            labels=np.array(labels, np.int32),
            class_names=self.class_names,
            size_hw=(height, width),
        )


@pytest.fixture
def tiny_set():
    return TinySet()


@pytest.fixture
def oracle():
    """The class, to be called with (dataset, task, class_names, …)."""
    return OraclePredictor
