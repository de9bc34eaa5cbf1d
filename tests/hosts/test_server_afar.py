"""A fork server on each host: ranks there are forked, end as any, leave nothing. Hosts are simulated, ssh is real."""

from __future__ import annotations

import os
import re
import signal
import time

import pytest
from simulated import Hosts, results

pytestmark = [pytest.mark.slow, pytest.mark.timing]

BEGIN = """
    import json, os, signal, sys, time
    import obl_magic
    from obl_magic.server.server import SERVER

    def forked():
        import psutil
        return any("-m obl_magic.server" in " ".join(above.cmdline()) for above in psutil.Process().parents())

    def say(what):
        print("RESULT", json.dumps(what), flush=True)
"""

RUNS = (
    BEGIN
    + """
    def imports():
        import keras, os, socket, uuid
        return socket.gethostname(), forked(), os.environ.get("LATER"), os.getcwd(), uuid.uuid4().hex

    def waits():
        import keras, os, time
        open("up-" + os.environ["OMPI_COMM_WORLD_RANK"], "w").close()
        while not os.path.exists("go"):
            time.sleep(0.05)
        return "went on"

    def starts():
        import os, subprocess
        subprocess.Popen(["sleep", "4711"], start_new_session=True)
        if os.environ["OMPI_COMM_WORLD_RANK"] == "1":
            os.kill(os.getpid(), 9)

    def run(function, **options):
        return obl_magic.run(function, hosts="nb:1,b:2", engine="mpi", quiet=True, timeout=50, **options)

    say(run(forked).values)
    first = run(imports, background=True)  # the call waits for no server
    say("coming up" in SERVER.status())
    first.wait()
    say(first.values)
    waiting = run(waits, background=True)
    while not os.path.exists("up-2"):
        time.sleep(0.05)
    os.environ["LATER"] = "yes"  # what it imports may read it, so there is to be another server
    say(run(imports).values)
    open("go", "w").close()
    waiting.wait()
    say(waiting.values)
    say(SERVER.status())
    say(run(forked).values)
    try:
        run(starts)
    except Exception as error:
        say(str(error))
    began = time.monotonic()
    say(run(imports).values)
    say(time.monotonic() - began)
    SERVER.allowed = False
    began = time.monotonic()
    say([was_forked for _, was_forked, *_ in run(imports).values])
    say(time.monotonic() - began)
    """
)


def test_ranks_on_other_hosts_are_forked_and_cannot_tell(hosts: Hosts) -> None:
    """From the first run on that imports a framework; others start no server, and use one that is there."""
    said = results(hosts.python("nb", RUNS, within_s=150, env={"OBLIVIOUS_HOME": str(hosts.shared / "home")}))
    before, at_once, first, later, waited, status, plain, died, again, again_s, off, off_s = said
    assert before == [False] * 3
    assert at_once
    for values, variable in ((first, None), (later, "yes"), (again, "yes")):
        assert [value[:4] for value in values] == [
            [host, True, variable, str(hosts.shared)] for host in ("nb", "b", "b")
        ]
    assert len({value[-1] for value in [*first, *later, *again]}) == 9  # no two of them draw alike
    assert waited == ["went on"] * 3
    assert "the fork server on b is ready" in status
    assert "keras" in status
    assert plain == [True] * 3
    assert "rank 1 on b died: signal 9" in died
    assert again_s < 0.7 * off_s  # nobody imports Keras
    assert off == [False] * 3
    assert not hosts.pids("b", "sleep 4711")
    hosts.wait_until_empty()


WAITS = (
    BEGIN
    + """
    def wait():
        import keras, os, time
        open("up-" + os.environ["OMPI_COMM_WORLD_RANK"], "w").close()
        time.sleep(60)

    def one():
        import keras
        return 1

    def run(function):
        try:
            return obl_magic.run(function, hosts="nb:1,b:1", engine="mpi", quiet=True, timeout=50).values
        except BaseException as error:
            return f"{type(error).__name__}: {error}"

    say(run(wait))
    if "again" in sys.argv:
        while not os.path.exists("go"):
            time.sleep(0.05)
        say(run(one))
    """
)


@pytest.fixture(autouse=True)
def _nobody_is_up(hosts: Hosts) -> None:
    hosts.nobody_is_up()
    (hosts.shared / "go").unlink(missing_ok=True)


