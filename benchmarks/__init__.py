"""One benchmark for every model: accuracy and speed of the same loaded model, on the same real images.

>>> from benchmarks.run import benchmark  # doctest: +SKIP
>>> results = benchmark(["retinanet_resnet10_fpn.streets"], "streets", split="test")  # doctest: +SKIP
>>> results.write("runs/benchmark")  # doctest: +SKIP
"""
