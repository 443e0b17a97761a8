//! Guests that are restored and cloned.

use crate::host::{BOOT, Host, VM};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::Instant;
use testkit::daemon::{Reply, read};
use testkit::minionsd::Minionsd;
use testkit::rig::{Snapshot, Vm};
use testkit::wait::until_async_within;

/// Steps in the order in which the agent runs them.
const ALL_STEPS: &str = "[[restore]]\nvms = 'all-*'\n\
    steps = ['entropy', 'clock', 'hostname', 'machine_id', 'ssh_host_keys', 'network', 'hooks']\n\
    required = ['entropy', 'hooks']\nhostname = '{vm}.example'\nhook_timeout_ms = 60000\n\
    [restore.network]\nip = '10.0.2.99/24'\ngateway = '10.0.2.2'\n";

fn is_generation(vm: &Reply, generation: u64) -> bool {
    vm.json["state"] == "ready" && vm.json["agent"]["generation"] == generation
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_whose_backend_and_socket_are_replaced_is_the_next_generation() {
    let mut host = Host::start().await;
    let before = host.agent().await;
    let job = json!({ "command": "sleep", "args": ["1000"], "id": "job", "detach": true });
    assert_eq!(host.exec(job).await.status, 202);
    let mut took = Vec::new();
    for generation in 1..=5 {
        // The guest's clock, as after a restore: it stands at the time of the snapshot.
        prints(&host, "date -s '2024-01-01 00:00:00' >/dev/null").await;
        host.vm.replace_backend().unwrap();
        host.wait_for_agent();
        let began = Instant::now();
        let vm = host.until(&format!("/vms/{VM}"), |vm| is_generation(vm, generation)).await;
        took.push(began.elapsed());
        let steps = vm.json["restore"]["steps"].as_array().unwrap();
        let names: Vec<_> = steps.iter().map(|step| step["step"].as_str().unwrap()).collect();
        assert_eq!(names, ["entropy", "clock"]);
        assert!(steps.iter().all(|step| step["ok"] == true), "{steps:?}");
        assert!(steps[1]["detail"].as_str().unwrap().starts_with("moved by "), "{steps:?}");
        assert_eq!(prints(&host, "date +%Y").await, host_year());
        println!("generation {generation}: steps {steps:?}");
    }
    took.sort();
    println!("ready after the VMM answers again: p50 {:?}, all {took:?}", took[2]);
    let after = host.agent().await;
    assert_eq!(after["boot_id"], before["boot_id"]);
    assert_ne!(after["instance_id"], before["instance_id"]);
    let execs = host.get(&format!("/vms/{VM}/execs")).await;
    assert!(
        execs.json["execs"].as_array().unwrap().iter().any(|exec| exec["id"] == "g0.job"),
        "{execs:?}"
    );
    host.get(&format!("/vms/{VM}/execs/job")).await.assert_problem(410, "exec_gone");
    assert_eq!(host.daemon.ended(), None);
}

/// Runs a script in a guest by `exec`, and returns its output. The new backend numbers its connections as the old one did,
/// and the guest's kernel refuses a number that it has not released yet, so that a call can fail before it is sent.
async fn output(exec: impl AsyncFn(Value) -> Reply, script: &str) -> String {
    let body = json!({ "command": "sh", "args": ["-c", script] });
    let ran = until_async_within(BOOT, "the guest runs a program", async || {
        let ran = exec(body.clone()).await;
        if ran.status == 503 { Err(ran) } else { Ok(ran) }
    });
    let ran = ran.await;
    assert_eq!(ran.json["exit_code"], 0, "{ran:?}");
    ran.json["stdout"].as_str().unwrap().trim().to_owned()
}

async fn prints(host: &Host, script: &str) -> String {
    output(async |body| host.exec(body).await, script).await
}

fn host_year() -> String {
    let now = std::process::Command::new("date").args(["-u", "+%Y"]).output().unwrap();
    String::from_utf8(now.stdout).unwrap().trim().to_owned()
}

/// Daemon, and VMs that were restored from one snapshot.
struct Clones {
    daemon: Minionsd,
    vms: Vec<Vm>,
}

impl Clones {
    async fn post(&self, path: &str, body: &Value) -> Reply {
        let request = self.daemon.http().post(format!("http://localhost{path}")).timeout(BOOT);
        read(request.json(body).send().await.unwrap()).await
    }

    async fn get(&self, path: &str) -> Reply {
        let request = self.daemon.http().get(format!("http://localhost{path}")).timeout(BOOT);
        read(request.send().await.unwrap()).await
    }

    /// Restores a VM, and returns the daemon's view of it when it is ready.
    async fn restore(&mut self, snapshot: &Snapshot, name: &str) -> Reply {
        self.vms.push(
            Vm::restore(snapshot, name, self.daemon.vms())
                .unwrap_or_else(|error| panic!("{error}")),
        );
        self.ready(name).await
    }

    async fn ready(&self, name: &str) -> Reply {
        until_async_within(BOOT, "the clone is ready", async || {
            let vm = self.get(&format!("/vms/{name}")).await;
            if is_generation(&vm, 1) { Ok(vm) } else { Err(vm) }
        })
        .await
    }

    async fn prints(&self, name: &str, script: &str) -> String {
        let path = format!("/vms/{name}/exec");
        output(async |body| self.post(&path, &body).await, script).await
    }

    /// Returns random numbers of 16 bytes that the guest draws one after the other, by a single program: two guests
    /// with the same state of the generator draw the same ones, even if one of them has drawn a few others before.
    async fn draws(&self, name: &str) -> BTreeSet<String> {
        let draw = "dd if=/dev/urandom bs=16 count=1000 2>/dev/null | od -An -v -tx1 -w16";
        let draws: BTreeSet<_> = self.prints(name, draw).await.lines().map(str::to_owned).collect();
        assert_eq!(draws.len(), 1000);
        draws
    }
}

/// Boots a guest with hooks, makes its generator fresh, and saves it.
async fn snapshot(host: Host) -> (Minionsd, Snapshot) {
    let hooks = "mkdir -p /etc/minions/restore.d /etc/ssh && cd /etc/minions/restore.d && \
        printf '#!/bin/sh\\necho $MINIONS_GENERATION >/tmp/hooked\\n' >10-app && \
        printf '#!/bin/sh\\nexit 3\\n' >20-ignored.bak && chmod 755 10-app && \
        echo 00000000000000000000000000000000 >/etc/machine-id";
    host.prints(hooks).await;
    let Host { daemon, vm } = host;
    (daemon, vm.save().unwrap_or_else(|error| panic!("{error}")))
}

/// Shows that the step runs in each clone before anything else, and that the clones differ. That they differ because of the
/// step is shown without a guest's kernel, which now and then reseeds itself from the times of interrupts, so that clones
/// without the step differ as well on a busy host: the agent's tests record that the kernel gets the bytes of the request
/// (`RNDADDENTROPY`) and then reseeds (`RNDRESEEDCRNG`), and the daemon's tests that each clone gets other bytes, which come
/// from the kernel of the host.
#[tokio::test(flavor = "multi_thread")]
async fn clones_of_one_snapshot_draw_different_random_numbers_after_the_entropy_step() {
    let host = Host::start_with(ALL_STEPS).await;
    let parent = host.agent().await;
    let (daemon, snapshot) = snapshot(host).await;
    let mut clones = Clones { daemon, vms: Vec::new() };
    let began = Instant::now();
    let first = clones.restore(&snapshot, "all-1").await;
    println!("restored and ready after {:?}", began.elapsed());
    println!("steps: {}", first.json["restore"]["steps"]);
    let second = clones.restore(&snapshot, "all-2").await;
    for vm in [&first, &second] {
        assert_eq!(vm.json["agent"]["parent_instance_id"], parent["instance_id"]);
        assert_eq!(vm.json["agent"]["boot_id"], parent["boot_id"], "the kernel is a copy");
        let steps = vm.json["restore"]["steps"].as_array().unwrap();
        assert!(steps.iter().all(|step| step["ok"] == true), "{steps:?}");
        assert_eq!(
            (&steps[0]["step"], &steps[0]["detail"]),
            (&json!("entropy"), &json!("reseeded with 64 bytes"))
        );
        assert_eq!(steps.last().unwrap()["step"], "hooks/10-app");
    }
    assert_ne!(first.json["agent"]["instance_id"], second.json["agent"]["instance_id"]);
    let (one, two) = (clones.draws("all-1").await, clones.draws("all-2").await);
    assert_eq!(one.intersection(&two).count(), 0, "random numbers of one guest in the other");
    let facts = "hostname; cat /tmp/hooked /etc/machine-id; ip -4 -o addr show eth0";
    let [one, two] = [clones.prints("all-1", facts).await, clones.prints("all-2", facts).await];
    for (facts, name) in [(&one, "all-1"), (&two, "all-2")] {
        assert!(
            facts.starts_with(&format!("{name}.example\n1\n")) && facts.contains("10.0.2.99/24"),
            "{facts}"
        );
    }
    assert_ne!(one.lines().nth(2), two.lines().nth(2), "the machine id");
}
