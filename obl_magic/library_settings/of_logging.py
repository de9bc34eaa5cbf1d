"""Levels of loggers, and the handlers of theirs that write to the console; a rank's console is its own streams.

Handlers that write elsewhere stay where they are: a file written by every rank would be nobody's.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

ROOT = "root"
_OF_THE_KERNEL = ("IPython", "ipykernel", "traitlets", "tornado", "zmq", "asyncio", "jupyter", "parso", "obl_magic",
                  "IPKernelApp", "comm", "ipywidgets", "nbformat", "nbclient")  # fmt: skip
_UNTOUCHED = (logging.NOTSET, True, False, ())
"""(level, propagate, disabled, handlers) of a logger that nobody has set anything of."""
_OF_ANY_HANDLER = set(vars(logging.StreamHandler()))


@dataclass(frozen=True, slots=True)
class ConsoleHandler:
    """One handler that writes to the console.

    Attributes:
        stream: ``stdout`` or ``stderr``.
        level: a number.
        format: of a formatter of logging's own, or None, None, "%".
        date_format: of a formatter of logging's own, or None, None, "%".
        style: of a formatter of logging's own, or None, None, "%".
        formatter: one of another class.
        filters: those it has.
        kind: another class than ``StreamHandler``, or None.
        more: what one of another class has beside, by name.
    """

    stream: str
    level: int
    format: str | None = None
    date_format: str | None = None
    style: str = "%"
    formatter: logging.Formatter | None = None
    filters: tuple[Any, ...] = ()
    kind: type[logging.StreamHandler[Any]] | None = None
    more: tuple[tuple[str, Any], ...] = ()


_OF_A_NOTEBOOK = (
    "tensorflow",
    (logging.INFO, True, False, (ConsoleHandler("stdout", 0, logging.BASIC_FORMAT),)),
)
"""TensorFlow's own logger, as it makes it wherever somebody types; ranks are not such a place."""


def read() -> dict[str, Any]:
    """Of each logger that something was set of: (level, propagate, disabled, its console's handlers)."""
    found: dict[str, Any] = {"disable": logging.root.manager.disable, ROOT: _of(logging.root)}
    for logger in _loggers()[1:]:
        state = _of(logger)
        if state != _UNTOUCHED and (logger.name, state) != _OF_A_NOTEBOOK:
            found[f"logger {logger.name}"] = state
    return found


def defaults() -> dict[str, Any]:
    """As Python, and as TensorFlow sets its own logger."""
    return {
        "disable": 0,
        ROOT: (logging.WARNING, True, False, ()),
        "logger tensorflow": (logging.NOTSET, True, False, (ConsoleHandler("stderr", 0, logging.BASIC_FORMAT),)),
    }  # fmt: skip


def write(values: Mapping[str, Any]) -> None:
    """Sets the loggers given."""
    if "disable" in values:
        logging.disable(values["disable"])
    for name, state in values.items():
        if name == ROOT:
            _set(logging.root, state)
        elif name.startswith("logger "):
            _set(logging.getLogger(name.removeprefix("logger ")), state)


def told(value: Any) -> str:
    """A logger's level and the handlers of its console in words."""
    if not isinstance(value, tuple):
        return repr(value)
    level, propagate, disabled, handlers = value
    words = [logging.getLevelName(level)]
    words += ["does not propagate"] * (not propagate) + ["disabled"] * bool(disabled)
    words += [f"to {handler.stream} as {handler.format!r}" for handler in handlers]
    return ", ".join(words)


def kept() -> Callable[[], None]:
    """Remembers every logger with all its handlers; returns what puts them back.

    Loggers that were made meanwhile lose what was set of them; those of an imported library keep their handlers.
    """
    disabled = logging.root.manager.disable
    before = {logger.name: (logger, _whole(logger)) for logger in _loggers()}

    def put_back() -> None:
        logging.disable(disabled)
        for logger in _loggers():
            known = before.get(logger.name)
            level, propagate, off, handlers = known[1] if known else (*_UNTOUCHED[:3], [])
            if known is None and logger.name.split(".")[0] in sys.modules:
                handlers = list(logger.handlers)
            if _whole(logger) != (level, propagate, off, handlers):
                logger.setLevel(level)
                logger.propagate, logger.disabled, logger.handlers[:] = propagate, off, handlers

    return put_back


