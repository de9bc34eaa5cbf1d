# `make options` writes this file from obl_magic/options.py.
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from obl_magic.api.parity import ParityReport
from obl_magic.display.run.view import Display
from obl_magic.display.study.view import StudyDisplay
from obl_magic.options import Source
from obl_magic.runs.run import Run as Run
from obl_magic.study.ablation_result import AblationResult as AblationResult
from obl_magic.study.search_result import Study as Study
from obl_magic.values import CellSource
from obl_magic.worker.report import checkpoint as checkpoint
from obl_magic.worker.report import report as report

__version__: str
__all__: list[str]

def load_ipython_extension(ipython: Any) -> None: ...
def unload_ipython_extension(ipython: Any) -> None: ...

def run(
    fn: Callable[..., Any],
    *,
    args: Mapping[str, Any] | None = ...,
    provide: Mapping[str, Any] | None = ...,
    namespace: Mapping[str, Any] | None = ...,
    cells: Callable[[str], CellSource | None] = ...,
    display: Display | None = ...,
    workers: int | None = ...,
    engine: str = ...,
    hosts: str | Sequence[str] | None = ...,
    hostfile: str | None = ...,
    slurm: str | None = ...,
    timeout: float | None = ...,
    stall_timeout: float | None = ...,
    retries: int = ...,
    min_workers: int | None = ...,
    checkpoint_every: float | str | None = ...,
    params: Source | None = ...,
    init_from: Source | None = ...,
    resume: str | None = ...,
    seed: int | None = ...,
    batch: str = ...,
    lr_scale: str = ...,
    warmup_epochs: int = ...,
    sync_batchnorm: bool = ...,
    balance: bool | None = ...,
    verify: str | int | bool = ...,
    show_ranks: str | Sequence[int] = ...,
    tensorboard: str | None = ...,
    quiet: bool = ...,
    background: bool = ...,
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
        workers: number of ranks, or auto; without it the function runs here. `auto` (of a run) measures some
            steps on 1, 2, 4 … ranks and takes the fastest. For a study: of all trials together.
        engine: which collectives, auto, horovod or mpi.
        hosts: ranks per host, over ssh. Without `workers`, as many ranks as that; `a,b` shares them out.
            Inside a Slurm allocation its nodes are the hosts, and this may narrow them. `OBLIVIOUS_HOSTS` is
            a default for runs with workers. See clusters.md.
        hostfile: hosts from a file, a line each, a slots=4. As Open MPI and horovodrun read them.
        slurm: ranks in a Slurm allocation of their own, with salloc's options. From a login node. Without
            `workers`, as many ranks as it has tasks. `timeout` counts from the first rank; the allocation
            ends with the run. Inside an allocation nothing need be typed. See clusters.md.
        timeout: deadline in seconds. For the whole run or study.
        stall_timeout: end it after so many seconds without progress. No step, no number, no rank that comes
            up or returns; the error names the rank that holds it up and its line. Without it such a world is
            named in a note and goes on.
        retries: restarts after a failure, from the last epoch. A new world goes on from the last completed
            epoch of the Keras fit that was under way.
        min_workers: restarts may have fewer ranks, at least so many. A rank or a host that is lost is not
            waited for: the next world takes what is left, with the same numbers. Without it a restart has as
            many as before.
        checkpoint_every: keep where a fit is inside long epochs, too. Seconds, or with a unit: `30s`, `5m`,
            `1h`. A run with `retries`, and `resume`, go on at the step that was kept last. For arrays,
            PyDatasets and `tf.data` whose length is known; what is behind in the epoch is read again, not
            computed.
        params: hyperparameters of an earlier search or run. `"best"` (of the newest search), a search or a
            run, or the name or id of one; `args` go before.
        init_from: initial weights from an earlier search or run. Named as for `params`.
        resume: go on with a run that did not end, or with a search. A run goes on from where it was kept
            last; of a search, what is not said is as it was.
        seed: base seed of every random number. Recorded in any case; a trial's is the study's and its number.
        batch: whose batch the code names, global or per-worker. `global`: the whole world's, so that 1 and N
            ranks compute the same. `per-worker`: each rank takes that many, so the global batch grows with
            the world.
        lr_scale: per-worker learning rate, none, linear or sqrt. Times the world's size, or its square root
            (Goyal et al., 2017).
        warmup_epochs: epochs until the scaled rate.
        sync_batchnorm: batch norm over the global batch, the default. Without it, each rank takes its moments
            over its own rows, which is said.
        balance: shares of a batch follow the ranks' pace, soon or never. Neither said, they do so where ranks
            differ by more than 10 % for long. The numbers are the same. In a Keras fit; loops by hand keep
            equal shares.
        verify: do steps prove themselves, auto or off; or compare so many with one rank. `auto`: steps that
            contain code of yours prove themselves at their calls 1, 2, 4, 8, …. A number (of a run): before
            training, so many steps are compared on one rank and on `workers`, and a difference is refused.
        show_ranks: whose prints appear live, 0, all or a list. All are kept on disk.
        tensorboard: also write the numbers for TensorBoard below this folder. A folder each for the run or
            for every trial, written while it runs: scalars, and in HParams what it was called with; of an
            ablation what was left out.
        quiet: show nothing while it runs.
        background: return at once with what is under way.

    Returns:
        The run, with its value, metrics and folder.

    Raises:
        UsageProblem, SetupProblem, CannotTravel: before anything is started.
        KeyboardInterrupt: it was interrupted; no process is left.
        BaseException: what the function raised on a rank, with the rank's traceback attached and ``.run`` set.
    """

def search(
    fn: Callable[..., Any],
    space: str | Mapping[str, Any] | None = ...,
    *,
    args: Mapping[str, Any] | None = ...,
    provide: Mapping[str, Any] | None = ...,
    namespace: Mapping[str, Any] | None = ...,
    cells: Callable[[str], CellSource | None] = ...,
    display: StudyDisplay | None = ...,
    out: str = ...,
    workers: int | None = ...,
    engine: str = ...,
    hosts: str | Sequence[str] | None = ...,
    hostfile: str | None = ...,
    timeout: float | None = ...,
    stall_timeout: float | None = ...,
    params: Source | None = ...,
    init_from: Source | None = ...,
    resume: str | None = ...,
    seed: int | None = ...,
    batch: str = ...,
    lr_scale: str = ...,
    warmup_epochs: int = ...,
    sync_batchnorm: bool = ...,
    balance: bool | None = ...,
    verify: str | int | bool = ...,
    tensorboard: str | None = ...,
    quiet: bool = ...,
    background: bool = ...,
    workers_per_trial: int = ...,
    maximize: str | None = ...,
    minimize: str | None = ...,
    trials: int | None = ...,
    sampler: str | None = ...,
    pruner: str | None = ...,
    keep_weights: int = ...,
) -> Study:
    """Searches the hyperparameters of an ordinary training function, unchanged.

    Trials are pulled: whichever world is free takes the next one; none waits for another. A trial that raises or
    dies is a failed row, and its world is replaced.

    Args:
        fn: the function; see :func:`obl_magic.run`.
        space: what varies: ``"lr=log(1e-4,1e-1) units=int(16,128) act=choice('relu','tanh')"``, or a mapping.
        args: arguments by name that all trials share.
        provide: values for parameters without default.
        namespace: the notebook's names.
        cells: gives the cell behind a code object's file name.
        display: where to show it; by default the notebook or the terminal.
        out: the name it is known by later, beside its id.
        workers: number of ranks, or auto; without it the function runs here. `auto` (of a run) measures some
            steps on 1, 2, 4 … ranks and takes the fastest. For a study: of all trials together.
        engine: which collectives, auto, horovod or mpi.
        hosts: ranks per host, over ssh. Without `workers`, as many ranks as that; `a,b` shares them out.
            Inside a Slurm allocation its nodes are the hosts, and this may narrow them. `OBLIVIOUS_HOSTS` is
            a default for runs with workers. See clusters.md.
        hostfile: hosts from a file, a line each, a slots=4. As Open MPI and horovodrun read them.
        timeout: deadline in seconds. For the whole run or study.
        stall_timeout: end it after so many seconds without progress. No step, no number, no rank that comes
            up or returns; the error names the rank that holds it up and its line. Without it such a world is
            named in a note and goes on.
        params: hyperparameters of an earlier search or run. `"best"` (of the newest search), a search or a
            run, or the name or id of one; `args` go before.
        init_from: initial weights from an earlier search or run. Named as for `params`.
        resume: go on with a run that did not end, or with a search. A run goes on from where it was kept
            last; of a search, what is not said is as it was.
        seed: base seed of every random number. Recorded in any case; a trial's is the study's and its number.
        batch: whose batch the code names, global or per-worker. `global`: the whole world's, so that 1 and N
            ranks compute the same. `per-worker`: each rank takes that many, so the global batch grows with
            the world.
        lr_scale: per-worker learning rate, none, linear or sqrt. Times the world's size, or its square root
            (Goyal et al., 2017).
        warmup_epochs: epochs until the scaled rate.
        sync_batchnorm: batch norm over the global batch, the default. Without it, each rank takes its moments
            over its own rows, which is said.
        balance: shares of a batch follow the ranks' pace, soon or never. Neither said, they do so where ranks
            differ by more than 10 % for long. The numbers are the same. In a Keras fit; loops by hand keep
            equal shares.
        verify: do steps prove themselves, auto or off; or compare so many with one rank. `auto`: steps that
            contain code of yours prove themselves at their calls 1, 2, 4, 8, …. A number (of a run): before
            training, so many steps are compared on one rank and on `workers`, and a difference is refused.
        tensorboard: also write the numbers for TensorBoard below this folder. A folder each for the run or
            for every trial, written while it runs: scalars, and in HParams what it was called with; of an
            ablation what was left out.
        quiet: show nothing while it runs.
        background: return at once with what is under way.
        workers_per_trial: ranks of each trial.
        maximize: the number to make large, returned or reported. A key of the returned dict, a reported
            metric's last value, or `value` for a function that returns a bare number. One of `maximize` and
            `minimize` is given.
        minimize: the number to make small, returned or reported.
        trials: how many trials a search makes. 20 unless said; those of a search that is resumed included.
        sampler: who draws trials, tpe, random, grid, cmaes, gp or nsga2. Optuna's; `tpe` unless said.
        pruner: who ends trials early, none, median, asha or hyperband. Optuna's; `none` unless said.
        keep_weights: of how many best trials.

    Returns:
        The study: ``.trials``, ``.best``, ``.optuna``.

    Raises:
        UsageProblem, SetupProblem, CannotTravel: before anything is started; or the quantity is not to be found.
        KeyboardInterrupt: it was interrupted; finished trials are kept (``error.study``), no process is left.
    """

def ablate(
    fn: Callable[..., Any],
    study: str | Mapping[str, Any],
    *,
    args: Mapping[str, Any] | None = ...,
    provide: Mapping[str, Any] | None = ...,
    namespace: Mapping[str, Any] | None = ...,
    cells: Callable[[str], CellSource | None] = ...,
    display: StudyDisplay | None = ...,
    out: str = ...,
    workers: int | None = ...,
    engine: str = ...,
    hosts: str | Sequence[str] | None = ...,
    hostfile: str | None = ...,
    timeout: float | None = ...,
    stall_timeout: float | None = ...,
    params: Source | None = ...,
    init_from: Source | None = ...,
    seed: int | None = ...,
    batch: str = ...,
    lr_scale: str = ...,
    warmup_epochs: int = ...,
    sync_batchnorm: bool = ...,
    balance: bool | None = ...,
    verify: str | int | bool = ...,
    tensorboard: str | None = ...,
    quiet: bool = ...,
    background: bool = ...,
    workers_per_trial: int = ...,
    maximize: str | None = ...,
    minimize: str | None = ...,
    repeats: int = ...,
) -> AblationResult:
    """Measures what parts of a training function are worth, by leaving out one at a time; the function is unchanged.

    Features are taken from what ``dataset_fn`` returns, layers from what ``model_fn`` returns: the functions of these
    names that the training function calls. What is to be left out is tried first, in this process, on what they
    return: an unknown name, a layer that cannot be removed, and what would change nothing are refused before
    anything runs.

    Args:
        fn: the function; see :func:`obl_magic.run`.
        study: what to leave out: ``"features=age,sex layers=conv2,dropout groups=block1_*"``, or a mapping;
            further kinds are ``models`` (other functions in place of ``model_fn``) and ``flags`` (parameters to
            be toggled).
        args: arguments by name that all runs share.
        provide: values for parameters without default.
        namespace: the notebook's names.
        cells: gives the cell behind a code object's file name.
        display: where to show it; by default the notebook or the terminal.
        out: the name it is known by later, beside its id.
        workers: number of ranks, or auto; without it the function runs here. `auto` (of a run) measures some
            steps on 1, 2, 4 … ranks and takes the fastest. For a study: of all trials together.
        engine: which collectives, auto, horovod or mpi.
        hosts: ranks per host, over ssh. Without `workers`, as many ranks as that; `a,b` shares them out.
            Inside a Slurm allocation its nodes are the hosts, and this may narrow them. `OBLIVIOUS_HOSTS` is
            a default for runs with workers. See clusters.md.
        hostfile: hosts from a file, a line each, a slots=4. As Open MPI and horovodrun read them.
        timeout: deadline in seconds. For the whole run or study.
        stall_timeout: end it after so many seconds without progress. No step, no number, no rank that comes
            up or returns; the error names the rank that holds it up and its line. Without it such a world is
            named in a note and goes on.
        params: hyperparameters of an earlier search or run. `"best"` (of the newest search), a search or a
            run, or the name or id of one; `args` go before.
        init_from: initial weights from an earlier search or run. Named as for `params`.
        seed: base seed of every random number. Recorded in any case; a trial's is the study's and its number.
        batch: whose batch the code names, global or per-worker. `global`: the whole world's, so that 1 and N
            ranks compute the same. `per-worker`: each rank takes that many, so the global batch grows with
            the world.
        lr_scale: per-worker learning rate, none, linear or sqrt. Times the world's size, or its square root
            (Goyal et al., 2017).
        warmup_epochs: epochs until the scaled rate.
        sync_batchnorm: batch norm over the global batch, the default. Without it, each rank takes its moments
            over its own rows, which is said.
        balance: shares of a batch follow the ranks' pace, soon or never. Neither said, they do so where ranks
            differ by more than 10 % for long. The numbers are the same. In a Keras fit; loops by hand keep
            equal shares.
        verify: do steps prove themselves, auto or off; or compare so many with one rank. `auto`: steps that
            contain code of yours prove themselves at their calls 1, 2, 4, 8, …. A number (of a run): before
            training, so many steps are compared on one rank and on `workers`, and a difference is refused.
        tensorboard: also write the numbers for TensorBoard below this folder. A folder each for the run or
            for every trial, written while it runs: scalars, and in HParams what it was called with; of an
            ablation what was left out.
        quiet: show nothing while it runs.
        background: return at once with what is under way.
        workers_per_trial: ranks of each trial.
        maximize: the number to make large, returned or reported. A key of the returned dict, a reported
            metric's last value, or `value` for a function that returns a bare number. One of `maximize` and
            `minimize` is given.
        minimize: the number to make small, returned or reported.
        repeats: each run of an ablation so often. With other seeds.

    Returns:
        The result: ``.table``, and a chart of the differences.

    Raises:
        UsageProblem, SetupProblem, CannotTravel: before anything is started.
        KeyboardInterrupt: it was interrupted; finished runs are kept (``error.study``), no process is left.
    """

def verify(
    fn: Callable[..., Any],
    *,
    workers: int,
    steps: int = ...,
    args: Mapping[str, Any] | None = ...,
    engine: str = ...,
    sync_batchnorm: bool = ...,
    seed: int | None = ...,
    provide: Mapping[str, Any] | None = ...,
    namespace: Mapping[str, Any] | None = ...,
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
