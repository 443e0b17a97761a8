//! Reachability of the host from a guest in each network mode of deploy/boot/qemu.sh.

use super::recipe::Network;

/// Script that starts the VMs and three services of the host. Each service answers with a word: `loopback` on
/// 127.0.0.1:7070, `bridge` on 10.77.0.1:7070, and `lab` on 127.0.0.1:7070 of the network namespace `lab`.
const START: &str = "set -e
    ip link set lo up
    mkdir -p /run/netns
    mount -t tmpfs tmpfs /run/netns
    ip netns add lab
    ip -n lab link set lo up
    \"$0/bridge.sh\" up tap
    serve() {
        mkdir \"$3/$1\"
        echo \"$1\" >\"$3/$1/word\"
        ${4-} python3 -m http.server --directory \"$3/$1\" --bind \"$2\" 7070 >\"$3/$1.out\" 2>&1 &
        until ${4-} bash -c \"exec 3<>/dev/tcp/$2/7070\" 2>/dev/null; do sleep 0.1; done
    }
    serve loopback 127.0.0.1 \"$3\"
    serve bridge 10.77.0.1 \"$3\"
    serve lab 127.0.0.1 \"$3\" 'ip netns exec lab'
    start() {
        \"$0/qemu.sh\" \"$4\" --kernel \"$1\" --initrd \"$2\" --append 'quiet panic=0' --accel tcg \
            --net \"$5\" --socket-dir \"$3\" --console \"$3/$4.log\" &
    }
    start \"$@\" restricted restricted
    start \"$@\" user user=lab
    start \"$@\" tap tap=tap-tap
    start \"$@\" none none
    wait";

/// Returns the word of the service at `address`, or nothing if the guest cannot reach it.
fn word(network: &Network, vm: &str, address: &str) -> String {
    let url = format!("http://{address}:7070/word");
    let got = network.run(vm, &["timeout", "10", "wget", "-q", "-O", "-", &url]);
    got["stdout"].as_str().unwrap().trim().to_owned()
}

#[test]
fn no_network_mode_lets_a_guest_reach_the_hosts_loopback() {
    let mut network = Network::start(START);
    ["restricted", "user", "tap", "none"].iter().for_each(|vm| network.wait_for(vm));
    network.configure("restricted", "10.0.2.15/24", "10.0.2.2");
    network.configure("user", "10.0.2.15/24", "10.0.2.2");
    network.configure("tap", "10.77.0.11/24", "10.77.0.1");

    assert_eq!(word(&network, "restricted", "10.0.2.2"), "");
    assert_eq!(word(&network, "tap", "10.0.2.2"), "");
    assert_eq!(word(&network, "none", "10.0.2.2"), "");
    assert_eq!(word(&network, "user", "10.0.2.2"), "lab");
    // The service on the host's bridge is reachable at its address: the tap works.
    assert_eq!(word(&network, "tap", "10.77.0.1"), "bridge");
    assert_eq!(word(&network, "restricted", "10.77.0.1"), "");
}
