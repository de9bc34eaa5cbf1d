"""A workload as an expert distributes it by hand on Keras 3 with Horovod's core operations.

Usage: mpirun -n 2 python handwritten.py TARGET.json WORKLOAD EPOCHS plain|set|limit [INTRA INTER]

Batch sizes are the whole world's. Rank 0 writes samples/s by batch size. INTRA and INTER are TensorFlow's
threads; without them its own defaults stay. For the limit ranks train their shards and exchange nothing.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import horovod.tensorflow as hvd
import keras
import tensorflow as tf
import workloads


def distributed(base: type) -> type:
    """An optimizer class that averages all gradients in one call before it applies them."""

    class Distributed(base):  # type: ignore[misc, valid-type]
        def apply(self, grads: Any, trainable_variables: Any = None) -> Any:
            averaged = hvd.grouped_allreduce(list(grads), op=hvd.Average, name="gradients")
            return super().apply(averaged, trainable_variables)

    return Distributed


def equal_start(variables: Sequence[Any]) -> None:
    """Gives every rank rank 0's values."""
    for number, variable in enumerate(variables):
        variable.assign(hvd.broadcast(tf.convert_to_tensor(variable.value), 0, f"start.{number}"))


class EqualStart(keras.callbacks.Callback):
    """Gives every rank rank 0's weights and optimizer slots."""

    def on_train_begin(self, logs: Any = None) -> None:
        equal_start([*self.model.variables, *self.model.optimizer.variables])


class WorldLogs(keras.callbacks.Callback):
    """Averages an epoch's logs over the ranks; the shards are equally large."""

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        if logs:
            mean = hvd.allreduce(tf.constant(list(logs.values()), tf.float64), op=hvd.Average, name="logs")
            logs.update(zip(logs, mean.numpy().tolist(), strict=True))


def train(workload: str, epochs: int, batch: int, exchanges: bool) -> float:
    """Samples/s of the whole world with one global batch size."""
    rank, size = hvd.rank(), hvd.size()
    about = workloads.WORKLOADS[workload]
    samples = about.steps[batch] * batch
    x, y = (array[rank::size].copy() for array in about.data(samples))
    model = about.model()
    optimizer = (distributed(keras.optimizers.Adam) if exchanges else keras.optimizers.Adam)()
    optimizer.build(model.trainable_variables)
    if about.way == "loop":
        if exchanges:
            equal_start([*model.variables, *optimizer.variables])
        return workloads.samples_per_s(samples, workloads.loop(model, x, y, batch // size, epochs, optimizer))
    ends: list[float] = []
    clock = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: ends.append(time.perf_counter()))
    model = workloads.with_own_step(model) if about.way == "own step" else model
    # Horovod's operations do not compile with XLA on a CPU.
    model.compile(optimizer, workloads.loss(), metrics=["accuracy"], jit_compile=False)
    callbacks = [EqualStart(), WorldLogs(), clock] if exchanges else [clock]
    model.fit(
        x, y, batch_size=batch // size, epochs=epochs, verbose=0, callbacks=callbacks
    )  # fmt: skip
    return workloads.samples_per_s(samples, ends)


def main(target: Path, workload: str, epochs: int, how: str, threads: list[int]) -> None:
    """Measures every batch size; rank 0 writes the speeds."""
    hvd.init()
    if threads:
        intra, inter = threads
        tf.config.threading.set_intra_op_parallelism_threads(intra)
        tf.config.threading.set_inter_op_parallelism_threads(inter)
    keras.utils.set_random_seed(1)
    batches = workloads.WORKLOADS[workload].steps
    speeds = {batch: train(workload, epochs, batch, how != "limit") for batch in batches}
    if hvd.rank() == 0:
        target.write_text(json.dumps(speeds))
    hvd.shutdown()


if __name__ == "__main__":
    main(
        Path(sys.argv[1]),
        sys.argv[2],
        int(sys.argv[3]),
        sys.argv[4],
        [int(count) for count in sys.argv[5:]],
    )
