#!/usr/bin/env bash
# Boots one VM with QEMU, with its vsock where minionsd finds it; see qemu.md.
set -euo pipefail

usage() {
    cat <<'END'
usage: qemu.sh NAME --kernel FILE [--initrd FILE] [--disk FILE] [OPTION...]

  NAME                name of the VM; its socket is <socket-dir>/NAME.vsock
  --kernel FILE       kernel image (bzImage)
  --initrd FILE       initial ram disk
  --disk FILE         root disk, as /dev/vda; at least one of --initrd and --disk
  --disk-format F     raw (default) or qcow2
  --append WORDS      words added to the kernel's command line
  --memory MIB        default 256
  --cpus N            default 1
  --net MODE          restricted (default): packets reach only QEMU's own gateway
                      user=NETNS: the guest has the network of the namespace NETNS (`ip netns add`);
                        requires root. `user` alone is rejected: QEMU's gateway 10.0.2.2 would pass the
                        guest's connections on to this host's 127.0.0.1
                      tap=IFACE: the tap interface IFACE, on a bridge (bridge.sh creates both)
                      none: no network card
  --mac ADDRESS       of the network card; default: derived from NAME, so that VMs differ
  --accel MODE        auto (default: KVM where it works, else emulation), kvm or tcg
  --console FILE      write the guest's console to FILE instead of standard output
  --socket-dir DIR    default $MINIONS_SOCKET_DIR, else /run/minions

Runs until the VM ends. SIGINT and SIGTERM switch the VM off and remove its socket.
$QEMU and $VHOST_DEVICE_VSOCK override the binaries in $PATH.
Exit codes: QEMU's own; 1 QEMU could not be started; 64 wrong usage.
END
}

QEMU=${QEMU:-qemu-system-x86_64}
VHOST_DEVICE_VSOCK=${VHOST_DEVICE_VSOCK:-vhost-device-vsock}

# Address of the guest, which only the guest sees: each VM has a separate backend process, so all VMs can
# have the same one. 0 to 2 are reserved.
readonly GUEST_CID=3
# Size of sockaddr_un.sun_path without the final NUL.
readonly MAX_SOCKET_PATH=107

say() { printf 'qemu.sh: %s\n' "$*" >&2; }
die() { say "$@"; exit 1; }
misuse() { say "$@"; usage >&2; exit 64; }
# Reports wrong usage without the long help text, so that the reason stays visible.
refuse() { say "$@"; exit 64; }

# --- command line ---

kernel='' initrd='' disk='' disk_format=raw append='' memory=256 cpus=1
net=restricted mac='' accel=auto console='' socket_dir=${MINIONS_SOCKET_DIR:-/run/minions}

parse_args() {
    case ${1-} in
        -h | --help) usage; exit 0 ;;
        '' | -*) misuse "the first argument must be the VM's name" ;;
    esac
    name=$1
    shift
    while (($#)); do
        if [[ $1 == -h || $1 == --help ]]; then usage; exit 0; fi
        (($# >= 2)) || misuse "$1 requires a value, or is unknown"
        case $1 in
            --kernel) kernel=$2 ;;
            --initrd) initrd=$2 ;;
            --disk) disk=$2 ;;
            --disk-format) disk_format=$2 ;;
            --append) append=$2 ;;
            --memory) memory=$2 ;;
            --cpus) cpus=$2 ;;
            --net) net=$2 ;;
            --mac) mac=$2 ;;
            --accel) accel=$2 ;;
            --console) console=$2 ;;
            --socket-dir) socket_dir=$2 ;;
            *) misuse "unknown option $1" ;;
        esac
        shift 2
    done
}

check_net() {
    case $net in
        user)
            say "--net user is rejected: QEMU passes a guest's connections to its gateway 10.0.2.2 on to"
            say "127.0.0.1 of this host, as the user who runs QEMU; so the guest would reach every service"
            say "there, minionsd included. Use instead:"
            say "  --net restricted    no network beyond QEMU (the default)"
            say "  --net tap=IFACE     a bridge, with access beyond this host if you allow it (network.md)"
            refuse "  --net user=NETNS    a network namespace with a separate loopback (qemu.md)"
            ;;
        user=*) check_netns "${net#user=}" ;;
        tap=*)
            [[ $net =~ ^tap=[A-Za-z0-9._-]{1,15}$ ]] || misuse "not the name of an interface: ${net#tap=}"
            ip link show dev "${net#tap=}" >/dev/null 2>&1 ||
                die "there is no interface ${net#tap=} (create it with bridge.sh)"
            ;;
        restricted | none) ;;
        *) misuse "--net is restricted, user=NETNS, tap=IFACE or none" ;;
    esac
}

