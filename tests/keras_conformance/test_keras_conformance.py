"""The harness of Keras' own tests sees every way in which a test can end otherwise on ranks than alone."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path

import processes
import pytest
import report
import runner
import verdicts

PLANTED = """
    import os
    import sys
    import threading

    import jax  # may be missing: then this is a stand-in
    import pytest
    from conftest import skip_if_backend

    RANK = os.environ.get("OMPI_COMM_WORLD_RANK")


    def fit():
        import keras
        import numpy as np

        model = keras.Sequential([keras.layers.Dense(1)])
        model.compile("sgd", "mse")
        model.fit(np.ones((4, 2)), np.ones((4, 1)), verbose=0)


    def test_passes(tmp_path):
        (tmp_path / "file").touch(exist_ok=False)


    def test_fails_alone_too():
        raise ValueError("everywhere")


    @skip_if_backend("tensorflow", "not here")
    def test_skipped():
        raise AssertionError


    def test_other_result():
        assert RANK is None, "what is asserted"


    def test_after_a_failure_in_step():
        fit()


    def test_error():
        if RANK is not None:
            raise KeyError("name")


    def test_refused():
        if RANK is not None:
            from obl_magic.errors import NotOblivious

            raise NotOblivious("this", "do that")


    def test_skipped_on_ranks():
        if RANK is not None:
            pytest.skip("on ranks")


    def test_one_rank_fails_while_the_other_waits_for_it():
        if RANK == "1":
            raise ValueError("rank 1 only")
        fit()


    def test_hangs():
        if RANK == "1":
            threading.Event().wait()
        fit()


    def test_dies():
        if RANK == "1":
            os._exit(3)
        fit()


    def test_the_last_one():
        fit()
"""
KINDS = {
    "test_passes": "passed",
    "test_other_result": "other result",
    "test_after_a_failure_in_step": "passed",
    "test_error": "error",
    "test_refused": "refused",
    "test_skipped_on_ranks": "skipped",
    "test_one_rank_fails_while_the_other_waits_for_it": "ranks differ",
    "test_hangs": "hung",
    "test_dies": "died",
    "test_the_last_one": "passed",
}
FILE = "keras_tests/planted/planted_test.py"


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as Keras' source distribution is unpacked, with one test of each kind."""
    folder = tmp_path_factory.mktemp("planted")
    (folder / "pyproject.toml").write_text('[tool.pytest.ini_options]\naddopts = "-vv"\n')
    (folder / FILE).parent.mkdir(parents=True)
    (folder / FILE).write_text(textwrap.dedent(PLANTED))
    return folder


@pytest.fixture(scope="module")
def alone(planted: Path, tmp_path_factory: pytest.TempPathFactory) -> processes.Records:
    """The planted tests in a plain process."""
    return processes.run(tmp_path_factory.mktemp("alone"), planted, [FILE], None, None)


@pytest.fixture(scope="module")
def on_ranks(
    planted: Path, alone: processes.Records, tmp_path_factory: pytest.TempPathFactory
) -> processes.Records:
    """Those that pass there, on two ranks."""
    ids = verdicts.passed_alone(alone)
    limits_s = {f"{FILE}::test_hangs": 8.0}
    return processes.run(tmp_path_factory.mktemp("ranks"), planted, [FILE], ids, 2, limits_s=limits_s)


@pytest.mark.slow
def test_measures_by_what_passes_alone(alone: processes.Records) -> None:
    """A test that fails or is skipped in a plain process says nothing about ranks."""
    assert [name.removeprefix(f"{FILE}::") for name in verdicts.passed_alone(alone)] == list(KINDS)
    assert alone.worlds == 1


@pytest.mark.slow
def test_every_way_to_differ_is_seen(alone: processes.Records, on_ranks: processes.Records) -> None:
    """Each kind is told apart, and the tests after it run."""
    found = {name: verdicts.judge(f"{FILE}::{name}", on_ranks, 2).kind for name in KINDS}
    assert found == KINDS


