"""Tells whether the batches of a ``tf.data.Dataset`` may be NumPy memory that TensorFlow has only borrowed.

What Python hands to a pipeline (generators, ``numpy_function``, ``py_function``) is borrowed where it lies on a 64-byte
boundary. Operations that make batches copy it. What is not known here counts as borrowed: that costs a copy of a rank's
rows and nothing else.
"""

from __future__ import annotations

from typing import Any

_COPIES = {"_BatchDataset", "_ParallelBatchDataset", "_PaddedBatchDataset", "_RangeDataset"}
_HOLDS = {"TensorDataset", "_TensorDataset", "TensorSliceDataset", "_TensorSliceDataset"}
"""They keep what they were given for as long as they are iterated, so nothing is taken for TensorFlow's own."""
_HANDS_ON = {
    "_CacheDataset", "_ConcatenateDataset", "_MapDataset", "_OptionsDataset", "_ParallelMapDataset",
    "_PrefetchDataset", "_RepeatDataset", "_ScanDataset", "_ShuffleDataset", "_SkipDataset", "_TakeDataset",
    "_ZipDataset", "_FilterDataset", "_TakeWhileDataset",
}  # fmt: skip
_PYTHON = {"PyFunc", "PyFuncStateless", "EagerPyFunc"}


def owns_memory(dataset: Any) -> bool:
    """Whether every tensor that a dataset yields surely lies in TensorFlow's own memory, or is held elsewhere too."""
    kind = type(dataset).__name__
    if kind not in _COPIES | _HOLDS | _HANDS_ON:
        return False
    function = getattr(dataset, "_map_func", None)
    if function is not None and _calls_python(function.function.graph):
        return False
    return kind in _COPIES | _HOLDS or all(owns_memory(one) for one in dataset._inputs())


def _calls_python(graph: Any) -> bool:
    definition = graph.as_graph_def()
    inside = [node for function in definition.library.function for node in function.node_def]
    return any(node.op in _PYTHON for node in [*definition.node, *inside])
