"""How much GPU memory a rank uses, as far as that can be known without a GPU: TensorFlow's devices are stood in for."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from obl_magic.worker.gpu import gpu_memory_bytes

CONTEXT = "tensorflow.python.eager.context"


def sees(monkeypatch: pytest.MonkeyPatch, *used: int, begun: bool = True, fails: bool = False) -> None:
    """Puts GPUs that use so much into TensorFlow's context."""

    def info(name: str) -> dict[str, int]:
        if fails:
            raise ValueError("Allocator stats not available for device")
        return {"current": used[int(name[-1])], "peak": 2**40}

    devices = [SimpleNamespace(name=f"/device:GPU:{number}") for number in range(len(used))]
    context = SimpleNamespace(
        _context_handle=object() if begun else None,
        list_logical_devices=lambda kind: devices if kind == "GPU" else [],
        get_memory_info=info,
    )
    monkeypatch.setitem(sys.modules, CONTEXT, SimpleNamespace(context_safe=lambda: context))


def test_what_its_gpus_hold_is_added_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rank sees one GPU as a rule, and all of them where it is alone."""
    sees(monkeypatch, 3_000_000, 4_000_000)
    assert gpu_memory_bytes() == 7_000_000


@pytest.mark.parametrize("how", [{"begun": False}, {"fails": True}])
def test_nothing_is_said_before_tensorflow_computes_or_where_it_keeps_no_count(
    monkeypatch: pytest.MonkeyPatch, how: dict[str, Any]
) -> None:
    """To ask earlier would choose its devices before the function does."""
    sees(monkeypatch, 3_000_000, **how)
    assert gpu_memory_bytes() is None


def test_a_machine_without_gpus_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does a process without TensorFlow."""
    sees(monkeypatch)
    assert gpu_memory_bytes() is None
    monkeypatch.delitem(sys.modules, CONTEXT)
    assert gpu_memory_bytes() is None


def test_the_real_context_has_what_is_asked_of_it() -> None:
    """So that a new TensorFlow that names it otherwise is noticed here, without a GPU."""
    import tensorflow as tf
    from tensorflow.python.eager import context

    tf.constant(1.0) + 1.0
    begun = context.context_safe()
    assert begun is not None
    assert begun._context_handle is not None
    assert callable(begun.get_memory_info)
    assert [gpu.name for gpu in begun.list_logical_devices("GPU")] == []
    assert gpu_memory_bytes() is None