def test_a_kernel_that_is_killed_takes_the_servers_on_all_hosts_along(hosts: Hosts) -> None:
    """Within five seconds, while a world of theirs runs."""
    run = hosts.start("nb", WAITS)
    hosts.wait_until_up(60)
    assert hosts.pids("b", "-m obl_magic.server")
    os.killpg(run.pid, signal.SIGKILL)
    run.communicate()
    hosts.wait_until_empty(5)


def test_an_interrupt_ends_the_forked_ranks_on_all_hosts(hosts: Hosts) -> None:
    """The servers hear nothing of it."""
    run = hosts.start("nb", WAITS, "again")
    hosts.wait_until_up(60)
    servers = hosts.pids("b", "-m obl_magic.server")
    os.killpg(run.pid, signal.SIGINT)
    until = time.monotonic() + 10
    while hosts.pids("b", "obl_magic.worker"):
        assert time.monotonic() < until, "ranks are left on b"
        time.sleep(0.1)
    assert hosts.pids("b", "-m obl_magic.server") == servers
    (hosts.shared / "go").touch()
    interrupted, values = results(run.communicate(timeout=60)[0])
    assert interrupted.startswith("KeyboardInterrupt"), interrupted
    assert values == [1, 1]
    hosts.wait_until_empty(5)


def test_a_server_that_is_killed_costs_its_ranks_and_the_next_run_has_another(hosts: Hosts) -> None:
    """The message names the host."""
    run = hosts.start("nb", WAITS, "again")
    hosts.wait_until_up(60)
    (server,) = hosts.pids("b", "-m obl_magic.server")
    hosts.shell("b", f"kill -9 {server}")
    (hosts.shared / "go").touch()
    died, values = results(run.communicate(timeout=60)[0])
    assert re.search(r"rank 1 on b died: signal 9", died), died
    assert values == [1, 1]
    hosts.wait_until_empty(5)


def test_what_a_daemon_that_was_killed_has_left_is_removed_at_once(hosts: Hosts) -> None:
    """Its ranks end with it, and the message names the host; it needs no later run to tidy up."""
    run = hosts.start("nb", WAITS, "again")
    hosts.wait_until_up(60)
    for pid in hosts.pids("b", "prted"):
        hosts.shell("b", f"kill -9 {pid} 2> /dev/null || true")
    until = time.monotonic() + 15
    while len(left := hosts.left_on("b")) > 1:  # the server
        assert time.monotonic() < until, left
        time.sleep(0.1)
    (hosts.shared / "go").touch()
    lost, values = results(run.communicate(timeout=60)[0])
    assert re.search(r"host b was lost \(its daemon has ended\); its rank was 1", lost), lost
    assert values == [1, 1]
    hosts.wait_until_empty(5)


def test_a_host_that_was_cut_off_is_empty_soon_after_its_cable_is_back(hosts: Hosts) -> None:
    """Its server went unheard of meanwhile, and nobody tells it that its world is over."""
    run = hosts.start("nb", WAITS)
    hosts.wait_until_up(60)
    hosts.call("link", "b", "down")
    try:
        (said,) = results(run.communicate(timeout=30)[0])
        assert re.search(r"host b was lost \(no answer for 5 s\); its rank was 1", said), said
        assert hosts.pids("b", "-m obl_magic.server")
    finally:
        hosts.call("link", "b", "up")
    hosts.wait_until_empty(10)


REFUSES = """\
#!/bin/bash
case "$*" in *boot.py*) echo "Permission denied (for the test)" >&2; exit 255;; esac
exec ssh "$@"
"""


def test_where_no_server_comes_up_ranks_are_started_afresh_and_the_run_says_so(hosts: Hosts) -> None:
    """As where the host lets the launcher's daemon in only."""
    agent = hosts.shared / "refuses"
    agent.write_text(REFUSES)
    agent.chmod(0o755)
    program = (
        RUNS.partition("    say(run(forked)")[0]
        + """
    found = obl_magic.run(imports, hosts="nb:1,b:1", engine="mpi", timeout=50)
    say([was_forked for _, was_forked, *_ in found.values])
    """
    )
    said = hosts.python("nb", program, within_s=60, env={"PRTE_MCA_plm_ssh_agent": str(agent)})
    assert results(said) == [[True, False]]
    why = 'the fork server on b has ended: "Permission denied (for the test)"'
    assert f"{why}, so its ranks were started afresh: it takes longer, and computes the same" in said
    hosts.wait_until_empty()
