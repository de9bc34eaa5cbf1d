#!/usr/bin/env bash
# Simulated hosts on one Linux machine, for tests of runs over several hosts. Root only.
#
# A host is a process with namespaces of its own: network, host name, mounts, IPC and process ids. So it has its own
# address, /tmp, home folder, /dev/shm, /run, and sees no process of another host. A switch (a bridge in one more network
# namespace) connects them; the machine's own network is not touched. In each host runs an sshd that lets root in by key.
#
#   make_hosts.sh up NAME...            starts hosts with these names (10.77.0.1, .2, ... in this order)
#   make_hosts.sh in NAME COMMAND...    runs a command in a host, in the present working folder if it is there
#   make_hosts.sh link NAME up|down     plugs a host's cable in or out
#   make_hosts.sh pid NAME              prints the process id (as this machine sees it) of a host's first process
#   make_hosts.sh down                  ends all hosts and removes what they had; also fine if there are none
#
# Environment of "up":
#   HOSTS_STATE   folder for keys, logs, process ids (default /tmp/obl-hosts; kept out of every host's view)
#   HOSTS_SHARE   paths in /tmp or the home folder that all hosts see, separated by colons: "the shared file system"
#   HOSTS_READ    the same, read-only: the Python and the virtual environment under test
#   HOSTS_HIDE    NAME=PATH pairs, separated by colons: what a host does not see (an empty folder lies there)
set -euo pipefail

state=${HOSTS_STATE:-/tmp/obl-hosts}
net=10.77.0

fail() { echo "make_hosts.sh: $*" >&2; exit 2; }

holder() { [[ -s $state/$1.pid ]] && cat "$state/$1.pid" || fail "no host $1"; }

