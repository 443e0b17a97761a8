//! `wait` for several VMs.

use crate::exec::guest::Guest;
use crate::shared::command::Running;
use testkit::fake_vmm::{Behaviour, FakeVmm, agent};

#[tokio::test(flavor = "multi_thread")]
async fn wait_ends_when_all_vms_are_in_the_state() {
    let guest = Guest::start().await;
    let both = ["wait", "--for", "ready", "web-1", "web-2"];
    let missed = guest.run(&[&["--timeout", "300ms"], &both[..]].concat());
    missed.assert(1, "", "not ready within 300ms: no VM named web-2");
    let waiting = Running::start(&mut guest.ctl(&both));
    let vm = FakeVmm::start(guest.daemon.sockets(), "web-2", Behaviour::Agent(agent().unwrap()));
    let vm = vm.unwrap();
    waiting.end().assert(0, "web-1 is ready\nweb-2 is ready\n", "");
    guest.run(&["wait", "--all"]).assert(0, "web-2 is ready", "");
    guest.run(&["-o", "json", "wait", "--for", "ready", "web-1"]).assert(0, "\"message\"", "");
    vm.switch_to(Behaviour::Refuses);
    guest.run(&["wait", "--for", "unreachable", "web-2"]).assert(0, "web-2 is unreachable", "");
    drop(vm);
    guest.run(&["wait", "--for", "gone", "web-2"]).assert(0, "web-2 is gone", "");
    guest.run(&["wait", "--for", "gone", "-l", "app=web"]).assert(0, "", "");
    guest.run(&["wait", "a", "b", "c"]).assert(2, "", "minionsctl wait --for ready a b c");
    guest.run(&["wait", "web-1", ""]).assert(2, "", "invalid id");
    guest.run(&["wait", "-l", "a=b", "--rebooted-since", "x"]).assert(2, "", "cannot be used with");
    guest.run(&["wait"]).assert(2, "", "Usage:");
    guest.run(&["wait", "--for", "ready", "-l", "app=web"]).assert(1, "", "no VM to wait for");
}
