"""Every place of Keras and TensorFlow that a rank replaces: owner, name, what it is called with, our file, why.

These places are not promises of the libraries. So they are looked at before anything is replaced, and a test of a few
steps sees to it that each is still called.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import json
import sys
from dataclasses import dataclass
from typing import Any

from obl_magic.errors import SetupProblem

KERAS = "3.12 to 3.15"
"""The versions that the tests run."""


@dataclass(frozen=True, slots=True)
class Seam:
    """One place that is replaced.

    Attributes:
        owner: ``module`` or ``module:class``.
        name: its attribute.
        parameters: that it must have, in this order; none for a property.
        files: of ours that replace it.
        why: what for.
    """

    owner: str
    name: str
    parameters: str
    files: str
    why: str

    def misfit(self) -> str:
        """How the installed library differs from what is expected here, in words; "" where it does not."""
        module, _, kind = self.owner.partition(":")
        try:
            owner: Any = importlib.import_module(module)
            owner = getattr(owner, kind) if kind else owner
            found = inspect.getattr_static(owner, self.name)
        except (ImportError, AttributeError):
            return "it is not there"
        if isinstance(found, property) or not self.parameters:
            return "" if isinstance(found, property) and not self.parameters else "it is of another kind"
        has = list(inspect.signature(found).parameters)
        left = iter(has)
        lost = [name for name in self.parameters.split(", ") if name not in left]
        return (
            f"it has the parameters {', '.join(has)}, without {', '.join(lost)} in their places"
            if lost
            else ""
        )


Rows = dict[str, tuple[tuple[str, str, str, str], ...]]
"""By owner: (name, parameters, files, why), as of a :class:`Seam`."""

OF_KERAS: Rows = {
    "keras.src.backend.tensorflow.random": (
        ("normal", "shape, mean, stddev, dtype, seed", "randomness.py", "drawn for the whole batch"),
        ("uniform", "shape, minval, maxval, dtype, seed", "randomness.py", "drawn for the whole batch"),
        ("randint", "shape, minval, maxval, dtype, seed", "randomness.py", "drawn for the whole batch"),
        (
            "truncated_normal",
            "shape, mean, stddev, dtype, seed",
            "randomness.py",
            "drawn for the whole batch",
        ),
        ("dropout", "inputs, rate, noise_shape, seed", "randomness.py", "drawn for the whole batch"),
    ),
    "keras.src.trainers.epoch_iterator:EpochIterator": (
        ("_enumerate_iterator", "self", "callbacks.py", "what was done of an epoch is passed over"),
    ),
    "keras.src.backend.tensorflow.trainer:TFEpochIterator": (
        (
            "__init__",
            "self, distribute_strategy",
            "data.py steps.py refusals.py",
            "batches are cut into the ranks' rows, or marked whole",
        ),
        ("_get_iterator", "self", "data.py same_data.py", "a pass over data begins"),
        ("catch_stop_iteration", "self", "same_data.py", "unequal rows are said in a user's words"),
    ),
    "keras.src.backend.tensorflow.trainer:TensorFlowTrainer": (
        (
            "_maybe_symbolic_build",
            "self, iterator, data_batch",
            "callbacks.py steps.py",
            "variables are built and made equal before the first step",
        ),
        ("_make_function", "self, step_function", "steps.py", "a step takes one of the two ways"),
        ("make_predict_function", "self, force", "steps.py", "predictions are shared and gathered"),
        ("train_on_batch", "self, return_dict", "steps.py same_data.py", "exact logs; what was read"),
        ("test_on_batch", "self, return_dict", "steps.py same_data.py", "exact logs; what was read"),
        ("predict", "self", "steps.py", "a prediction takes one of the two ways"),
        ("predict_on_batch", "self, x", "same_data.py", "what was read"),
        ("evaluate", "self", "adapter.py", "moving statistics are averaged before they are used"),
    ),
    "keras.src.callbacks.callback_list:CallbackList": (
        ("__init__", "self, callbacks, model", "callbacks.py", "callbacks come to their places"),
        (
            "on_train_begin",
            "self, logs",
            "callbacks.py",
            "a fit begins: initial weights, what is kept of an earlier fit",
        ),
        ("on_epoch_begin", "self, epoch, logs", "callbacks.py", "an epoch begins: progress"),
        ("on_train_batch_begin", "self, batch, logs", "callbacks.py", "a step begins: restarts and stops"),
        (
            "on_train_batch_end",
            "self, batch, logs",
            "callbacks.py same_data.py",
            "a step has ended: progress, looks, what was read",
        ),
        (
            "on_epoch_end",
            "self, epoch, logs",
            "callbacks.py same_data.py",
            "exact logs, agreement on stopping, what was read",
        ),
        ("on_train_end", "self, logs", "callbacks.py", "a fit has ended"),
        (
            "on_test_batch_end",
            "self, batch, logs",
            "callbacks.py same_data.py",
            "an evaluation gets on; what was read",
        ),
        (
            "on_predict_batch_end",
            "self, batch, logs",
            "callbacks.py same_data.py",
            "a prediction gets on; what was read",
        ),
        ("on_test_begin", "self, logs", "callbacks.py", "a rank that evaluates says so"),
        (
            "on_test_end",
            "self, logs",
            "callbacks.py same_data.py",
            "what an evaluation has read; that it is over",
        ),
        ("on_predict_end", "self, logs", "same_data.py", "what a prediction has read"),
    ),
    "keras.src.layers.layer:Layer": (
        ("__call__", "self, args, kwargs", "model_calls.py", "calls of models are shared"),
    ),
    "keras.src.layers.normalization.batch_normalization:BatchNormalization": (
        ("_moments", "self, inputs, mask", "batchnorm.py", "moments are taken over all rows"),
    ),
    "keras.src.losses.loss": (
        (
            "reduce_weighted_values",
            "values, sample_weight, mask, reduction, dtype",
            "losses.py",
            "denominators of losses are those of all rows",
        ),
    ),
    "keras.src.metrics.reduction_metrics:Mean": (
        (
            "update_state",
            "self, values, sample_weight",
            "metrics.py",
            "a number about a rank's rows counts with their share",
        ),
    ),
    "keras.src.models.model:Model": (
        ("save", "self, filepath", "saving.py", "written once"),
        ("save_weights", "self, filepath", "saving.py", "written once"),
        ("export", "self, filepath", "saving.py", "written once"),
        ("load_weights", "self, filepath", "saving.py", "found by every rank"),
    ),
    "keras.src.optimizers.base_optimizer:BaseOptimizer": (
        (
            "apply",
            "self, grads, trainable_variables",
            "gradients.py",
            "gradients are summed before anything is done with them",
        ),
        (
            "_clip_gradients",
            "self, grads",
            "gradients.py",
            "accumulated gradients are summed once an applied step",
        ),
        ("_get_current_learning_rate", "self", "rates.py", "the scaled rate of per-worker batches"),
    ),
    "keras.src.optimizers.loss_scale_optimizer:LossScaleOptimizer": (
        (
            "apply",
            "self, grads, trainable_variables",
            "gradients.py",
            "gradients are summed before they are unscaled",
        ),
    ),
    "keras.src.saving.saving_api": (
        ("save_model", "model, filepath", "saving.py", "written once"),
        ("save_weights", "model, filepath", "saving.py", "written once"),
        ("load_weights", "model, filepath", "saving.py", "found by every rank"),
        ("load_model", "filepath", "saving.py", "found by every rank"),
    ),
    "keras.src.trainers.compile_utils:CompileLoss": (
        (
            "call",
            "self, y_true, y_pred, sample_weight",
            "steps.py",
            "steps that run eagerly weigh as traced ones",
        ),
    ),
    "keras.src.trainers.trainer:Trainer": (
        (
            "_get_metrics_result_or_logs",
            "self, logs",
            "steps.py",
            "metrics are computed from the states of all ranks",
        ),
        ("jit_compile", "", "steps.py", "exchanges do not compile with XLA"),
    ),
}
OF_TENSORFLOW: Rows = {
    "tensorflow.python.data.ops.dataset_ops:DatasetV2": (
        ("map", "self, deterministic", "pipelines.py", "order is kept"),
        ("batch", "self, deterministic", "pipelines.py", "order is kept"),
        ("interleave", "self, deterministic", "pipelines.py", "order is kept"),
        ("with_options", "self, options", "pipelines.py", "order is kept"),
        ("__iter__", "self", "pipelines.py loop_checkpoints.py", "nothing tunes itself; passes are counted"),
        ("shuffle", "self", "loop_checkpoints.py", "passes over it are counted"),
        ("cache", "self, filename", "pipelines.py", "a file of each rank's own"),
        ("snapshot", "self, path", "pipelines.py", "a folder of each rank's own"),
        ("save", "self, path", "pipelines.py", "a folder of each rank's own"),
    ),
    "tensorflow.python.eager.backprop:GradientTape": (
        (
            "gradient",
            "self, target, sources, output_gradients, unconnected_gradients",
            "gradients.py",
            "what leaves a tape is the mean over ranks",
        ),
        ("jacobian", "self, target, sources", "gradients.py", "what leaves a tape is the mean over ranks"),
        (
            "batch_jacobian",
            "self, target, source",
            "gradients.py",
            "what leaves a tape is the mean over ranks",
        ),
    ),
    "tensorflow.python.eager.polymorphic_function.polymorphic_function:Function": (
        (
            "__call__",
            "self, args, kwds",
            "custom_loops.py",
            "steps of loops by hand run eagerly when they are to be proven",
        ),
    ),
    "tensorflow.python.framework.random_seed": (
        ("get_seed", "op_seed", "randomness.py", "random numbers that are not Keras' are noticed"),
    ),
    "tensorflow.python.saved_model.save": (("save", "obj, export_dir", "saving.py", "written once"),),
}
SEAMS = [
    Seam(owner, *row) for table in (OF_KERAS, OF_TENSORFLOW) for owner, rows in table.items() for row in rows
]


def misfits() -> list[str]:
    """What does not fit, a phrase a seam."""
    each = [(seam, seam.misfit()) for seam in SEAMS]
    return [f"{seam.owner.replace(':', '.')}.{seam.name} ({seam.why}): {how}" for seam, how in each if how]


@functools.cache
def check() -> None:
    """Looks at every seam, once in a process: where a run is inside a run, the outer one has replaced them.

    Raises:
        SetupProblem: one of them is not as expected.
    """
    import keras
    import tensorflow as tf

    if found := misfits():
        more = f", and {len(found) - 1} more" if len(found) > 1 else ""
        raise SetupProblem(
            f"Keras {keras.__version__} with TensorFlow {tf.__version__} is not what the ranks were made for: "
            f"{found[0]}{more}",
            f'install a Keras that was tried ({KERAS}): python -m pip install "keras>=3.12,<3.16"',
        )


if __name__ == "__main__":  # for the doctor, whose own process imports no framework
    sys.stdout.write(json.dumps({"seams": len(SEAMS), "misfits": misfits()}))
