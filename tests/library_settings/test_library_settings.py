"""Reading and writing what libraries are set to: each setting there and back, and nothing imported for it."""

from __future__ import annotations

import decimal
import logging
import subprocess
import sys
import textwrap
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import pytest
import sklearn
from sklearn.exceptions import ConvergenceWarning

from obl_magic import payload
from obl_magic.library_settings import LIBRARIES, carried
from obl_magic.worker.library_settings import in_force

SET: dict[str, tuple[Callable[[], Any], str, str]] = {
    "decimal precision": (lambda: setattr(decimal.getcontext(), "prec", 5), "decimal", "prec"),
    "decimal traps": (
        lambda: decimal.getcontext().traps.__setitem__(decimal.Inexact, True),
        "decimal",
        "traps",
    ),
    "numpy errors": (lambda: np.seterr(divide="ignore"), "numpy", "seterr.divide"),
    "numpy's function for errors": (lambda: np.seterrcall(print), "numpy", "seterrcall"),
    "numpy prints": (lambda: np.set_printoptions(precision=2), "numpy", "printoptions.precision"),
    "numpy prints by a function": (
        lambda: np.set_printoptions(formatter={"float": lambda x: f"<{x}>"}),
        "numpy",
        "printoptions.formatter",
    ),
    "pandas": (lambda: pd.set_option("display.max_rows", 3), "pandas", "display.max_rows"),
    "pandas by a function": (
        lambda: pd.set_option("display.float_format", lambda x: f"{x:.1f}"),
        "pandas",
        "display.float_format",
    ),
    "scikit-learn": (lambda: sklearn.set_config(transform_output="pandas"), "sklearn", "transform_output"),
    "matplotlib": (
        lambda: matplotlib.rcParams.__setitem__("font.size", 30.0),
        "matplotlib",
        "font.size",
    ),
    "the root logger": (lambda: logging.getLogger().setLevel(5), "logging", "root"),
    "a logger": (lambda: logging.getLogger("mine.own").setLevel(5), "logging", "logger mine.own"),
    "all logging": (lambda: logging.disable(logging.CRITICAL), "logging", "disable"),
    "captured warnings": (lambda: logging.captureWarnings(True), "warnings", "logging.captureWarnings"),
    "a warning's filter": (
        lambda: warnings.filterwarnings("error", message="Mi", category=ConvergenceWarning, module="a"),
        "warnings",
        "filters",
    ),
}


@pytest.fixture(autouse=True)
def _put_back() -> Iterator[None]:
    with in_force():
        yield


@pytest.mark.parametrize("what", SET)
def test_a_setting_is_listed_travels_and_is_put_back(what: str) -> None:
    """What a cell sets is in the record, holds while a job runs, and is what it was afterwards."""
    change, library, name = SET[what]
    with in_force():
        change()
        found = {each.library: each for each in carried()}
        wanted = LIBRARIES[library].read()[name]
    assert name in found[library].told
    before = LIBRARIES[library].read()
    with in_force([found[library]]):
        now = LIBRARIES[library].read()[name]
        assert now == wanted or (callable(now) and callable(wanted)) or isinstance(now, dict)
        assert now != before.get(name)
    assert LIBRARIES[library].read() == before


def test_what_nobody_has_set_is_not_in_the_record() -> None:
    """Also where other libraries have added filters and loggers of their own."""
    told = {
        each.library: each.told
        for each in carried()
        if each.library in ("decimal", "numpy", "pandas", "sklearn")
    }
    assert not any(told.values()), told


def test_a_setting_that_cannot_travel_stays_and_says_so() -> None:
    """The others of its library go on."""
    import threading

    lock = threading.Lock()
    np.seterrcall(lambda kind, flag: lock.acquire())
    np.seterr(divide="ignore")
    found = {each.library: each for each in carried()}["numpy"]
    assert found.told["seterrcall"].startswith("not carried: cannot pickle")
    assert payload.loads(found.values)["seterr.divide"] == "ignore"


def test_a_filter_of_a_library_that_is_not_there_waits_until_it_is() -> None:
    """Nothing is imported to ignore the warnings of something that is not used."""
    program = """
        import sys, warnings
        from obl_magic.values import CarriedSettings
        from obl_magic import payload
        from obl_magic.worker.library_settings import in_force
        filters = (("ignore", None, "sklearn.exceptions:ConvergenceWarning", None, 0),)
        with in_force([CarriedSettings("warnings", payload.dumps({"filters": filters}))]):
            assert "sklearn" not in sys.modules and "numpy" not in sys.modules
            assert not [each for each in warnings.filters if each[0] == "ignore"]
            import sklearn
            from sklearn.exceptions import ConvergenceWarning
            assert [each[2] for each in warnings.filters] == [ConvergenceWarning]
        assert [each for each in warnings.filters if each[2] is ResourceWarning]
        print("well")
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=False
    )
    assert done.stdout == "well\n", done.stderr


def test_a_handler_of_the_console_writes_to_the_console_of_where_it_arrives(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """With its format, its level, its filters; once, whatever is written how often."""

    class Loud(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            return super().format(record).upper()

    with in_force():
        log = logging.getLogger("mine.console")
        handler = logging.StreamHandler(sys.stdout)
        handler.setFormatter(Loud("%(levelname)s %(message)s"))
        handler.addFilter(lambda record: "secret" not in record.getMessage())
        log.addHandler(handler)
        log.propagate = False
        found = [each for each in carried() if each.library == "logging"]
    with in_force(found) as again:
        again()
        logging.getLogger("mine.console").warning("heard")
        logging.getLogger("mine.console").warning("a secret")
    logging.getLogger("mine.console").warning("afterwards")
    assert capsys.readouterr().out == "WARNING HEARD\n"


def test_a_handler_that_writes_to_a_file_stays_in_the_kernel(tmp_path: Any) -> None:
    """A file that every rank wrote would be nobody's."""
    log = logging.getLogger("mine.file")
    log.addHandler(logging.FileHandler(tmp_path / "log"))
    log.setLevel(logging.INFO)
    found = next(each for each in carried() if each.library == "logging")
    assert found.told["logger mine.file"] == "INFO"
    log.handlers[0].close()


def test_loggers_that_a_job_has_made_are_silent_after_it(capsys: pytest.CaptureFixture[str]) -> None:
    """A trial that adds a handler each time it runs does not print twice in the second trial."""
    for _ in range(2):
        with in_force():
            log = logging.getLogger("mine.trial")
            log.addHandler(logging.StreamHandler(sys.stdout))
            log.setLevel(logging.INFO)
            log.info("once")
    assert capsys.readouterr().out == "once\n" * 2
