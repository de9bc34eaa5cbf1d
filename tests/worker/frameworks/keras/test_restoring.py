"""After a run Keras is exactly as before."""

from __future__ import annotations

import importlib
import importlib.util

import keras
import tensorflow as tf
from keras.src.backend.tensorflow import trainer
from keras.src.callbacks.callback_list import CallbackList
from keras.src.losses import loss
from keras.src.metrics import reduction_metrics
from keras.src.optimizers import base_optimizer, loss_scale_optimizer
from keras.src.random import seed_generator
from keras.src.trainers import trainer as base_trainer

from obl_magic.values import Settings
from obl_magic.worker.engines.single import Alone
from obl_magic.worker.frameworks.keras.adapter import oblivious
from obl_magic.worker.report import Reporter

HOROVOD = [importlib.import_module("horovod.tensorflow")] if importlib.util.find_spec("horovod") else []
"""Where it is installed: the other engine is enough to run."""

PLACES = [
    trainer.TensorFlowTrainer,
    trainer.TFEpochIterator,
    base_trainer.Trainer,
    CallbackList,
    loss,
    reduction_metrics.Mean,
    reduction_metrics.Sum,
    base_optimizer.BaseOptimizer,
    loss_scale_optimizer.LossScaleOptimizer,
    seed_generator.SeedGenerator,
    keras.layers.BatchNormalization,
    keras.losses.Loss,
    keras.Model,
    keras.saving,
    keras.models,
    tf.GradientTape,
    reduction_metrics.MeanMetricWrapper,
    keras.distribution,
    tf.data.Dataset,
    tf.distribute.MirroredStrategy,
    *HOROVOD,
    *keras.metrics.Metric.__subclasses__(),
]


class OneOfTwo(Alone):
    """Claims to be one of two ranks; nothing is sent."""

    size = 2


def state() -> list[dict[str, object]]:
    """Every attribute of every place that the adapter touches."""
    return [dict(vars(place)) for place in PLACES]


def test_leaving_the_context_puts_every_attribute_back():
    """Classes and modules hold the very objects they held before."""
    before = state()
    with oblivious(OneOfTwo(), Reporter(lambda event: None, 0), Settings("per-worker", "linear", 2, True)):
        inside = state()
    assert inside != before
    assert state() == before


def test_an_error_inside_puts_everything_back_too():
    """As leaving normally does."""
    before = state()
    try:
        with oblivious(OneOfTwo(), Reporter(lambda event: None, 0)):
            raise KeyError("x")
    except KeyError:
        pass
    assert state() == before


def test_one_rank_alone_changes_nothing_but_reporting():
    """A world of one touches neither data, steps, losses, gradients nor metrics."""
    before = state()
    with oblivious(Alone(), Reporter(lambda event: None, 0)):
        inside = state()
    changed = {
        name
        for old, new in zip(before, inside, strict=True)
        for name, value in new.items()
        if old.get(name) is not value
    }
    assert changed <= {
        "__init__",
        "on_train_begin",
        "on_epoch_begin",
        "on_train_batch_begin",
        "on_train_batch_end",
        "on_epoch_end",
        "on_train_end",
        "on_test_begin",
        "on_test_end",
        "on_test_batch_end",
        "on_predict_batch_end",
        "_maybe_symbolic_build",
        "shuffle",  # what a loop by hand needs to go on
        "__iter__",
    }