# Checks a namespace, whose loopback must not be this host's. /proc/1 is the first process of the host or the
# container.
check_netns() {
    local file=/run/netns/$1 own
    [[ $1 =~ ^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$ ]] || misuse "not the name of a network namespace: $1"
    ((EUID == 0)) || die "--net user=$1 requires root, to enter the network namespace"
    [[ -e $file ]] || die "there is no network namespace $1 (ip netns add $1)"
    for own in /proc/self/ns/net /proc/1/ns/net; do
        [[ ! $file -ef $own ]] || refuse "--net user=$1 is rejected: $1 is this host's own network" \
            "namespace, and the guest would reach its 127.0.0.1 through 10.0.2.2"
    done
}

check_args() {
    [[ $name =~ ^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$ ]] || misuse "not a VM name: $name"
    [[ $memory =~ ^[1-9][0-9]*$ ]] || misuse "--memory requires a number of MiB"
    [[ $cpus =~ ^[1-9][0-9]*$ ]] || misuse "--cpus requires a number"
    [[ $disk_format == raw || $disk_format == qcow2 ]] || misuse "--disk-format must be raw or qcow2"
    check_net
    [[ $mac =~ ^([0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){5})?$ ]] || misuse "--mac requires six bytes: 52:54:00:..."
    [[ $accel =~ ^(auto|kvm|tcg)$ ]] || misuse "--accel must be auto, kvm or tcg"
    [[ -n $kernel ]] || misuse "--kernel is missing"
    [[ -n $initrd || -n $disk ]] || misuse "--initrd, --disk or both are required"
    local file
    for file in "$kernel" ${initrd:+"$initrd"} ${disk:+"$disk"}; do
        [[ -r $file ]] || die "cannot read $file"
    done
    local tool
    for tool in "$QEMU" "$VHOST_DEVICE_VSOCK" ss flock; do
        command -v "$tool" >/dev/null || die "$tool is not installed"
    done
}

# --- the socket ---

