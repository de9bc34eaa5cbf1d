"""From the events of a failed run to the exception a user sees: first cause first, the other ranks folded."""

from __future__ import annotations

from functools import partial

from obl_magic import payload
from obl_magic.errors import RankDied, RunFailed, RunStalled, RunTimedOut
from obl_magic.events.event import Failed
from obl_magic.events.fold import RunState
from obl_magic.launchers import launchers
from obl_magic.launchers.launcher import Death
from obl_magic.rundir import RunDir


def read_death(launcher_said: str) -> Death | None:
    """What the launcher's own words tell about the first process that died; None if nothing."""
    return next(filter(None, (each.death(launcher_said) for each in launchers())), None)


def error_of(state: RunState, folder: RunDir) -> BaseException:
    """The exception for a run that did not succeed, with the rank's traceback attached for the notebook.

    The worker's own exception where it could be pickled, else one of ours with the same text.
    """
    if state.status == "interrupted":
        return _without_our_frames(KeyboardInterrupt())
    if state.status == "timed out":
        return _without_our_frames(RunTimedOut(state.error))
    if state.status == "stalled":
        return _without_our_frames(RunStalled(state.error))
    first = next((f for f in state.failures if f.traceback), None) or next(iter(state.failures), None)
    if first is None:
        return _without_our_frames(RunFailed(state.error or "the run failed without a word"))
    if not first.traceback:
        return _without_our_frames(RankDied(first.error, last_words(state, first.rank)))
    error = _unpickled(folder, first) or RunFailed(first.error, "")
    text = told(state, first)
    error.add_note(text)
    return _shown_as(text, error)


def told(state: RunState, first: Failed) -> str:
    """The first failure as a notebook shows it: where, the traceback, the last output, the other ranks in a line."""
    where = f" at {first.where}" if first.where else ""
    others = [str(rank) for rank in sorted(state.ranks) if rank not in (first.rank, -1)]
    parts = [f"{state.name(first.rank)} raised{where}:", "", first.traceback.rstrip()]
    if others:
        same = {f.rank for f in state.failures if f.error == first.error and f.rank != first.rank}
        verb = "raised the same" if same and len(same) == len(others) else "stopped"
        parts += ["", f"(rank{'s' if len(others) > 1 else ''} {', '.join(others)}: {verb})"]
    return "\n".join(parts)


def _without_our_frames(error: BaseException) -> BaseException:
    """In a notebook the frames of whoever waited for the ranks say nothing about what happened to them."""
    said = str(error)
    return _shown_as(f"{type(error).__name__}: {said}" if said else type(error).__name__, error)


def _shown_as(text: str, error: BaseException) -> BaseException:
    """The error with the text that IPython shows in place of a traceback."""
    error._render_traceback_ = partial(str.splitlines, text)  # type: ignore[attr-defined]
    return error


def _unpickled(folder: RunDir, failed: Failed) -> BaseException | None:
    path = folder.path / failed.file
    if not failed.file or not path.is_file():
        return None
    try:
        error = payload.loads(path.read_bytes())
    except BaseException:  # whatever it does as it comes back, its text is known
        return None
    return error if isinstance(error, BaseException) else None


def last_words(state: RunState, rank: int) -> str:
    """What a rank wrote last, without what is the same in every run; "" where it wrote nothing."""
    known = state.ranks.get(rank)
    tail = known.last_lines if known is not None else ()
    if not tail:
        return ""
    return "last lines of its output:\n" + "\n".join(f"  {line}" for line in tail[-10:])