up() {
    (($# > 0)) || fail "up NAME..."
    [[ $EUID == 0 ]] || fail "root only"
    for tool in ip nsenter unshare ssh-keygen; do command -v $tool >/dev/null || fail "$tool is missing: apt-get install iproute2 util-linux openssh-client"; done
    [[ -x /usr/sbin/sshd ]] || fail "sshd is missing: apt-get install openssh-server"
    down
    mkdir -p -m 700 "$state"
    ssh-keygen -q -t ed25519 -N '' -C test-hosts -f "$state/login"
    local name at=0
    { echo "127.0.0.1 localhost"; for name in "$@"; do echo "$net.$((at += 1)) $name"; done; } > "$state/hosts"
    : > "$state/known_hosts"
    at=0
    for name in "$@"; do
        ssh-keygen -q -t ed25519 -N '' -C "$name" -f "$state/$name.hostkey"
        echo "$name,$net.$((at += 1)) $(cut -d' ' -f1,2 "$state/$name.hostkey.pub")" >> "$state/known_hosts"
    done
    unshare --net sleep infinity > /dev/null 2>&1 < /dev/null & echo $! > "$state/switch.pid"
    disown
    until nsenter -t "$(holder switch)" --net true 2>/dev/null && [[ $(readlink /proc/"$(holder switch)"/ns/net) != $(readlink /proc/self/ns/net) ]]; do sleep 0.01; done
    nsenter -t "$(holder switch)" --net ip link add br0 type bridge
    nsenter -t "$(holder switch)" --net ip link set br0 up
    at=0
    for name in "$@"; do
        start "$name" "$((at += 1))"
    done
    for name in "$@"; do
        for _ in $(seq 200); do [[ -e $state/$name.up ]] && break; sleep 0.02; done
        [[ -e $state/$name.up ]] || { cat "$state/$name.log" >&2; fail "host $name did not come up"; }
    done
}

start() {  # name, number
    local name=$1 number=$2 first
    unshare --net --uts --ipc --mount --propagation private --pid --fork --kill-child \
        bash "$0" init "$name" "$number" > "$state/$name.log" 2>&1 < /dev/null &
    local outer=$!
    disown
    # the first process of the new process namespace is the child of what we started
    until first=$(pgrep -P "$outer"); do sleep 0.01; done
    echo "$first" > "$state/$name.pid"
    # in the switch's own network from the start: others may bring up hosts at the same time
    nsenter -t "$(holder switch)" --net ip link add "obl$number" type veth peer name eth0 netns "$first"
    nsenter -t "$(holder switch)" --net ip link set "obl$number" master br0 up
    echo "obl$number" > "$state/$name.link"
    nsenter -t "$first" --net bash -ec "ip link set lo up; ip addr add $net.$number/24 dev eth0; ip link set eth0 up"
    : > "$state/$name.wired"
}

init() {  # name, number: the first process of a host, inside its namespaces
    local name=$1 number=$2 pair
    hostname "$name"
    mount -t proc proc /proc
    local keep=/run/obl-keep home=${HOME:-/root} paths=() path i   # keep: what must outlive the hiding of /tmp and home
    mount -t tmpfs -o mode=755 tmpfs /run
    mkdir -p $keep/state /run/sshd /run/lock
    mount --bind "$state" $keep/state
    IFS=:
    for path in ${HOSTS_SHARE:-}; do paths+=("rw $path"); done
    for path in ${HOSTS_READ:-}; do paths+=("ro $path"); done
    unset IFS
    for i in "${!paths[@]}"; do mkdir -p $keep/$i; mount --rbind "${paths[$i]#* }" $keep/$i; done
    mount -t tmpfs -o mode=1777 tmpfs /tmp
    mount -t tmpfs -o mode=700 tmpfs "$home"
    mount -t tmpfs -o mode=1777 tmpfs /dev/shm
    for i in "${!paths[@]}"; do
        path=${paths[$i]#* }
        mkdir -p "$path"
        mount --rbind $keep/$i "$path"
        [[ ${paths[$i]%% *} == rw ]] || mount -o remount,bind,ro "$path"
        umount -R $keep/$i
    done
    IFS=:
    for pair in ${HOSTS_HIDE:-}; do
        [[ ${pair%%=*} == "$name" ]] && mkdir -p "${pair#*=}" && mount -t tmpfs -o mode=755 tmpfs "${pair#*=}"
    done
    unset IFS
    state=$keep/state
    mkdir -p -m 700 /run/ssh
    cp "$state/login" "$state/known_hosts" /run/ssh/
    cp "$state/login.pub" /run/ssh/authorized_keys
    printf 'IdentityFile ~/.ssh/login\nBatchMode yes\nStrictHostKeyChecking yes\nConnectTimeout 5\n' > /run/ssh/config
    mkdir -p -m 700 "$home/.ssh" && mount --bind /run/ssh "$home/.ssh"
    mount --bind "$state/hosts" /etc/hosts
    for _ in $(seq 500); do [[ -e $state/$name.wired ]] && break; sleep 0.02; done
    cp "$state/$name.hostkey" /run/hostkey && chmod 600 /run/hostkey
    cat > /run/sshd_config <<END
Port 22
ListenAddress $net.$number
HostKey /run/hostkey
AuthorizedKeysFile .ssh/authorized_keys
PermitRootLogin prohibit-password
PasswordAuthentication no
UsePAM no
StrictModes no
PidFile /run/sshd.pid
MaxStartups 50
END
    /usr/sbin/sshd -f /run/sshd_config -E "/run/sshd.log"
    : > "$state/$name.up"
    umount -l "$state"
    trap : CHLD
    while :; do sleep 3600 & wait $! || true; done   # reaps what is left behind
}

enter() {  # name, command...
    local name=$1; shift
    local here=$PWD
    exec nsenter -t "$(holder "$name")" --net --uts --ipc --mount --pid -- bash -c 'cd "$0" 2>/dev/null || cd /; exec "$@"' "$here" "$@"
}

link() { nsenter -t "$(holder switch)" --net ip link set "$(cat "$state/$1.link")" "$2"; }

down() {
    local file pid
    for file in "$state"/*.pid; do
        [[ -s $file ]] || continue
        pid=$(cat "$file")
        case $(tr '\0' ' ' < "/proc/$pid/cmdline" 2>/dev/null) in   # ours, not one that has the number since
            *" init $(basename "$file" .pid) "*|"sleep infinity ") kill -KILL "$pid" 2>/dev/null || true ;;
        esac
        for _ in $(seq 100); do kill -0 "$pid" 2>/dev/null || break; sleep 0.02; done
    done
    rm -rf -- "$state"
}

case ${1:-} in
    up) shift; up "$@" ;;
    init) shift; init "$@" ;;
    in) shift; enter "$@" ;;
    link) shift; link "$@" ;;
    pid) holder "$2" ;;
    down) down ;;
    *) sed -n '2,/^set /p' "$0" | sed '$d;s/^# \{0,1\}//' ; exit 2 ;;
esac
