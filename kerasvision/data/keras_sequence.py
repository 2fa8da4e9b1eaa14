"""The `keras.utils.PyDataset` front end of a pipeline: no TensorFlow, any Keras backend."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import keras

from kerasvision.data.batching import Batches


class BatchSequence(keras.utils.PyDataset):
    """Batches as a Keras `PyDataset` that reads ahead with its own threads.

    Keras's own workers (`workers=…`) stay at one: they would sit between the epoch counter and the
    batches, and are slower (docs of `kerasvision.data.pipeline`).

    Args:
        batches: the batches to serve.
        workers: number of threads that read ahead; 0 reads in the caller's thread.
    """

    def __init__(self, batches: Batches, *, workers: int):
        super().__init__(workers=1)
        self.batches = batches
        self.threads = workers
        self.failure: Exception | None = None
        self._next_epoch = 0
        self._keras_epoch: int | None = None
        self._served = 0
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None
        self._ahead: dict[tuple[int, int], Future] = {}

    def __len__(self) -> int:
        return len(self.batches)

    def cardinality(self) -> int:
        """Number of batches in an epoch, as `tf.data.Dataset.cardinality` says it."""
        return len(self.batches)

    def set_epoch(self, epoch: int) -> None:
        """Makes the next iteration epoch `epoch`, counted from 0; a resumed training calls this."""
        self._next_epoch = int(epoch)

    def batch_names(self, epoch: int, step: int) -> list[str]:
        """Names of the samples in batch `step` of epoch `epoch`."""
        return self.batches.names(epoch, step)

    def __getitem__(self, step: int):
        self._served += 1
        epoch = self._next_epoch if self._keras_epoch is None else self._keras_epoch
        return self._fetch(epoch, step)

    def __iter__(self) -> Iterator:
        epoch = self._next_epoch
        self._next_epoch += 1
        for step in range(len(self)):
            yield self._fetch(epoch, step)

    def on_epoch_begin(self) -> None:
        """Called by Keras before each epoch."""
        self._keras_epoch = self._next_epoch
        self._served = 0

    def on_epoch_end(self) -> None:
        """Called by Keras after each epoch, and once before the first to discard what it peeked at."""
        # Under JAX and PyTorch Keras draws a batch to build the model; that is not an epoch.
        if self._keras_epoch is not None and self._served >= len(self):
            self._next_epoch = max(self._next_epoch, self._keras_epoch + 1)
        self._keras_epoch = None

    def _fetch(self, epoch: int, step: int):
        try:
            return self._fetch_ahead(epoch, step) if self.threads else self.batches.batch(epoch, step)
        except Exception as error:
            self.failure = error
            raise

    def _fetch_ahead(self, epoch: int, step: int):
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self.threads, thread_name_prefix="kerasvision-data")
            # Another epoch, or steps out of order: drop what was read ahead in vain.
            wanted = [(epoch, at) for at in range(step, min(step + self.threads + 2, len(self)))]
            for key in [key for key in self._ahead if key not in wanted]:
                self._ahead.pop(key).cancel()
            for key in wanted:
                if key not in self._ahead:
                    self._ahead[key] = self._pool.submit(self.batches.batch, *key)
            future = self._ahead.pop((epoch, step))
        return future.result()

    def __getstate__(self):
        return {"batches": self.batches, "threads": self.threads, "epoch": self._next_epoch}

    def __setstate__(self, state):
        self.__init__(state["batches"], workers=state["threads"])
        self._next_epoch = state["epoch"]
