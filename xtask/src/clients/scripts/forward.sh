# A web server, a WebSocket and half-closed connections through one `minionsctl forward`; descriptors and memory of
# minionsd, minionsctl and the agent after many connections.
. "$SCRIPTS/common.sh"

start_servers
equal "listeners of nginx" "127.0.0.1:80" "$(guest "ss -Hltn sport = 80 | awk '{ print \$4 }'")"
minionsctl -o json forward "$VM" 0:80 0:7001 0:7002 0:7003 0:7004 >listeners 3>&- &
client=$!
trap 'kill "$client" 2>/dev/null || true' EXIT
all_listen() { (($(wc -l <listeners) == 5)); }
eventually all_listen
mapfile -t ports < <(sed -E 's/.*"listen":"127\.0\.0\.1:([0-9]+)".*/\1/' listeners)
((${#ports[@]} == 5)) || fail "minionsctl forward printed: $(<listeners)"

# --- figures ---
agent=$(guest 'systemctl show -P MainPID minions-agent')
descriptors_of() { find "/proc/$1/fd" -mindepth 1 | wc -l; }
# Prints the descriptors of daemon, client and agent. The exec that reads those of the agent adds a constant.
descriptors() {
    echo "$(descriptors_of "$DAEMON") $(descriptors_of "$client") $(guest "ls /proc/$agent/fd | wc -l")"
}
# Prints the memory of the three in KiB (PSS), ten seconds after the load: freed memory may return with a delay.
memory() {
    local file
    sleep 10
    for file in "/proc/$DAEMON/smaps_rollup" "/proc/$client/smaps_rollup"; do
        awk '/^Pss:/ { printf "%s ", $2 }' "$file"
    done
    guest "awk '/^Pss:/ { print \$2 }' /proc/$agent/smaps_rollup"
}
# Waits until the descriptors are as before: a connection that has ended is closed a moment later.
settled() {
    local now i
    for ((i = 0; i < 60; i++)); do
        now=$(descriptors)
        if [[ $now == "$before" ]]; then return; fi
        sleep 1
    done
    fail "descriptors of daemon, client and agent $1: $now, not $before"
}

# --- clients ---
equal "curl" "$(guest 'cat /var/www/html/index.html' | digest)" \
    "$(curl -sS --fail --max-time 30 "http://127.0.0.1:${ports[0]}/index.html" | digest)"
# Idle connections between minionsd and the agent that the calls so far have left are closed after their limit.
sleep 20
before=$(descriptors)
memory_before=$(memory)
wrk -c 64 -t 2 -d 10s "http://127.0.0.1:${ports[0]}/index.html" >wrk.log
cat wrk.log
! grep -E 'Socket errors|Non-2xx' wrk.log || fail "wrk reports errors"
rate=$(awk '/^Requests\/sec/ { print $2 }' wrk.log)
awk -v rate="$rate" 'BEGIN { exit !(rate > 0) }' || fail "wrk made no request"
client() { python3 "$SCRIPTS/clients.py" "$@"; }
client websocket "${ports[1]}"
client late "${ports[2]}"
client early "${ports[3]}" "${ports[4]}"
settled "after wrk, WebSocket and half-closes"
memory_after=("$memory_before" "$(memory)")

# --- load, three times ---
for round in 1 2 3; do
    client fetch-sequence "${ports[0]}" 2000
    client fetch-parallel "${ports[0]}" 256
    settled "after round $round"
    memory_after+=("$(memory)")
done
figures "wrk $rate requests/s; descriptors of daemon, client, agent: $before before and after; memory in KiB: \
$(printf '[%s] ' "${memory_after[@]}")before, after wrk, after rounds 1 to 3;"
read -r -a first <<<"${memory_after[2]}"
for round in 2 3; do
    read -r -a now <<<"${memory_after[round + 1]}"
    for i in 0 1 2; do
        ((now[i] <= first[i] + 1024)) ||
            fail "memory in KiB grew in round $round: $(printf '[%s] ' "${memory_after[@]}")"
    done
done
