# Read by every script: environment and functions. $VM, $DAEMON (pid), $SCRIPTS and MINIONS_HOST come from the tool.
# The trace on standard error is shown if the script fails.
set -euo pipefail
exec 3>&1 4>&2 >&2
BASH_XTRACEFD=4
set -x

# Prints the line of the check: its figures. All other output belongs to the trace.
figures() { printf '%s\n' "$*" >&3; }

fail() {
    { set +x; } 2>/dev/null
    printf 'FAILED: %s\n' "$*" >&2
    exit 1
}

# Runs a shell command in the guest.
guest() { minionsctl exec "$VM" sh -ec "$1"; }

# Fails unless two texts are equal.
equal() { [[ $2 == "$3" ]] || fail "$1: expected <$2>, found <$3>"; }

# Repeats a command until it succeeds, for 30 s.
eventually() {
    local try
    for ((try = 0; try < 300; try++)); do
        if "$@"; then return; fi
        sleep 0.1
    done
    fail "not within 30 s: $*"
}

digest() { sha256sum | cut -d ' ' -f 1; }

# Prints the seconds since $1, a value of $EPOCHREALTIME.
since() { awk -v now="$EPOCHREALTIME" -v start="$1" 'BEGIN { printf "%.1f", now - start }'; }

# Writes the options of ssh to the file `config`.
write_ssh_config() { minionsctl ssh-config >config; }

# Starts servers.py in the guest, unless it runs.
start_servers() {
    guest 'systemctl is-active --quiet servers' && return
    minionsctl cp "$SCRIPTS/servers.py" "$VM:/var/tmp/servers.py"
    # The servers report that they listen, and systemd-run waits for it.
    guest 'systemd-run --quiet --unit=servers -p Type=notify -p NotifyAccess=all python3 /var/tmp/servers.py'
}