@pytest.mark.slow
def test_a_world_stays_as_long_as_its_ranks_agree(on_ranks: processes.Records) -> None:
    """Failures that are the same on all ranks cost no world; each of the three partings costs one."""
    assert on_ranks.worlds == 4


@pytest.mark.slow
def test_the_report_holds_all_that_differs(
    alone: processes.Records, on_ranks: processes.Records, tmp_path: Path
) -> None:
    """A listed exception is not counted against us; one that passes is to leave the list."""
    ids = verdicts.passed_alone(alone)
    known = verdicts.Exceptions({"planted/planted_test.py::test_error": "a reason",
                                 "planted/planted_test.py::test_passes": "another"})  # fmt: skip
    found = tuple(verdicts.judge(name, on_ranks, 2) for name in ids)
    shown = report.Report(["planted"], "mpi", alone, (2,), found, known, 1.0)
    assert not shown.holds()
    assert shown.needless() == ["planted/planted_test.py::test_passes"]
    assert "2 ranks   3 of 10 passed, 1 listed exceptions, 6 differ" in shown.summary()
    written = shown.write(tmp_path, "planted")
    assert "AssertionError: what is asserted" in written.with_suffix(".txt").read_text()
    kinds = {
        v["test"].split("::")[1]: v["kind"]
        for v in json.loads(written.with_suffix(".json").read_text())["on_ranks"]
    }
    assert kinds == KINDS


@pytest.mark.parametrize("entry", ['test = "a"', 'reason = "b"', 'test = "a"\nreason = " "'])
def test_an_exception_needs_a_test_and_a_reason(entry: str, tmp_path: Path) -> None:
    """Nothing is excused without a word."""
    (tmp_path / "exceptions.toml").write_text(f"[[exception]]\n{entry}\n")
    with pytest.raises(SystemExit, match="expected one entry a test, with `test` and `reason`"):
        verdicts.exceptions(tmp_path / "exceptions.toml")


def test_an_exception_may_hold_for_some_worlds_only(tmp_path: Path) -> None:
    """What is excused on three ranks is not on two."""
    (tmp_path / "exceptions.toml").write_text('[[exception]]\ntest = "a"\nworlds = [3]\nreason = "b"\n')
    known = verdicts.exceptions(tmp_path / "exceptions.toml")
    assert known.reason("a", 3) == "b"
    assert known.reason("a", 2) is None


def test_the_committed_list_can_be_read() -> None:
    """The list that the gate uses is well formed."""
    verdicts.exceptions()


TROUBLED = """
    import os
    import threading
    from pathlib import Path

    SEEN = []


    def test_leaves_something():
        SEEN.append(1)


    def test_that_minds_what_is_left():
        assert not SEEN


    def test_of_which_one_rank_hangs_once():
        marker = Path(__file__).with_name("hung")
        if os.environ.get("OMPI_COMM_WORLD_RANK") == "1" and not marker.exists():
            marker.touch()
            threading.Event().wait()
"""


@pytest.mark.slow
def test_what_differs_is_tried_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A hang that does not come back is told and let be; what another test causes still differs."""
    tests = tmp_path / "tests"
    (tests / FILE).parent.mkdir(parents=True)
    (tests / "pyproject.toml").write_text("[tool.pytest.ini_options]\n")
    (tests / FILE).write_text(textwrap.dedent(TROUBLED))
    series = runner.Series(tmp_path / "worlds", tests, (FILE,), "mpi", 20.0)
    records = series.run("2", None, 2)
    found = {v.test.split("::")[1]: v.kind for v in runner._judged(series, records.collected, records, 2)}
    assert found == {
        "test_leaves_something": "passed",
        "test_of_which_one_rank_hangs_once": "passed",
        "test_that_minds_what_is_left": "after others: other result",
    }
    assert (
        "passed when tried twice more: planted/planted_test.py::test_of_which_one_rank_hangs_once: hung"
        in (capsys.readouterr().out)
    )
