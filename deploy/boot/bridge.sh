#!/usr/bin/env bash
# Creates a bridge for VMs, and a tap interface on it for each; see network.md.
set -euo pipefail

usage() {
    cat <<'END'
usage: bridge.sh up NAME...     creates the bridge if it is missing, and a tap for each VM: tap-NAME
       bridge.sh down NAME...   removes these taps
       bridge.sh down           removes the bridge; fails while it has taps

  $BRIDGE   name of the bridge, default minions0
  $ADDRESS  address of the bridge, the VMs' gateway, default 10.77.0.1/24
  $OWNER    user who may open the taps, default: root only

Needs root. A NAME has at most 11 characters: with `tap-` it must fit the 15 of an interface's name.
END
}

BRIDGE=${BRIDGE:-minions0}
ADDRESS=${ADDRESS:-10.77.0.1/24}
OWNER=${OWNER:-}

die() { printf 'bridge.sh: %s\n' "$*" >&2; exit 1; }
misuse() { usage >&2; exit 64; }
# Through netlink, because /sys may show another network namespace.
exists() { ip link show dev "$1" >/dev/null 2>&1; }

up() {
    if ! exists "$BRIDGE"; then
        ip link add name "$BRIDGE" type bridge
        ip addr add "$ADDRESS" dev "$BRIDGE"
    fi
    ip link set "$BRIDGE" up
    local name
    for name; do
        exists "tap-$name" || ip tuntap add dev "tap-$name" mode tap ${OWNER:+user "$OWNER"}
        ip link set "tap-$name" master "$BRIDGE" up
    done
}

down() {
    local name
    for name; do
        ! exists "tap-$name" || ip tuntap del dev "tap-$name" mode tap
    done
    (($# == 0)) || return 0
    exists "$BRIDGE" || return 0
    [[ -z $(ip link show master "$BRIDGE") ]] ||
        die "cannot remove $BRIDGE: it still has taps (bridge.sh down NAME...)"
    ip link del "$BRIDGE"
}

case ${1-} in
    -h | --help) usage; exit 0 ;;
    up | down) ;;
    *) misuse ;;
esac
for name in "${@:2}"; do
    [[ $name =~ ^[A-Za-z0-9][A-Za-z0-9._-]{0,10}$ ]] ||
        die "invalid name of a VM for a tap: $name (at most 11 of A-Za-z0-9._-)"
done
((EUID == 0)) || die "creating and removing interfaces requires root"
"$@"
