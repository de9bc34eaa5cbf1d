"""Writes a run's numbers where TensorBoard reads them, while it runs: scalars, and what it was called with as HParams.

TensorFlow is not imported for it; ``tensorboard`` alone has the format.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from obl_magic.capture.credentials import as_text, looks_secret
from obl_magic.errors import SetupProblem
from obl_magic.events.event import Ended, Event, Metric
from obl_magic.events.fold import SINGLE_STEP, of_rank


def check_tensorboard(folder: str | None) -> None:
    """Raises SetupProblem where a folder is asked for and nothing could be written there."""
    if folder is None:
        return
    if find_spec("tensorboard") is None:
        raise SetupProblem(
            "--tensorboard writes with TensorBoard's own package, which is missing",
            "python -m pip install tensorboard",
        )
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise SetupProblem(
            f"--tensorboard {folder} cannot be written ({error.strerror or error})",
            "name a folder that you can write, as --tensorboard logs",
        ) from error


class Board:
    """One run for TensorBoard, a session of its HParams.

    Args:
        folder: where its file goes; it is made.
        hparams: what the run was called with, by name.
        complain: told, in a sentence, when nothing more can be written.
    """

    def __init__(self, folder: Path, hparams: Mapping[str, Any], complain: Callable[[str], None]) -> None:
        from tensorboard.plugins.hparams import metadata, plugin_data_pb2
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._metadata, self._data = metadata, plugin_data_pb2
        self._complain = complain
        folder.mkdir(parents=True, exist_ok=True)
        self._writer: Any = RecordWriter((folder / f"events.out.tfevents.{int(time.time())}.obl").open("wb"))
        self._write(time.time(), 0, file_version="brain.Event:2")
        start = plugin_data_pb2.SessionStartInfo(start_time_secs=time.time(), group_name=folder.name)
        for name, value in hparams.items():
            _put(start.hparams[name], name, value)
        self._tell(metadata.SESSION_START_INFO_TAG, session_start_info=start)

    def take(self, event: Event) -> None:
        """Writes what an event says; the run's end closes the file."""
        if self._writer is None:
            return
        try:
            self._take(event)
        except OSError as error:  # a full disk, say: the run does not depend on it
            self._writer = None
            self._complain(
                f"TensorBoard has the numbers up to here: its file can be written no more ({error.strerror or error})"
            )

    def _take(self, event: Event) -> None:
        if isinstance(event, Metric):
            for name, value in event.values.items():
                tag = of_rank(name, event.rank)
                whole = event.epoch is not None and not name.startswith(SINGLE_STEP)
                step = event.epoch if whole else event.step
                self._summary(event.time_s, step or 0, tag=tag, simple_value=float(value))
            self._writer.flush()
        elif isinstance(event, Ended):
            from tensorboard.plugins.hparams import api_pb2

            status = api_pb2.STATUS_SUCCESS if event.status == "succeeded" else api_pb2.STATUS_FAILURE
            end = self._data.SessionEndInfo(status=status, end_time_secs=event.time_s)
            self._tell(self._metadata.SESSION_END_INFO_TAG, session_end_info=end)
            self._writer.close()
            self._writer = None

    def _tell(self, tag: str, **data: Any) -> None:
        told = self._metadata.create_summary_metadata(self._data.HParamsPluginData(**data))
        self._summary(time.time(), 0, tag=tag, metadata=told, tensor=self._metadata.NULL_TENSOR)
        self._writer.flush()

    def _summary(self, time_s: float, step: int, **value: Any) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary

        self._write(time_s, step, summary=Summary(value=[Summary.Value(**value)]))

    def _write(self, time_s: float, step: int, **what: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event as Record

        self._writer.write(Record(wall_time=time_s, step=step, **what).SerializeToString())


def _put(field: Any, name: str, value: Any) -> None:
    """One hyperparameter, in the kind of value that HParams sorts it by."""
    if isinstance(value, bool):
        field.bool_value = value
    elif isinstance(value, (int, float)):
        field.number_value = value
    elif isinstance(value, str) and not looks_secret(name, value):
        field.string_value = value
    else:
        field.string_value = as_text(name, value)
