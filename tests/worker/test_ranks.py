"""Which rank, on which host, with which GPU: from the launcher's variables alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from obl_magic.worker import ranks
from obl_magic.worker.ranks import ALONE, Rank, gpus, identify, pin_gpu

pytestmark = pytest.mark.timing

OPENMPI = {
    "OMPI_COMM_WORLD_RANK": "5",
    "OMPI_COMM_WORLD_SIZE": "8",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "4",
}
MPICH = {"PMI_RANK": "5", "PMI_SIZE": "8", "MPI_LOCALRANKID": "1", "MPI_LOCALNRANKS": "4"}
SLURM = {"SLURM_PROCID": "5", "SLURM_NTASKS": "8", "SLURM_LOCALID": "1", "SLURM_NTASKS_PER_NODE": "4"}


@pytest.fixture
def two_gpus(tmp_path: Path) -> Path:
    """A driver's folder with two devices."""
    for name in ("0000:01:00.0", "0000:02:00.0"):
        (tmp_path / name).mkdir()
    return tmp_path


@pytest.mark.parametrize("environ", [OPENMPI, MPICH, SLURM], ids=["openmpi", "mpich", "slurm"])
def test_every_launchers_variables_are_known(environ: dict[str, str]) -> None:
    """One row of a table for each."""
    assert identify(environ) == Rank(5, 8, 1, 4)


def test_without_a_launcher_a_process_is_alone() -> None:
    """Rank 0 of 1."""
    assert identify({}) == ALONE == Rank(0, 1, 0, 1)
    assert identify({"PMI_RANK": "3"}) == ALONE


def test_mpirun_inside_a_slurm_job_is_what_counts() -> None:
    """The batch system's variables describe the step that started mpirun."""
    assert identify({"SLURM_PROCID": "0", "SLURM_NTASKS": "1", **OPENMPI}) == Rank(5, 8, 1, 4)


def test_slurms_short_form_of_tasks_per_node_is_read() -> None:
    """``4(x2)`` is four on each of two nodes; without it, all are on this host."""
    assert identify({**SLURM, "SLURM_NTASKS_PER_NODE": "4(x2)"}).local_size == 4
    assert identify({"SLURM_PROCID": "5", "SLURM_NTASKS": "8"}) == Rank(5, 8, 5, 8)


def test_gpus_are_counted_without_a_framework(two_gpus: Path) -> None:
    """From the driver's folder; none where there is no driver."""
    assert gpus({}, two_gpus) == ("0", "1")
    assert gpus({}, two_gpus / "none") == ()


@pytest.mark.parametrize(
    ("named", "visible"),
    [
        ("2,5", ("2", "5")),
        (" 1 , 0 ", ("1", "0")),
        ("GPU-8f2a,GPU-77b1", ("GPU-8f2a", "GPU-77b1")),
        ("MIG-GPU-8f2a/1/0", ("MIG-GPU-8f2a/1/0",)),
        ("", ()),
        ("-1", ()),
        ("0,-1,1", ("0",)),
        ("NoDevFiles", ()),
    ],
)
def test_a_users_choice_of_gpus_is_read_as_cuda_does(
    two_gpus: Path, named: str, visible: tuple[str, ...]
) -> None:
    """Indices or UUIDs; an invalid one hides those behind it, and a batch system says that there is none."""
    assert gpus({"CUDA_VISIBLE_DEVICES": named}, two_gpus) == visible


@pytest.mark.parametrize(
    ("named", "pinned"),
    [(None, ["0", "1", "0", "1", "0"]), ("7,3,5", ["7", "3", "5", "7", "3"]), ("GPU-a", ["GPU-a"] * 5)],
)
def test_each_rank_gets_one_gpu_round_robin(two_gpus: Path, named: str | None, pinned: list[str]) -> None:
    """By local rank, among those the user allowed, also when ranks are more than GPUs."""
    given = {} if named is None else {"CUDA_VISIBLE_DEVICES": named}
    environs = [dict(given) for _ in pinned]
    assert [pin_gpu(Rank(9 + i, 20, i, 5), environs[i], two_gpus) for i in range(5)] == pinned
    assert [environ["CUDA_VISIBLE_DEVICES"] for environ in environs] == pinned
    assert environs[0]["TF_FORCE_GPU_ALLOW_GROWTH"] == "true"


def test_without_gpus_nothing_is_set(tmp_path: Path) -> None:
    """The environment stays as it was, also where the user hid them."""
    environ: dict[str, str] = {}
    assert pin_gpu(ALONE, environ, tmp_path / "none") is None
    assert environ == {}
    hidden = {"CUDA_VISIBLE_DEVICES": "-1"}
    assert pin_gpu(ALONE, hidden, tmp_path / "none") is None
    assert hidden == {"CUDA_VISIBLE_DEVICES": "-1"}


def test_the_users_own_memory_setting_stays(two_gpus: Path) -> None:
    """Growth is a default, not a rule."""
    environ = {"TF_FORCE_GPU_ALLOW_GROWTH": "false"}
    pin_gpu(ALONE, environ, two_gpus)
    assert environ["TF_FORCE_GPU_ALLOW_GROWTH"] == "false"


@pytest.mark.parametrize("world", [0, 1])
def test_worlds_that_share_a_host_take_their_own_processors_and_gpus(world: int, two_gpus: Path) -> None:
    """Two worlds of two ranks on four processors and two GPUs: nobody's are anybody else's."""
    environ = {ranks.BESIDE: f"{2 * world}/4,{2 * world + 1}/4"}
    placed = [ranks.beside_others(ranks.Rank(rank, 2, rank, 2), environ) for rank in (0, 1)]
    assert [ranks.share_of_cores(me, [4, 5, 6, 7]) for me in placed] == [[4 + 2 * world], [5 + 2 * world]]
    assert [ranks.pin_gpu(me, {}, two_gpus) for me in placed] == ["0", "1"]
    assert placed[0].rank == 0


def test_a_world_alone_on_its_host_has_all_of_it() -> None:
    """No other is named."""
    me = ranks.Rank(1, 2, 1, 2)
    assert ranks.beside_others(me, {}) == me
