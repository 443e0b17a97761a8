# The guest has no SSH server, no address except those of lo, and no interface except lo.
. "$SCRIPTS/common.sh"

equal "init" systemd "$(guest 'cat /proc/1/comm')"
equal "SSH servers" "" "$(guest 'command -v sshd dropbear || true; ls /usr/sbin | grep -i ssh || true')"
equal "interfaces" lo "$(guest 'ls /sys/class/net')"
equal "addresses" "127.0.0.1/8 ::1/128" "$(guest "ip -o addr | awk '{ print \$4 }' | xargs")"
equal "listeners on port 22" "" "$(guest 'ss -Hln sport = 22')"
# Data for the other checks.
guest 'cat >/etc/nginx/sites-enabled/default <<END
server { listen 127.0.0.1:80; root /var/www/html; }
END
echo "<p>served on a loopback address</p>" >/var/www/html/index.html
systemctl enable --quiet nginx; systemctl restart nginx'
guest 'useradd --create-home --shell /bin/bash eve; echo "eve ALL=(ALL) NOPASSWD: ALL" >/etc/sudoers.d/eve; sync'
figures "interfaces: lo; no sshd"
