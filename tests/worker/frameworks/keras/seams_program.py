"""A few steps of every kind on real ranks, with a count of which replaced places were called. Prints them as JSON."""

from __future__ import annotations

import functools
import json
import os
import sys
import tempfile
from typing import Any

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from obl_magic.values import Settings
from obl_magic.worker.engines import collectives
from obl_magic.worker.frameworks.keras.adapter import oblivious
from obl_magic.worker.patching import Patches
from obl_magic.worker.report import Reporter

replaced: set[str] = set()
called: set[str] = set()


def counting(make: Any, place: str) -> Any:
    """As ``make``, and what it makes tells that it was called."""
    replaced.add(place)

    def counted(original: Any) -> Any:
        made = make(original)
        if isinstance(made, property):
            return property(lambda self: called.add(place) or made.fget(self), made.fset)

        @functools.wraps(made)
        def tells(*args: Any, **kwargs: Any) -> Any:
            called.add(place)
            return made(*args, **kwargs)

        return tells

    return counted


def place_of(owner: Any, name: str) -> str:
    """As the table of seams spells it."""
    module = getattr(owner, "__module__", None)
    return f"{owner.__name__ if module is None else f'{module}:{owner.__qualname__}'} {name}"


def watched() -> None:
    """From now on every replacement counts."""
    replace, replace_function = Patches.replace, Patches.replace_function
    Patches.replace = lambda patches, owner, name, make: (  # type: ignore[method-assign]
        replace(patches, owner, name, counting(make, place_of(owner, name)))
    )
    Patches.replace_function = lambda patches, function, make: (  # type: ignore[method-assign]
        replace_function(patches, function, counting(make, f"{function.__module__} {function.__name__}"))
    )


class OwnStep(keras.Sequential):
    """Its calls are shared, its data are not."""

    def train_step(self, data: Any) -> Any:
        """One step by hand."""
        x, y = data
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((self(x, training=True) - y) ** 2)
        self.optimizer.apply_gradients(
            zip(tape.gradient(loss, self.trainable_variables), self.trainable_variables, strict=True)
        )
        return {"loss": loss}


def small(kind: type[keras.Sequential] = keras.Sequential) -> Any:
    """A model with something that is drawn and something that is normalised."""
    return kind(
        [
            keras.Input((3,)),
            layers.GaussianNoise(0.1),
            layers.Dense(4, activity_regularizer="l2"),
            layers.BatchNormalization(),
            layers.Dropout(0.2),
            layers.Dense(1),
        ]
    )


def fits() -> None:
    """Keras' own steps, with arrays and datasets."""
    x = np.random.default_rng(0).normal(size=(20, 3)).astype("float32")
    folder = tempfile.mkdtemp()
    model = small()
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.01))
    model.compile(optimizer, "mse", metrics=["mae"])
    model.jit_compile = model.jit_compile
    model.fit(x, x[:, :1], batch_size=8, epochs=2, validation_split=0.2, verbose=0)
    data = tf.data.Dataset.from_tensor_slices((x, x[:, :1])).map(lambda a, b: (a, b), deterministic=False)
    data = (
        data.interleave(lambda a, b: tf.data.Dataset.from_tensors((a, b))).cache(f"{folder}/cache").batch(8)
    )
    model.fit(data.with_options(tf.data.Options()), epochs=1, verbose=0)
    tf.data.Dataset.range(2).shuffle(2).save(f"{folder}/saved")
    list(tf.data.Dataset.range(2).snapshot(f"{folder}/snapshot"))
    model.evaluate(x, x[:, :1], verbose=0)
    model.predict(x, batch_size=8, verbose=0)
    model.predict_on_batch(x[:8])
    model.train_on_batch(x[:8], x[:8, :1])
    model.test_on_batch(x[:8], x[:8, :1])
    two = keras.Model(model.inputs, {"a": model.outputs[0], "b": layers.Dense(1)(model.outputs[0])})
    adam = keras.optimizers.Adam(0.01, gradient_accumulation_steps=2, clipnorm=1.0)
    two.compile(adam, {"a": "mse", "b": "mse"})
    two.fit(x, {"a": x[:, :1], "b": x[:, :1]}, batch_size=8, epochs=1, verbose=0)


def files() -> None:
    """What is written once and found by all."""
    folder = tempfile.mkdtemp()
    model = small()
    model.save(f"{folder}/a.keras")
    keras.saving.save_model(model, f"{folder}/b.keras")
    keras.saving.load_model(f"{folder}/b.keras")
    model.save_weights(f"{folder}/a.weights.h5")
    model.load_weights(f"{folder}/a.weights.h5")
    keras.saving.save_weights(model, f"{folder}/b.weights.h5")
    keras.saving.load_weights(model, f"{folder}/b.weights.h5")
    model.export(f"{folder}/exported", verbose=False)
    archive = keras.export.ExportArchive()
    archive.track(model)
    archive.add_endpoint("serve", model.call, [tf.TensorSpec((None, 3))])
    archive.write_out(f"{folder}/served", verbose=False)


def by_hand() -> None:
    """Steps and loops of one's own, and what is drawn in them."""
    x = np.random.default_rng(0).normal(size=(20, 3)).astype("float32")
    model = small(OwnStep)
    model.compile("sgd")
    model.fit(x, x[:, :1], batch_size=8, verbose=0)

    @tf.function
    def step(batch: Any) -> Any:
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(batch)
            outputs = model(batch)
            loss = tf.reduce_sum(outputs)
        tape.batch_jacobian(outputs, batch)
        return tape.gradient(loss, model.trainable_variables), tf.random.uniform([])

    step(tf.constant(x[:8]))
    weights = keras.Variable(np.ones(3, "float32"))
    with tf.GradientTape() as tape:
        outputs = tf.linalg.matvec(x[:4], weights.value)
    tape.jacobian(outputs, weights.value)

    class Draws(layers.Layer):
        def call(self, inputs: Any) -> Any:
            shape = keras.ops.shape(inputs)
            drawn = keras.random.uniform(shape) + keras.random.truncated_normal(shape)
            return inputs + drawn + keras.ops.cast(keras.random.randint(shape, 0, 2), "float32")

    drawing = keras.Sequential([keras.Input((3,)), Draws(), layers.Dense(1)])
    drawing.compile("sgd", "mse")
    drawing.fit(x, x[:, :1], batch_size=8, verbose=0)


def main() -> None:
    """Prints what was replaced and what of it was called."""
    watched()
    world = collectives.connect(sys.argv[1])
    settings = Settings(batch="per-worker", lr_scale="linear")
    with oblivious(world, Reporter(lambda event: None, world.rank), settings):
        keras.utils.set_random_seed(0)
        fits()
        files()
        by_hand()
    if world.rank == 0:
        sys.stdout.write("\n" + json.dumps({"replaced": sorted(replaced), "called": sorted(called)}) + "\n")
        sys.stdout.flush()
    world.barrier()


if __name__ == "__main__":
    main()
