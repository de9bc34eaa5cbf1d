"""The end of a verification: the function is stopped after a few steps, with what they gave. Imports no framework."""

from __future__ import annotations

from typing import Any


class Verified(BaseException):
    """Ends a training function from inside its fit; not an error, so that no ``except Exception`` keeps it.

    Args:
        steps: the exact logs after each step.
        weights: arrays by variable path, after the last step.
        noise: by the same paths, which elements never had a gradient above rounding; a path without any is left
            out.
    """

    def __init__(self, steps: list[dict[str, float]], weights: dict[str, Any], noise: dict[str, Any]) -> None:
        super().__init__(steps, weights, noise)
        self.steps, self.weights, self.noise = steps, weights, noise
