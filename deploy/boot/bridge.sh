#!/usr/bin/env bash
# A bridge for VMs, and a tap interface on it for each; see network.md.
set -euo pipefail

usage() {
    cat <<'END'
usage: bridge.sh up NAME...     the bridge if it isn't there, and for each VM a tap: tap-NAME
       bridge.sh down NAME...   removes these taps
       bridge.sh down           removes the bridge, once no tap is on it

  $BRIDGE   the bridge's name, default minions0
  $ADDRESS  its address, the VMs' gateway, default 10.77.0.1/24
  $OWNER    the user who may open the taps, default: root only

Needs root. A name has at most 11 characters: an interface's has 15, and a tap's begins with `tap-`.
END
}

BRIDGE=${BRIDGE:-minions0}
ADDRESS=${ADDRESS:-10.77.0.1/24}
OWNER=${OWNER:-}

die() { printf 'bridge.sh: %s\n' "$*" >&2; exit 1; }
misuse() { usage >&2; exit 64; }
# By netlink: /sys may be another network namespace's.
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
    [[ -z $(ip link show master "$BRIDGE") ]] || die "there are taps on $BRIDGE yet"
    ip link del "$BRIDGE"
}

case ${1-} in
    -h | --help) usage; exit 0 ;;
    up | down) ;;
    *) misuse ;;
esac
for name in "${@:2}"; do
    [[ $name =~ ^[A-Za-z0-9][A-Za-z0-9._-]{0,10}$ ]] || die "not a name for a tap: $name"
done
((EUID == 0)) || die "making interfaces needs root"
"$@"
