"""Seconds in which this process ran."""

from obl_magic.launch.awake import MOST_S, Awake


def test_ordinary_time_passes_as_it_does() -> None:
    """Looked at ten times a second."""
    at = 5.0
    clock = Awake(lambda: at)
    for _ in range(30):
        at += 0.1
        clock.now()
    assert abs(clock.now() - 3.0) < 1e-6


def test_an_hour_in_which_nobody_could_look_counts_little() -> None:
    """The machine slept, or the process was stopped."""
    at = 0.0
    clock = Awake(lambda: at)
    at += 3600
    assert clock.now() == MOST_S
    at += 0.5
    assert clock.now() == MOST_S + 0.5
