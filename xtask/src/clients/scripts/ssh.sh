# OpenSSH's clients, and rsync and git with them.
. "$SCRIPTS/common.sh"

write_ssh_config
remote=$VM.minions
ssh_options=(-F config -o BatchMode=yes)

# Runs a command over SSH, and fails unless it ends with the code $1.
code() {
    local expected=$1 found=0
    shift
    ssh "${ssh_options[@]}" "$remote" "$@" || found=$?
    equal "exit code of '$*'" "$expected" "$found"
}

# --- exit codes ---
code 0 true
code 3 'exit 3'
code 254 'exit 254'
code 127 no-such-program
# 255 has three meanings, which the client's messages tell apart.
code 255 -v 'exit 255' 2>own.log
grep -q 'rtype exit-status' own.log || fail "the program's own code 255 is not an exit status"
code 255 -v 'kill -KILL $$' 2>signal.log
grep -q 'rtype exit-signal' signal.log || fail "the end by a signal is not reported as one"
found=0
ssh "${ssh_options[@]}" no-such-vm.minions true 2>unknown.log || found=$?
equal "exit code for an unknown VM" 255 "$found"
grep -q 'no-such-vm' unknown.log || fail "the message does not name the VM: $(<unknown.log)"

# --- input, output, users ---
equal "standard input" "$(digest <"$SCRIPTS/ssh.sh")" \
    "$(ssh "${ssh_options[@]}" "$remote" sha256sum <"$SCRIPTS/ssh.sh" | cut -d ' ' -f 1)"
equal "standard error" err "$(ssh "${ssh_options[@]}" "$remote" 'echo out; echo err >&2' 2>&1 >/dev/null)"
equal "user" eve "$(ssh "${ssh_options[@]}" "eve@$remote" 'id -un')"

# --- terminal ---
python3 "$SCRIPTS/terminal.py" ssh "${ssh_options[@]}" -t "$remote" "PS1='now> ' exec sh -i"

# --- forwards: -L, -R, -A ---
start_servers
free_port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}
port=$(free_port)
ssh "${ssh_options[@]}" -o ExitOnForwardFailure=yes -L "127.0.0.1:$port:127.0.0.1:80" "$remote" \
    'echo up; exec sleep 1000' >up &
client=$!
servers=()
trap 'kill "$client" "${servers[@]}" 2>/dev/null || true' EXIT
eventually test -s up
guest 'echo local forward >/var/www/html/local'
equal "-L" "local forward" "$(curl -sS --max-time 30 "http://127.0.0.1:$port/local")"
kill "$client"
wait "$client" || true

mkdir site
echo "remote forward" >site/remote
port=$(free_port)
python3 -m http.server --bind 127.0.0.1 --directory site "$port" >/dev/null 2>&1 &
servers+=($!)
eventually curl -sS --max-time 5 "http://127.0.0.1:$port/remote"
fetch='python3 -c "
import urllib.request
print(urllib.request.urlopen(\"http://127.0.0.1:18080/remote\", timeout=30).read().decode().strip())"'
found=$(ssh "${ssh_options[@]}" -o ExitOnForwardFailure=yes -R "18080:127.0.0.1:$port" "$remote" "$fetch")
equal "-R" "remote forward" "$found"
equal "listeners after -R" "" "$(guest 'ss -Hltn sport = 18080')"

eval "$(ssh-agent -s)"
servers+=("$SSH_AGENT_PID")
ssh-keygen -q -t ed25519 -N '' -C forwarded -f key
ssh-add -q key
equal "-A" "$(ssh-add -l)" "$(ssh "${ssh_options[@]}" -A "$remote" 'ssh-add -l')"
equal "without -A" none "$(ssh "${ssh_options[@]}" "$remote" 'echo ${SSH_AUTH_SOCK-none}')"

# --- scp and sftp ---
head -c 32M /dev/urandom >data
sent=$(digest <data)
scp -q "${ssh_options[@]}" data "$remote:/var/tmp/scp"
scp -q "${ssh_options[@]}" "$remote:/var/tmp/scp" scp.back
equal "scp" "$sent $sent" "$(guest 'sha256sum </var/tmp/scp' | cut -d ' ' -f 1) $(digest <scp.back)"
scp -q -O "${ssh_options[@]}" data "$remote:/var/tmp/scp-old"
scp -q -O "${ssh_options[@]}" "$remote:/var/tmp/scp-old" scp-old.back
equal "scp -O" "$sent $sent" "$(guest 'sha256sum </var/tmp/scp-old' | cut -d ' ' -f 1) $(digest <scp-old.back)"
sftp -q "${ssh_options[@]}" -b - "eve@$remote" <<<$'put data sftp\nget sftp sftp.back\nrename sftp moved\nls -l'
equal "sftp" "$sent $sent" "$(guest 'sha256sum </home/eve/moved' | cut -d ' ' -f 1) $(digest <sftp.back)"

# --- rsync ---
mkdir -p rsync/deep
seq 1 500 | split --lines=1 --suffix-length=3 - rsync/deep/part-
ln -s deep/part-aaa rsync/link
chmod 750 rsync/deep
options=(-a -e "ssh -F $PWD/config")
rsync "${options[@]}" rsync/ "$remote:/var/tmp/rsync/"
rsync "${options[@]}" "$remote:/var/tmp/rsync/" rsync.back/
equal "rsync into the guest" "" "$(rsync -n --checksum --delete -i "${options[@]}" rsync/ "$remote:/var/tmp/rsync/")"
equal "rsync out of the guest" "" "$(rsync -n --checksum --delete -i -a rsync/ rsync.back/)"
diff -r rsync rsync.back

# --- git ---
export GIT_SSH_COMMAND="ssh -F $PWD/config" GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_SYSTEM=/dev/null
guest 'git init --quiet --bare --initial-branch=main /srv/repository.git'
git init --quiet --initial-branch=main made
cp -r rsync/deep made/
git -C made add .
git -C made -c user.name=a -c user.email=a@example.com commit --quiet -m first
git -C made push --quiet "$remote:/srv/repository.git" main
git clone --quiet "$remote:/srv/repository.git" cloned
git -C cloned fsck --strict --no-progress
git -C cloned -c user.name=a -c user.email=a@example.com commit --quiet --allow-empty -m second
git -C cloned push --quiet
equal "git" "$(git -C cloned rev-parse main)" "$(guest 'git -C /srv/repository.git rev-parse main')"
diff -r rsync/deep cloned/deep
guest 'rm -r /var/tmp/scp /var/tmp/scp-old /var/tmp/rsync /home/eve/moved /srv/repository.git'

# The proxy ends with its client.
proxies_ended() { ! pgrep -f "minionsctl.*ssh-proxy.*$remote"; }
eventually proxies_ended
figures "exit codes, terminal, -L, -R, -A, scp, sftp, rsync, git: 23 results as expected,"