prepare_socket_dir() {
    [[ -d $socket_dir ]] || mkdir -m 0755 -- "$socket_dir" || die "cannot create $socket_dir"
    # Canonical path, for ss below.
    socket_dir=$(realpath -- "$socket_dir")
    [[ -z $(find "$socket_dir" -maxdepth 0 -perm /002) ]] ||
        die "$socket_dir is writable by all users, so any user could pose as a VM: run chmod o-w on it"
    socket=$socket_dir/$name.vsock
    ((${#socket} <= MAX_SOCKET_PATH)) ||
        die "$socket is longer than $MAX_SOCKET_PATH bytes, the limit of a socket's path"
}

# At its start, the backend removes any file at its path. That is right for a stale file, but would cut a
# running VM off; so check first, under a lock that only one start can hold.
claim_socket() {
    exec {lock}>"$socket_dir/.$name.lock"
    flock -n "$lock" || die "$name is already running, or is being started"
    [[ -e $socket || -L $socket ]] || return 0
    [[ -S $socket && ! -L $socket ]] || die "$socket exists and is not a socket"
    # Asks the kernel instead of connecting: a connection that is closed at once can harm a VMM.
    if [[ -n $(ss -xlH src "$socket") ]]; then
        die "a process listens on $socket: a VM of that name is running"
    fi
    say "removing $socket, which was left by an earlier VM"
    rm -- "$socket"
}

# --- the processes ---

scratch='' backend='' vm=''

# No child inherits $lock: a child that kept it open would hold the name after this script has ended.
start_backend() {
    # Clients of the socket may run commands as root in the guest: only this user may connect.
    (umask 077 && exec "$VHOST_DEVICE_VSOCK" --guest-cid "$GUEST_CID" \
        --socket "$scratch/vhost.sock" --uds-path "$socket") {lock}>&- &
    backend=$!
    local tries=0
    until [[ -S $scratch/vhost.sock && -S $socket ]]; do
        kill -0 "$backend" 2>/dev/null || die "$VHOST_DEVICE_VSOCK ended immediately"
        ((++tries < 100)) || die "$VHOST_DEVICE_VSOCK created no sockets within 5 s"
        sleep 0.05
    done
}

# /dev/kvm may exist and still be unable to run a VM (with nested virtualisation, for example); QEMU then
# does not fall back but aborts. So try a machine that is stopped before its first instruction.
kvm_works() {
    [[ -w /dev/kvm ]] || return 1
    local probe=(-accel kvm -cpu max -machine q35 -m 16 -S)
    probe+=(-nodefaults -no-user-config -display none -monitor stdio)
    # The subshell suppresses the shell's message about an abort.
    (ulimit -c 0 && timeout 5 "$QEMU" "${probe[@]}" <<<quit) >/dev/null 2>&1
}

# Two cards on one bridge must differ, and a VM's must be the same at its next start. 52:54:00 is QEMU's prefix.
mac_of_name() {
    local sum
    sum=$(printf '%s' "$name" | sha256sum)
    printf '52:54:00:%s:%s:%s' "${sum:0:2}" "${sum:2:2}" "${sum:4:2}"
}

# Doubles commas, which separate QEMU's options.
escaped() { printf '%s' "${1//,/,,}"; }

qemu_args() {
    args=(-nodefaults -no-user-config -display none)
    args+=(-sandbox 'on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny')
    if [[ $accel == auto ]]; then
        accel=tcg
        if kvm_works; then accel=kvm; fi
    fi
    args+=(-accel "$accel" -cpu max -smp "$cpus" -m "$memory")
    args+=(-object "memory-backend-memfd,id=mem,size=${memory}M,share=on")
    args+=(-machine 'q35,memory-backend=mem')
    args+=(-chardev "socket,id=vsock,path=$(escaped "$scratch/vhost.sock")")
    args+=(-device 'vhost-user-vsock-pci,chardev=vsock')
    args+=(-device virtio-rng-pci)
    local card="virtio-net-pci,netdev=net,mac=${mac:-$(mac_of_name)}"
    case $net in
        restricted) args+=(-netdev 'user,id=net,restrict=on' -device "$card") ;;
        user=*)
            # QEMU's gateway then stands for the loopback of that namespace. Unix sockets, including the
            # vsock's, are found by path from any namespace.
            launcher=(ip netns exec "${net#user=}")
            args+=(-netdev 'user,id=net' -device "$card")
            ;;
        tap=*) args+=(-netdev "tap,id=net,ifname=${net#tap=},script=no,downscript=no" -device "$card") ;;
        none) ;;
        *) misuse "--net $net" ;;
    esac
    local cmdline='console=ttyS0'
    # At its start the kernel counts timer interrupts for 40 ms, and panics if an emulated processor that the
    # host does not schedule gets too few of them.
    [[ $accel != tcg ]] || cmdline+=' no_timer_check'
    args+=(-kernel "$kernel")
    [[ -z $initrd ]] || args+=(-initrd "$initrd")
    if [[ -n $disk ]]; then
        args+=(-drive "if=none,id=disk,format=$disk_format,file=$(escaped "$disk")")
        args+=(-device 'virtio-blk-pci,drive=disk')
        cmdline+=' root=/dev/vda rw'
    fi
    args+=(-append "$cmdline${append:+ $append}")
    if [[ -n $console ]]; then
        args+=(-chardev "file,id=console,path=$(escaped "$console")")
    else
        args+=(-chardev 'stdio,id=console,signal=off')
    fi
    args+=(-serial chardev:console)
}

# shellcheck disable=SC2317 # a trap calls it
cleanup() {
    trap '' INT TERM HUP
    local pid
    for pid in $vm $backend; do
        kill "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
    # The backend leaves its file, or a new one: it listens again when QEMU ends. A file without a listener is
    # stale, and the lock keeps other starts away.
    if [[ -n $backend && -S $socket && ! -L $socket && -z $(ss -xlH src "$socket") ]]; then
        rm -f -- "$socket"
    fi
    [[ -z $scratch ]] || rm -rf -- "$scratch"
}

main() {
    parse_args "$@"
    check_args
    prepare_socket_dir
    claim_socket
    trap cleanup EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    trap 'exit 129' HUP
    scratch=$(mktemp -d "${XDG_RUNTIME_DIR:-/tmp}/minions.XXXXXX")
    start_backend
    local args launcher=()
    qemu_args
    # The launcher executes QEMU in its own place, so its process id is QEMU's.
    "${launcher[@]}" "$QEMU" "${args[@]}" </dev/null {lock}>&- &
    vm=$!
    say "$name is starting ($accel); its vsock is $socket"
    local code=0
    wait "$vm" || code=$?
    vm=''
    exit "$code"
}

main "$@"
