//! Three VMs on a bridge, started with the recipes.

use super::recipe::Network;

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
}
