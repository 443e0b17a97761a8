//! Three VMs on a bridge, started with the recipes.

use super::recipe::Network;
use crate::shared::command::{Ran, ctl};
use testkit::minionsd::Minionsd;

const VMS: [(&str, &str); 3] = [("a", "10.77.0.11"), ("b", "10.77.0.12"), ("c", "10.77.0.13")];

const START: &str = "set -e
    ip link set lo up
    \"$0/bridge.sh\" up a b c
    for vm in a b c; do
        \"$0/qemu.sh\" $vm --kernel \"$1\" --initrd \"$2\" --append 'quiet panic=0' --accel tcg \
            --net tap=tap-$vm --socket-dir \"$3\" --console \"$3/$vm.log\" &
    done
    wait";

#[test]
fn three_vms_on_a_bridge_ping_each_other_after_one_call_each() {
    let mut network = Network::start(START);
    VMS.iter().for_each(|(vm, _)| network.wait_for(vm));
    for (vm, address) in VMS {
        network.configure(vm, &format!("{address}/24"), "10.77.0.1");
    }
    for (vm, _) in VMS {
        for to in VMS.map(|(_, address)| address).into_iter().chain(["10.77.0.1"]) {
            let pinged = network.run(vm, &["ping", "-c", "1", "-W", "10", to]);
            assert_eq!(pinged["exit_code"], 0, "{vm} to {to}: {pinged}");
        }
    }
    declared(&network);
}

const DECLARED: &str = "
pools: [{name: lan, subnet: 10.77.0.0/24, range: 10.77.0.50-10.77.0.59, gateway: 10.77.0.1}]
declarations: [{name: '*', hostname: 'vm-{vm}', network: {pool: lan}}]
";

/// Gives the VMs other addresses, from a pool, and checks that the VMs keep these over a restart of the daemon.
fn declared(network: &Network) {
    let file = network.sockets().join("vms.yaml");
    std::fs::write(&file, DECLARED).unwrap();
    let state = network.sockets().join("state.db");
    let start = || Minionsd::builder().vms(network.sockets()).arg("--state").arg(&state).start();
    let run = |daemon: &Minionsd, args: &[&str]| {
        let ran = Ran::of(&mut ctl(&daemon.host(), args));
        assert_eq!(ran.code, 0, "{args:?}: {}", ran.stderr);
        String::from_utf8(ran.stdout).unwrap()
    };
    let mut daemon = start();
    run(&daemon, &["apply", "-f", file.to_str().unwrap()]);
    for (vm, _) in VMS {
        run(&daemon, &["wait", vm, "--for", "configured"]);
    }
    let leases = run(&daemon, &["pool", "leases", "lan", "--hosts"]);
    assert_eq!(leases.lines().count(), 3, "{leases}");
    daemon.end(rustix::process::Signal::KILL);
    let daemon = start();
    for (vm, _) in VMS {
        run(&daemon, &["wait", vm, "--for", "configured"]);
        for lease in leases.lines() {
            let (to, _) = lease.split_once('\t').unwrap();
            let pinged = network.run(vm, &["ping", "-c", "1", "-W", "10", to]);
            assert_eq!(pinged["exit_code"], 0, "{vm} to {to}: {pinged}");
        }
    }
    // A guest that has booted again is configured by itself.
    run(&daemon, &["reboot", "b", "--wait"]);
    run(&daemon, &["wait", "b", "--for", "configured"]);
    assert_eq!(run(&daemon, &["pool", "leases", "lan", "--hosts"]), leases);
    let (b, _) = leases.lines().find_map(|lease| lease.split_once("\tb")).unwrap();
    let pinged = network.run("a", &["ping", "-c", "1", "-W", "10", b]);
    assert_eq!(pinged["exit_code"], 0, "{pinged}");
    assert_eq!(network.run("b", &["hostname"])["stdout"], "vm-b\n");
}
