"""One rank and several: what the options promise, on real ranks."""

from __future__ import annotations

import os

import numpy as np
import pytest
import trained

import obl_magic
from obl_magic.errors import NotOblivious, NotTheSame, RanksDiverged, UsageProblem


def same(one, other):
    """Asserts equal curves and weights to the contract's tolerances."""
    for name, curve in one["history"].items():
        np.testing.assert_allclose(other["history"][name], curve, rtol=1e-5, err_msg=name)
    for index, (mine, theirs) in enumerate(zip(one["weights"], other["weights"], strict=True)):
        np.testing.assert_allclose(theirs, mine, atol=1e-4, err_msg=f"weight {index}")


@pytest.fixture(scope="module")
def single(tmp_path_factory):
    """What one rank gives."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("single")
        patch.setenv("OBLIVIOUS_HOME", str(folder))
        patch.chdir(folder)
        yield obl_magic.run(alone, workers=1, engine="mpi", quiet=True).value


def alone():
    """Every reference in one process."""
    return {
        "normalised": trained.normalised(),
        "everything": trained.everything(),
        "per_worker": trained.per_worker(batch=40, rate=0.02),
        "by_hand": trained.everything_by_hand(trained.two_datasets),
        "logged": trained.logged_and_checkpointed(),
    }


@pytest.mark.slow
def test_batch_normalisation_is_exact_when_it_is_synchronised(home, single):
    """Forward, backward and moving statistics over the global batch, with uneven last batches."""
    run = obl_magic.run(trained.normalised, workers=3, engine="horovod", quiet=True)
    same(single["normalised"], run.value)
    assert not any("batch normalisation" in note for note in run.notes)


@pytest.mark.slow
def test_batch_normalisation_names_its_deviation_when_it_is_not(home):
    """The run says which layers are not the single process's; its ranks still agree with each other."""
    run = obl_magic.run(trained.normalised, workers=2, engine="mpi", sync_batchnorm=False, quiet=True)
    assert any("batch_normalization" in note and "--no-sync-batchnorm" in note for note in run.notes)
    for mine, theirs in zip(run.values[0]["weights"], run.values[1]["weights"], strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.slow
def test_a_hand_written_loop_over_dataset_fn_shares_the_rows_and_keeps_the_numbers(home, single):
    """Losses, metrics, rows counted by hand and weights are those of one process, on every rank."""
    run = obl_magic.run(trained.everything, workers=3, engine="mpi", quiet=True, seed=5)
    same(single["everything"]["by_hand"], run.value["by_hand"])
    same(single["everything"]["plain"], run.value["plain"])
    rows = [value["by_hand"]["rows"] for value in run.values]
    assert rows == [2 * 331] * 3
    again = obl_magic.run(trained.everything, workers=3, engine="mpi", quiet=True, seed=5)
    for mine, theirs in zip(
        run.value["twice"][1]["weights"], again.value["twice"][1]["weights"], strict=True
    ):
        np.testing.assert_array_equal(
            mine, theirs, err_msg="same seed, same world: the same bits, dropout and all"
        )
    first, second = run.value["twice"]
    assert first["history"]["loss"] != second["history"]["loss"], "the second fit draws other numbers"


def with_data(dataset_fn):
    """What is compared in one world."""
    return {
        "by_hand": trained.everything_by_hand(dataset_fn),
        "logged": trained.logged_and_checkpointed(),
        "stopped": trained.stopped_by_one(),
    }


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["mpi", "horovod"] if os.environ.get("OBL_PARITY") == "all" else ["mpi"])
def test_loops_logs_and_callbacks_of_ones_own_keep_the_numbers(home, engine, single):
    """Batch norm, adapted layers, stand-ins, metrics by hand; logs under other names; a rank that stops alone."""
    run = obl_magic.run(
        with_data,
        workers=3,
        engine=engine,
        sync_batchnorm=True,
        quiet=True,
        provide={"dataset_fn": trained.two_datasets},
    )
    same(single["by_hand"], run.value["by_hand"])
    same(single["logged"], run.value["logged"])
    assert [value["stopped"] for value in run.values] == [2, 2, 2]


@pytest.mark.slow
def test_ranks_that_hold_different_data_are_refused(home):
    """An unseeded split would show some samples twice and others never."""
    with pytest.raises(NotOblivious, match=r"the ranks hold different data.*; do: seed what splits"):
        obl_magic.run(trained.split_unseeded, workers=2, engine="mpi", quiet=True)


