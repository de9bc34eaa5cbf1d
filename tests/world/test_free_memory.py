"""The limit of a control group counts as the machine's memory does."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from obl_magic.world.free_memory import available_bytes

MIB = 2**20


def group(folder: Path, version: int, limit: str, used: int, inactive: int) -> None:
    """The files of one control group."""
    folder.mkdir(parents=True, exist_ok=True)
    names = {2: ("memory.max", "memory.current", "inactive_file"),
             1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")}[version]  # fmt: skip
    (folder / names[0]).write_text(f"{limit}\n")
    (folder / names[1]).write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 1\n{names[2]} {inactive}\n")


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("where", ["", "box", "box/inner"])
def test_the_tightest_group_counts(tmp_path: Path, version: int, where: str) -> None:
    """Its own or one above; memory that holds files which can be read again is not lost."""
    root = tmp_path / "memory" if version == 1 else tmp_path
    group(root / where, version, str(100 * MIB), 70 * MIB, 10 * MIB)
    mine = tmp_path / "mine"
    mine.write_text("12:cpu:/elsewhere\n" + (f"{'3:memory' if version == 1 else '0:'}:/box/inner\n"))
    assert available_bytes(tmp_path, mine) == 40 * MIB


@pytest.mark.parametrize("limit", ["max", str(2**63 - 4096), "nonsense"])
def test_no_limit_leaves_the_machines_memory(tmp_path: Path, limit: str) -> None:
    """Neither does a file that cannot be read take any."""
    group(tmp_path, 2, limit, MIB, 0)
    mine = tmp_path / "mine"
    mine.write_text("0::/\n")
    assert abs(available_bytes(tmp_path, mine) - psutil.virtual_memory().available) < 500 * MIB


def test_a_group_that_is_over_its_limit_has_nothing_left(tmp_path: Path) -> None:
    """Rather than less than nothing."""
    group(tmp_path, 2, str(MIB), 2 * MIB, 0)
    mine = tmp_path / "mine"
    mine.write_text("0::/\n")
    assert available_bytes(tmp_path, mine) == 0


def test_a_machine_without_control_groups_has_its_memory(tmp_path: Path) -> None:
    """As macOS."""
    assert available_bytes(tmp_path, tmp_path / "none") > 0
