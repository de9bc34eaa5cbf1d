"""What Keras' saved file leaves out of an object: what a metric has counted, an optimizer's state, seed generators.

Without it a metric of an earlier cell would begin at nothing on the ranks. Never imports Keras.
"""

from __future__ import annotations

from typing import Any

State = tuple[Any, ...]
"""Values of variables as NumPy arrays, in the object's own order."""


def of(obj: Any) -> State | None:
    """The values that Keras' recipe does not carry, or None where it carries all.

    Args:
        obj: a Keras layer or model, metric, optimizer or loss.
    """
    try:
        return tuple(variable.numpy() for variable in _left_out(obj)) or None
    except Exception:  # not built, symbolic, of another backend: it travels as Keras has it
        return None


def restore(obj: Any, state: State | None) -> Any:
    """Gives a rebuilt object the values, as soon as it has the variables for them."""
    if state is None or _fill(obj, state):
        return obj
    if hasattr(obj, "apply_gradients") and hasattr(obj, "build"):
        _fill_when_built(obj, state)
    return obj


def _left_out(obj: Any) -> list[Any]:
    """Its variables without those in the saved file, which holds the weights of layers and models only."""
    saved = {id(variable) for variable in getattr(obj, "weights", ())}
    return [variable for variable in getattr(obj, "variables", ()) if id(variable) not in saved]


def _fill(obj: Any, state: State) -> bool:
    """Whether the object has such variables; then they are assigned."""
    variables = _left_out(obj)
    if [tuple(variable.shape) for variable in variables] != [value.shape for value in state]:
        return False
    for variable, value in zip(variables, state, strict=True):
        variable.assign(value)
    return True


def _fill_when_built(optimizer: Any, state: State) -> None:
    """An optimizer that is not part of a model learns which variables it trains at its first step; until then it waits.

    Its count of steps and its learning rate, which come first, are there at once.
    """
    build = optimizer.build
    for variable, value in zip(_left_out(optimizer), state, strict=False):
        if tuple(variable.shape) == value.shape:
            variable.assign(value)

    def built(variables: Any) -> None:
        del optimizer.build
        build(variables)
        _fill(optimizer, state)

    optimizer.build = built
