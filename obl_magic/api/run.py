"""``run`` and ``verify`` as a user calls them: what was asked for is checked here, then one thing is called."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from obl_magic.api.fastest import AUTO, fastest, hint, remember
from obl_magic.api.lineage import inherited
from obl_magic.api.parity import ParityReport, compare
from obl_magic.api.request import checked, checked_args
from obl_magic.api.signatures import takes_options
from obl_magic.capture.function_source import read_cell
from obl_magic.display.choose import showing_verification
from obl_magic.display.run.view import Display
from obl_magic.launch.one_run import Call, launch
from obl_magic.options import RUN, VERIFY_STEPS, RunOptions
from obl_magic.rundir.trust import refuse_foreign
from obl_magic.runs.run import Run
from obl_magic.values import CellSource


@takes_options(RUN)
def run(
    fn: Callable[..., Any],
    *,
    args: Mapping[str, Any] | None = None,
    provide: Mapping[str, Any] | None = None,
    namespace: Mapping[str, Any] | None = None,
    cells: Callable[[str], CellSource | None] = read_cell,
    display: Display | None = None,
    **options: Any,
) -> Run:
    """Runs an ordinary training function, unchanged, data-parallel on ``workers`` ranks (or here, in this process).

    Args:
        fn: the function. Its parameters without default are filled by name from ``provide``, ``namespace`` or
            its own globals; ``reporter`` and ``hparams`` are reserved.
        args: arguments by name.
        provide: values for parameters without default.
        namespace: the notebook's names.
        cells: gives the cell behind a code object's file name.
        display: where to show it; by default the notebook or the terminal.
        **options: see :mod:`obl_magic.options`.

    Returns:
        The run, with its value, metrics and folder.

    Raises:
        UsageProblem, SetupProblem, CannotTravel: before anything is started.
        KeyboardInterrupt: it was interrupted; no process is left.
        BaseException: what the function raised on a rank, with the rank's traceback attached and ``.run`` set.
    """
    __tracebackhide__ = True
    auto = options.get("workers") == AUTO
    asked = checked(RunOptions, RUN, {**options, "workers": 1} if auto else options)
    taken = inherited(asked.params, asked.init_from, namespace)
    call = Call(fn, checked_args(args), provide, namespace, cells, taken)
    earlier = None if asked.resume is None else Run.open(asked.resume)
    if earlier is not None:
        refuse_foreign(earlier.dir, f"resume={asked.resume}", f"copy it: cp -r {earlier.dir} COPY")
    says = ""
    if auto:
        found = fastest(call, asked)
        asked, says = replace(asked, workers=found.workers), found.told
    elif asked.workers is not None and asked.workers > 1:
        says = hint(call, asked.workers)
    if asked.compared_steps:
        shown = None if asked.quiet else showing_verification()
        compare(call, asked, asked.compared_steps, shown).check()
    this = launch(call, asked, display=display, earlier=earlier, says=says)
    if not asked.background:
        remember(call, asked.workers, this.ledger.state)
    return this


def verify(
    fn: Callable[..., Any],
    *,
    workers: int,
    steps: int = VERIFY_STEPS,
    args: Mapping[str, Any] | None = None,
    engine: str = "auto",
    sync_batchnorm: bool = True,
    seed: int | None = None,
    provide: Mapping[str, Any] | None = None,
    namespace: Mapping[str, Any] | None = None,
) -> ParityReport:
    """Runs the first steps of a function on one rank and on ``workers``, and compares what they give.

    Args:
        fn: the training function; it is stopped after ``steps`` steps of its fits.
        workers: ranks to compare with one.
        steps: optimizer steps to compare.
        args: as for :func:`run`.
        engine: as for :func:`run`.
        sync_batchnorm: as for :func:`run`.
        seed: as for :func:`run`.
        provide: as for :func:`run`.
        namespace: as for :func:`run`.

    Returns:
        The report: per quantity the largest difference and where it is. ``report.ok`` says whether all is within
        tolerance, ``report.check()`` raises NotTheSame if not.
    """
    options = {"workers": workers, "engine": engine, "sync_batchnorm": sync_batchnorm, "seed": seed}
    return compare(Call(fn, checked_args(args), provide, namespace), checked(RunOptions, RUN, options), steps)
