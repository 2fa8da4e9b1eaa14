"""Run by test_backends.py in a process for each backend: write what models make of scenes into an `.npz` file.

Usage: KERAS_BACKEND=jax python backend_outputs.py OUT.npz SCENES name=weights.safetensors ...
"""

import sys

import numpy as np


def main(out, scenes, *models):
    """Write raw outputs, detections and masks."""
    import keras
    from keras import ops

    import zoo
    from kerasvision.data.streets import Streets
    from kerasvision.inference import Predictor
    from kerasvision.models.base import Detector

    images = [sample.image for sample in Streets("test", count=int(scenes))]
    arrays = {}
    for name, path in (model.split("=", 1) for model in models):
        model = zoo.get(name, weights=path)
        predictor = Predictor(model, batch_size=4)
        inputs, _ = predictor.preprocess(images[:2])
        raw = predictor.network(inputs)
        for index, value in enumerate(keras.tree.flatten(raw)):
            arrays[f"{name}/raw/{index}"] = ops.convert_to_numpy(value)
        for index, result in enumerate(predictor(images)):
            if isinstance(model, Detector):
                for key in ("boxes", "scores", "labels"):
                    arrays[f"{name}/{index}/{key}"] = getattr(result, key)
            else:
                arrays[f"{name}/{index}/mask"] = result.mask.astype(np.uint8)
    np.savez(out, backend=keras.backend.backend(), **arrays)


if __name__ == "__main__":
    main(*sys.argv[1:])