@pytest.mark.slow
def test_per_worker_batches_with_the_linear_rule_equal_one_process_with_both_scaled(home, single):
    """Two ranks with 20 each at rate 0.01 are one with 40 at 0.02; the code still sees its own rate."""
    run = obl_magic.run(
        trained.per_worker, workers=2, engine="mpi", batch="per-worker", lr_scale="linear", quiet=True
    )
    same(single["per_worker"], run.value)
    rate, steps = run.value["seen"]
    assert rate == pytest.approx(0.01)
    assert steps == single["per_worker"]["seen"][1]


@pytest.mark.slow
def test_verify_says_the_same_numbers_and_lets_the_run_go_on(home, capsys):
    """The report comes first, then the training."""
    run = obl_magic.run(trained.plain, workers=2, engine="mpi", verify=2)
    said = capsys.readouterr().out
    assert "1 rank and 2, 2 steps: the same numbers" in said
    assert "ok  weights" in said
    assert run.status == "succeeded"


@pytest.mark.slow
def test_verify_refuses_to_go_on_when_the_numbers_differ(home):
    """Unsynchronised batch normalisation is caught, with the quantity and the step."""
    options = {"sync_batchnorm": False, "verify": True}
    with pytest.raises(NotTheSame, match=r"loss|accuracy") as caught:
        obl_magic.run(trained.normalised, workers=2, engine="mpi", quiet=True, **options)
    assert "step 1" in str(caught.value)
    assert str(caught.value).endswith("do: leave --no-sync-batchnorm out, or run without --verify")


@pytest.mark.slow
def test_verify_knows_noise_from_gradients(home, capsys):
    """What batch normalization takes away again has no gradient: Adam moves it at random, and nothing else with it."""
    run = obl_magic.run(trained.taken_away_again, workers=2, engine="mpi", verify=3)
    said = capsys.readouterr().out
    assert "1 rank and 2, 3 steps: the same numbers" in said
    (line,) = [
        line for line in said.splitlines() if "not compared where gradients are nothing but rounding" in line
    ]
    assert "conv/bias" in line
    assert "hidden/bias" in line
    assert "last/bias" not in line
    assert run.status == "succeeded"


@pytest.mark.slow
def test_verify_advises_no_option_that_was_given(home):
    """Where batch normalization is exact, what differs is something else: here initial weights that nobody seeded."""
    with pytest.raises(NotTheSame) as caught:
        obl_magic.run(trained.own_start, workers=2, engine="mpi", quiet=True, verify=2)
    assert "batchnorm" not in str(caught.value)
    assert "docs/transparency.md" in str(caught.value)


@pytest.mark.slow
def test_ranks_that_drift_apart_are_noticed_while_it_runs(home):
    """The run fails and names the first step, the rank and the variable."""
    with pytest.raises(RanksDiverged, match=r"rank 1 against rank 0, first in .*bias") as caught:
        obl_magic.run(trained.drifting, workers=2, engine="mpi", quiet=True)
    assert caught.value.step == 4
    assert caught.value.run.status == "failed"


def test_a_function_that_distributes_itself_is_refused_before_anything_starts(home):
    """Named, with a way out, and no run is made."""
    with pytest.raises(NotOblivious, match=r"uses_horovod calls horovod's init\(\); do: leave it out"):
        obl_magic.run(trained.uses_horovod, workers=2, engine="mpi", quiet=True)
    assert not list(home.glob("**/run.json"))


@pytest.mark.slow
def test_a_strategy_made_in_disguise_is_refused_in_its_own_line(home):
    """What cannot be seen in the code is refused when it happens."""
    with pytest.raises(NotOblivious, match=r"makes a tf.distribute.MirroredStrategy; do: leave it out"):
        obl_magic.run(trained.uses_a_strategy, workers=2, engine="mpi", quiet=True)


@pytest.mark.slow
def test_a_run_that_distributes_nothing_says_so(home):
    """In plain words."""
    run = obl_magic.run(trained.nothing, workers=2, engine="mpi", quiet=True)
    assert run.values == [3, 3]
    assert any(note.startswith("nothing in the function was made distributed") for note in run.notes)


def test_options_that_contradict_each_other_are_refused():
    """Scaling the rate makes no sense where the global batch stays; verifying none where it grows."""
    with pytest.raises(UsageProblem, match="lr-scale or warmup-epochs with the global batch"):
        obl_magic.run(trained.plain, workers=2, lr_scale="linear")
    with pytest.raises(UsageProblem, match="verify without workers or with per-worker batches"):
        obl_magic.run(trained.plain, workers=2, batch="per-worker", verify=True)
    with pytest.raises(UsageProblem, match="verify without workers"):
        obl_magic.run(trained.plain, verify=True)
    with pytest.raises(UsageProblem, match="lr-scale 'cubic'; expected none, linear, sqrt"):
        obl_magic.run(trained.plain, workers=2, batch="per-worker", lr_scale="cubic")
