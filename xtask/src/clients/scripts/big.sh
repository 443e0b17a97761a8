# 1 GiB of random data in each direction. The digests are computed on both sides.
. "$SCRIPTS/common.sh"

head -c 1G /dev/urandom >sent
guest 'mkdir -p /var/tmp/big; head -c 1G /dev/urandom >/var/tmp/big/made'

start=$EPOCHREALTIME
minionsctl cp sent "$VM:/var/tmp/big/received"
took_in=$(since "$start")
start=$EPOCHREALTIME
minionsctl cp "$VM:/var/tmp/big/made" fetched
took_out=$(since "$start")

equal "size in the guest" 1073741824 "$(guest 'stat -c %s /var/tmp/big/received')"
equal "size on the host" 1073741824 "$(stat -c %s fetched)"
equal "SHA-256 into the guest" "$(digest <sent)" "$(guest 'sha256sum /var/tmp/big/received' | cut -d ' ' -f 1)"
equal "SHA-256 out of the guest" "$(guest 'sha256sum /var/tmp/big/made' | cut -d ' ' -f 1)" "$(digest <fetched)"
equal "entries in the guest" "made received" "$(guest 'ls -A /var/tmp/big' | xargs)"
guest 'rm -r /var/tmp/big'
figures "1 GiB in within $took_in s, out within $took_out s, digests equal,"
