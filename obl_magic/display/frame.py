"""What every panel and still is made of: the frame, the headline, facts, sentences, the foot. Pure: values -> str.

Inline styles only, colours that read on light and on dark, no script, no style sheet, no identifiers:
JupyterLab, VS Code and nbviewer show it as it is; where styles and pictures are stripped (GitHub), what
is left are sentences and tables.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from obl_magic.display.charts.palette import ACTIVE, BAD, CAUTION, GOOD, LINE, NEUTRAL, ink
from obl_magic.display.run.view import Status, shorten

TONES = {"active": ACTIVE, "good": GOOD, "bad": BAD, "caution": CAUTION, "neutral": NEUTRAL}
MONO = "font-family:var(--jp-code-font-family,ui-monospace,SFMono-Regular,Menlo,Consolas,monospace)"
_FRAME = (
    "box-sizing:border-box;width:100%;max-width:1100px;margin:4px 0;padding:12px 16px;"
    f"border:1px solid {LINE};border-radius:8px;line-height:1.5;font-size:13px;text-align:left;"
    "font-family:var(--jp-ui-font-family,system-ui,-apple-system,'Segoe UI',Helvetica,Arial,sans-serif);"
    "font-variant-numeric:tabular-nums"
)
ONE_LINE = "white-space:nowrap;overflow:hidden;text-overflow:ellipsis"
FAINT = "opacity:.68;font-size:12px"
FIRST = "padding:3px 0;border:0;background:transparent;white-space:nowrap;font-size:13px"


def frame(*parts: str) -> str:
    """The box that every panel and still stands in."""
    inside = "".join(part for part in parts if part)
    return f'<div class="tex2jax_ignore mathjax_ignore" style="{_FRAME}">{inside}</div>'


def headline(function: str, status: Status, *places: tuple[str, int], aim: str = "") -> str:
    """Whose panel it is, how it stands, and where it is; each place keeps its width, so that nothing moves.

    Args:
        function: the training function's name.
        status: how it stands.
        places: what else is said, and how many characters wide it is.
        aim: of a study: what it is for.
    """
    how = f"{status.symbol} {status.phrase}"
    between = f"<span>{escape(aim)}</span> " if aim else ""
    others = "".join(
        f'<span style="display:inline-block;min-width:{width}ch">{escape(text) or "&nbsp;"}</span> '
        for text, width in places
    )
    return (
        f'<div style="{ONE_LINE};min-height:23px">'
        f'<span style="{MONO};font-size:15px;font-weight:600">{escape(shorten(function, 40))}</span>&ensp;{between}'
        f'<span style="display:inline-block;min-width:10ch;{ink(TONES[status.tone])};font-weight:600">'
        f"{escape(how)}</span> {others}</div>"
    )


def line(inside: str, title: str = "") -> str:
    """One line of small text of a height of its own, cut at its end rather than wrapped.

    Args:
        inside: HTML.
        title: what is shown to who points at it.
    """
    told = f' title="{escape(title, quote=True)}"' if title else ""
    return f'<div style="{ONE_LINE};font-size:12.5px;height:20px;line-height:20px"{told}>{inside or "&nbsp;"}</div>'


def folded(summary: str, inside: str) -> str:
    """A line that opens.

    Args:
        summary: HTML of the line.
        inside: HTML of what is below it.
    """
    style = f"{ONE_LINE};font-size:12.5px;height:20px;line-height:20px;cursor:pointer"
    return f'<details><summary style="{style}">{summary}</summary>{inside}</details>'


def facts(said: Sequence[str], digest: str) -> str:
    """Facts in faint words, the function's digest last; for one line.

    Args:
        said: the facts; empty ones are left out.
        digest: first digits of the sha256, or "".
    """
    parts = [*map(escape, said), f"sha256 {escape(digest)}" if digest else ""]
    return f'<span style="{FAINT}">{dotted(parts)}</span>'


def noted(sentences: Sequence[str]) -> str:
    """How many notes there are and the first of them; for one line, "" where there is none."""
    noun = "note" if len(sentences) == 1 else "notes"
    return f"{len(sentences)} {noun}: {escape(sentences[0])}" if sentences else ""


def listed(sentences: Sequence[str]) -> str:
    """Sentences, one below the other."""
    if not sentences:
        return ""
    hanging = "padding-left:14px;text-indent:-14px"
    lines = "".join(f'<div style="{hanging}">– {escape(line)}</div>' for line in sentences)
    return f'<div style="margin-top:8px;font-size:12.5px;overflow-wrap:anywhere">{lines}</div>'


def foot(run_id: str, folder: str, noun: str = "run", now: str = "") -> str:
    """Where it is kept.

    Args:
        run_id: of the run or study.
        folder: as the user would type it, or "".
        noun: which of them it is.
        now: of one on its way, date and time: a notebook that is opened again shows how old it is, and what to type.
    """
    place = folder or (f"{noun} {run_id}" if run_id else "")
    if folder and run_id not in folder:
        place = f"{noun} {run_id} in {folder}"
    style = f"{MONO};{ONE_LINE};font-size:11px;opacity:.68;margin-top:6px;height:18px"
    said = f"page reloaded? %oblivious attach {run_id} · as of {now}" if now and run_id else place
    return f'<div style="{style}" title="{escape(place, quote=True)}">{escape(said)}</div>' if said else ""


def alarm(text: str) -> str:
    """The style of a number that is none."""
    return f"{ink(BAD)};font-weight:600" if text in ("nan", "inf", "-inf") else ""


def dotted(parts: Sequence[str]) -> str:
    """The parts that are not empty, dots between them."""
    return " · ".join(part for part in parts if part)
