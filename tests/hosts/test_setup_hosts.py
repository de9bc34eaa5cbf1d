"""What is refused before the first run on hosts, and what is said of them: one sentence each, and nothing started."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
import simulated
from simulated import Hosts

from obl_magic.launchers import ssh
from obl_magic.setup.hosts import Host, network

pytestmark = pytest.mark.slow

TRY = """
    import json, sys, time
    import obl_magic
    from obl_magic.errors import OblError

    def where():
        import socket
        from mpi4py import MPI
        return MPI.COMM_WORLD.allreduce(MPI.COMM_WORLD.Get_rank()), socket.gethostname()

    began = time.monotonic()
    try:
        run = obl_magic.run(where, hosts=sys.argv[1], quiet=True, timeout=30)
        said = [list(value) for value in run.values] + list(run.notes)
    except OblError as error:
        said = str(error)
    left = [path.name for path in __import__("pathlib").Path(".oblivious/runs").glob("*")]
    print("RESULT", json.dumps([said, time.monotonic() - began, left]))
"""


def _said(hosts: Hosts, host: str, named: str, **env: str) -> object:
    """What comes of a run on some hosts; a refusal within five seconds leaves no run and no process."""
    printed = hosts.python(host, TRY, named, env=env)
    (line,) = [line for line in printed.splitlines() if line.startswith("RESULT ")] or [printed]
    said, seconds, runs = json.loads(line.removeprefix("RESULT "))
    if isinstance(said, str):
        assert seconds < 6
        assert not runs
        hosts.wait_until_empty()
    return said


@pytest.fixture(autouse=True)
def _no_runs_before(request: pytest.FixtureRequest) -> None:
    if "hosts" in request.fixturenames:
        up = request.getfixturevalue("hosts")
        up.shell("a", f"rm -rf {up.shared}/.oblivious")


def test_a_host_of_no_address_is_named(hosts: Hosts) -> None:
    """With what ssh says."""
    said = str(_said(hosts, "a", "a:1,zz:1"))
    assert said.startswith('zz cannot be reached: ssh says "Could not resolve hostname zz')
    assert "; do: getent hosts zz" in said


def test_a_host_whose_key_nobody_has_accepted_is_named(hosts: Hosts) -> None:
    """Ssh asks nobody."""
    hosts.shell("a", "cp ~/.ssh/known_hosts /tmp/known && sed -i /^b,/d ~/.ssh/known_hosts")
    try:
        said = str(_said(hosts, "a", "a:1,b:1"))
    finally:
        hosts.shell("a", "cat /tmp/known > ~/.ssh/known_hosts; rm /tmp/known")
    assert (
        said
        == 'b cannot be reached: ssh says "Host key verification failed"; do: ssh b once, and accept its key'
    )


def test_a_host_that_refuses_the_users_key_is_named(hosts: Hosts) -> None:
    """As another user, say."""
    said = str(_said(hosts, "a", "a:1,nobody@b:1"))
    assert said.startswith('nobody@b cannot be reached: ssh says "Permission denied (publickey')
    assert said.endswith("; do: ssh-copy-id nobody@b")


def test_a_host_that_is_off_is_named(hosts: Hosts) -> None:
    """Ssh waits for a few seconds only."""
    said = str(_said(hosts, "a", "a:1,10.77.0.99:1"))
    assert said.startswith("10.77.0.99 cannot be reached: ssh says")
    assert said.endswith("(is it on?)")


def test_a_host_without_sshd_is_named(hosts: Hosts) -> None:
    """Nobody listens."""
    hosts.shell("b", "kill $(cat /run/sshd.pid)")
    try:
        said = str(_said(hosts, "a", "a:1,b:1"))
    finally:
        hosts.shell("b", "/usr/sbin/sshd -f /run/sshd_config -E /run/sshd.log")
    assert said == 'b cannot be reached: ssh says "Connection refused"; do: start sshd on b'


def test_rank_0_must_see_the_folder_of_runs(hosts: Hosts) -> None:
    """The way out is in the sentence."""
    said = str(_said(hosts, "nb", "a:1,b:1", OBLIVIOUS_HOME="/tmp/of-nb"))
    hosts.shell("nb", "rm -rf /tmp/of-nb")
    assert said == (
        "the folder of runs, /tmp/of-nb, is not on a, where rank 0 is to be; do: name a host that sees it first, or "
        "set OBLIVIOUS_HOME to a folder on a shared disk"
    )


def test_hosts_of_one_address_each_have_on_a_bridge_still_find_each_other(hosts: Hosts) -> None:
    """As any two machines with Docker; MPI would wait for ever."""
    for host in ("a", "b"):
        made = "ip link add docker0 type bridge && ip addr add 172.17.0.1/16 dev docker0"
        hosts.shell(host, f"{made} && ip link set docker0 up")
    try:
        said = _said(hosts, "a", "a:1,b:1")
    finally:
        for host in ("a", "b"):
            hosts.shell(host, "ip link del docker0")
    assert isinstance(said, list)
    assert said[:2] == [[1, "a"], [1, "b"]]


def test_a_working_folder_that_a_host_lacks_is_a_note(hosts: Hosts) -> None:
    """Paths that are relative would miss their files there."""
    hosts.shell("a", "mkdir -p /tmp/only-here/home")
    program = TRY.replace("import json, sys, time", "import json, os, sys, time; os.chdir('/tmp/only-here')")
    printed = hosts.python("a", program, "a:1,b:1", env={"OBLIVIOUS_HOME": "/tmp/only-here/home"})
    hosts.shell("a", "rm -rf /tmp/only-here")
    assert "the working folder /tmp/only-here is not on b; relative paths will not be found there" in printed


def test_the_doctor_has_a_row_for_each_host(hosts: Hosts) -> None:
    """Also for one that cannot be had."""
    look = "from obl_magic.notebook.commands import doctor_table"
    said = hosts.python("a", f"{look}\nprint(doctor_table('a,b,zz'))")
    rows = {line.split()[0]: line for line in said.splitlines() if line[:1].strip()}
    assert rows["a"].split()[1] == rows["b"].split()[1] == "ok"
    assert "TensorFlow" in rows["b"]
    assert rows["zz"].split()[1] == "wrong"


@pytest.fixture(scope="module")
def unlike() -> Iterator[Hosts]:
    """Host b has another version of Keras."""
    if why := simulated.why_not("sshd", "ip", "nsenter"):
        pytest.skip(why)
    place = (
        Path(str(metadata.distribution("keras").locate_file("")))
        / f"keras-{metadata.version('keras')}.dist-info"
    )
    up = Hosts(("a", "b"), hide=[f"b={place}"])
    up.shell("b", f"printf 'Metadata-Version: 2.1\\nName: keras\\nVersion: 3.0.5\\n' > {place}/METADATA")
    yield up
    up.down()


def test_another_version_on_a_host_is_refused(unlike: Hosts) -> None:
    """It may compute other numbers."""
    said = str(_said(unlike, "a", "a:1,b:1"))
    here = metadata.version("keras")
    assert said.startswith(f"Keras is {here} here and 3.0.5 on b; do: ssh b ")
    assert said.endswith(f"-m pip install keras=={here}")


def test_what_ssh_did_not_say_is_nobodys_fault() -> None:
    """Another failure of the launcher has its own words."""
    assert ssh.problem("prterun noticed that process rank 1 exited on signal 9") is None
    assert str(ssh.problem("could not access an executable:\n\n   Executable: /v/python\n   Node: b")) == (
        "b has no /v/python; do: make the same environment there, or use a shared folder"
    )
    said = "bash: line 1: /v/bin/prted: No such file or directory\n  Remote host:   b\n"
    assert str(ssh.problem(said)).startswith("b has no /v/bin/prted; do: make the same")
    assert "apt-get install openssh-client" in str(ssh.problem("No available launching agents were found."))


def test_only_networks_that_two_hosts_share_an_address_in_are_left_out() -> None:
    """What a user has chosen stays."""

    def host(name: str, *networks: tuple[str, str]) -> Host:
        return Host(name, {}, 1, (), 0, True, True, networks)

    docker, wide = ("172.17.0.1", "255.255.0.0"), "255.255.255.0"
    apart = [host("a", ("10.0.0.1", wide)), host("b", ("10.0.0.2", wide))]
    assert network(apart) == {}
    alike = [host("a", ("10.0.0.1", wide), docker), host("b", ("10.0.0.2", wide), docker)]
    assert network(alike) == {"OMPI_MCA_btl_tcp_if_exclude": "127.0.0.0/8,172.17.0.0/16"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMPI_MCA_btl_tcp_if_include", "eth0")
        assert network(alike) == {}


def test_hosts_that_answered_are_not_asked_again(hosts: Hosts) -> None:
    """The second run of a session begins at once."""
    program = TRY + "    again = time.monotonic()\n    obl_magic.run(where, hosts=sys.argv[1], quiet=True)\n"
    program = "    import obl_magic.setup.hosts as asked\n    asks = []\n    was = asked.ask\n" + (
        "    asked.ask = lambda hosts: asks.append(hosts) or was(hosts)\n"
        + program
        + "    print('ASKED', len(asks))\n"
    )
    began = time.monotonic()
    assert "ASKED 1" in hosts.python("a", program, "a:1,b:1")
    assert time.monotonic() - began < 60


def test_a_host_that_was_mended_is_asked_again(unlike: Hosts) -> None:
    """In the same session: the sentence said what to do, and the user has done it."""
    place = (
        Path(str(metadata.distribution("keras").locate_file("")))
        / f"keras-{metadata.version('keras')}.dist-info"
    )
    program = (
        TRY
        + f"""
    import subprocess
    mend = "printf 'Metadata-Version: 2.1\\nName: keras\\nVersion: {metadata.version("keras")}\\n' > {place}/METADATA"
    subprocess.run(["ssh", "b", mend], check=True)
    print("AGAIN", [value[1] for value in obl_magic.run(where, hosts=sys.argv[1], quiet=True).values])
"""
    )
    printed = unlike.python("a", program, "a:1,b:1")
    assert "here and 3.0.5 on b" in printed
    assert "AGAIN ['a', 'b']" in printed, printed