def _loggers() -> list[logging.Logger]:
    made = list(logging.root.manager.loggerDict.items())
    named = [
        logger
        for name, logger in made
        if isinstance(logger, logging.Logger) and name.split(".")[0] not in _OF_THE_KERNEL
    ]
    return [logging.root, *named]


def _whole(logger: logging.Logger) -> tuple[int, bool, bool, list[logging.Handler]]:
    return logger.level, logger.propagate, logger.disabled, list(logger.handlers)


def _of(logger: logging.Logger) -> tuple[Any, ...]:
    handlers = (_told(handler) for handler in logger.handlers)
    told = tuple(handler for handler in handlers if handler is not None)
    return logger.level, logger.propagate, logger.disabled, told


def _set(logger: logging.Logger, state: tuple[Any, ...]) -> None:
    level, propagate, disabled, wanted = state
    if _of(logger) == state:
        return
    logger.setLevel(level)
    logger.propagate, logger.disabled = propagate, disabled
    there = [(handler, _told(handler)) for handler in logger.handlers]
    for handler, told in there:
        if told is not None and told not in wanted:
            logger.removeHandler(handler)
    for handler in wanted:
        if handler not in [told for _, told in there]:
            logger.addHandler(_made(handler))


def _told(handler: logging.Handler) -> ConsoleHandler | None:
    """A handler of the console as a value; None for any other."""
    if not isinstance(handler, logging.StreamHandler) or isinstance(handler, logging.FileHandler):
        return None
    stream = _name_of(handler.stream)
    if not stream:
        return None
    kind = None if type(handler) is logging.StreamHandler else type(handler)
    formatter, filters = handler.formatter, tuple(handler.filters)
    more = tuple(
        item for item in vars(handler).items() if kind is not None and item[0] not in _OF_ANY_HANDLER
    )
    if type(formatter) is logging.Formatter:
        styles: dict[str, Any] = logging._STYLES
        style = next((key for key, (made, _) in styles.items() if made is type(formatter._style)), "%")
        return ConsoleHandler(
            stream, handler.level, formatter._fmt, formatter.datefmt, style, None, filters, kind, more
        )
    return ConsoleHandler(stream, handler.level, formatter=formatter, filters=filters, kind=kind, more=more)


def _name_of(stream: Any) -> str:
    """Which of the two standard streams it is, were it that of a notebook's cell or of a run's record."""
    for name in ("stdout", "stderr"):
        if stream is getattr(sys, name) or stream is getattr(sys, f"__{name}__"):
            return name
    name = str(getattr(stream, "name", ""))
    if type(stream).__module__.startswith(("ipykernel", "obl_magic")):
        name = str(getattr(stream, "_stream", name))
    return name.strip("<>") if name in ("stdout", "stderr", "<stdout>", "<stderr>") else ""


def _made(told: ConsoleHandler) -> logging.Handler:
    stream = getattr(sys, told.stream)
    handler = logging.StreamHandler(stream) if told.kind is None else _of_kind(told.kind, stream)
    handler.setLevel(told.level)
    if told.formatter is not None:
        handler.setFormatter(told.formatter)
    elif told.format is not None:
        handler.setFormatter(logging.Formatter(told.format, told.date_format, told.style))  # type: ignore[arg-type]
    for each in told.filters:
        handler.addFilter(each)
    vars(handler).update(told.more)
    return handler


def _of_kind(kind: type[logging.StreamHandler[Any]], stream: Any) -> logging.StreamHandler[Any]:
    """A handler of a class of its own, were its ``__init__`` whatever it is."""
    handler = kind.__new__(kind)
    logging.StreamHandler.__init__(handler, stream)
    return handler
