"""What a function feeds stays as the user made it, whatever the layers do in place."""

from __future__ import annotations

from pathlib import Path

import pytest
import untouched

import obl_magic

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("workers", "engine"), [(2, "mpi"), (3, "mpi"), (2, "horovod")])
def test_no_array_of_the_users_is_written_to(home: Path, workers: int, engine: str) -> None:
    """Batches that are slices of aligned arrays, in every way Keras takes them; and the numbers are one process's."""
    alone = untouched.untouched()
    assert not any(alone["changed"].values())
    run = obl_magic.run(untouched.untouched, workers=workers, engine=engine, quiet=True, timeout=600)
    for value in run.values:
        assert {kind: by for kind, by in value["changed"].items() if by} == {}
        for kind, numbers in alone["numbers"].items():
            assert value["numbers"][kind] == pytest.approx(numbers, rel=1e-5), kind
