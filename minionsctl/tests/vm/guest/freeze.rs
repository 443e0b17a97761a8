//! Frozen file systems: a Debian whose root file system is frozen while programs and the journal write to it.

use super::machine::{Disk, Machine, SOON, minionsctl};
use serde_json::Value;
use std::process::{Command, Output};
use testkit::rig::wait_until;

/// Writes numbers in place to a file of a fixed length, so that debugfs, which does not read the journal, sees each.
const WRITER: &str = "i=10000000; printf $i >/var/tick; sync
    while :; do i=$((i + 1)); printf $i 1<>/var/tick; sync /var/tick; sleep 0.05; done";

/// Writes to the journal, which stores its messages in the root file system.
const LOGGER: &str = "mkdir -p /var/log/journal; systemctl restart systemd-journald
    while :; do logger tick; sleep 0.1; done";

/// Number of requests that are answered while the file system is frozen.
const REQUESTS: usize = 20;

struct FrozenGuest {
    disk: Disk,
    machine: Machine,
}

impl FrozenGuest {
    /// Returns the file's content on the disk image, as of the last write of the guest.
    fn tick(&self) -> Option<u64> {
        let mut debugfs = Command::new("debugfs");
        let read = debugfs.args(["-R", "cat /var/tick"]).arg(self.disk.path()).output().unwrap();
        String::from_utf8_lossy(&read.stdout).trim().parse().ok()
    }

    fn ctl(&self, args: &[&str]) -> Output {
        minionsctl(self.machine.vm.socket_path(), args)
    }

    fn json(&self, args: &[&str]) -> Value {
        let output = self.ctl(args);
        serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|_| panic!("{args:?}: {output:?}\n{}", self.machine.vm.serial_log()))
    }

    fn freeze(&self, ttl: &str) {
        let quiesced = self.json(&["quiesce", "--freeze-fs", "--ttl", ttl]);
        let root = serde_json::json!([{ "mount_point": "/", "fs_type": "ext4" }]);
        assert_eq!(quiesced["frozen"], root, "{quiesced}");
    }

    fn lease(&self) -> Value {
        self.json(&["health"])["quiesced"].clone()
    }

    /// Waits until the file on the disk image changes.
    fn until_written(&self) {
        let before = self.tick();
        wait_until("the file is written again", SOON, || {
            Ok((self.tick().is_some() && self.tick() > before).then_some(()))
        })
        .unwrap_or_else(|error| panic!("{error}\n{}", self.machine.vm.serial_log()));
    }

    /// Kills processes of the guest as soon as its file system is frozen: a program that writes to it then waits in the
    /// kernel.
    ///
    /// If only the agent is killed, its service is started again only after the thaw, which the keeper must do then.
    fn kill_when_frozen(&self, id: &str, killed: &str) {
        let after = if killed == "$agent" {
            // Now, because systemd itself may wait for the thaw.
            self.machine.printed("systemctl mask --runtime minions-agent");
            "echo thawed >/var/thawed; systemctl unmask --runtime minions-agent
            systemctl reset-failed; systemctl start minions-agent.socket minions-agent"
        } else {
            ""
        };
        self.when_frozen(id, &format!("kill -9 {killed}\n            {after}"));
    }

    /// Runs a command of the guest as soon as its file system is frozen.
    fn when_frozen(&self, id: &str, command: &str) {
        let script = format!(
            "agent=$PPID; n=0
            until [ $n -ge 10 ]; do
                if grep -q ') D ' /proc/$(cat /run/writer)/stat; then n=$((n + 1)); else n=0; fi
                sleep 0.1
            done
            keeper=$(pgrep -f '^/proc/self/exe freeze-keeper')
            {command}"
        );
        self.machine.detach(id, &[], &script);
    }
}

#[test]
fn a_frozen_root_file_system_is_not_written_to_and_never_stays_frozen() {
    let disk = Disk::installed();
    let machine = Machine::debian(&disk, "frozen");
    let guest = FrozenGuest { disk, machine };
    guest.machine.detach("writer", &[], &format!("echo $$ >/run/writer; {WRITER}"));
    guest.machine.detach("logger", &[], LOGGER);
    guest.until_written();
    guest.machine.until_printed("ls /var/log/journal/*/system.journal 2>/dev/null || true");

    guest.freeze("10m");
    let frozen_at = guest.tick();
    for _ in 0..REQUESTS {
        assert!(guest.lease()["lease_ms"].as_u64().unwrap() > 300_000);
        assert!(guest.ctl(&["status"]).status.success());
    }
    let refused = guest.ctl(&["exec", "--", "true"]);
    assert_eq!(refused.status.code(), Some(125), "{refused:?}");
    assert_eq!(guest.tick(), frozen_at, "the frozen file system was written to");
    let thawed = guest.json(&["thaw"]);
    assert_eq!(thawed["thawed"], serde_json::json!(["/"]), "{thawed}");
    guest.until_written();

    // The end of the lease.
    guest.freeze("1s");
    wait_until("the lease ends", SOON, || Ok(guest.lease().is_null().then_some(())))
        .unwrap_or_else(|error| panic!("{error}"));
    guest.until_written();

    for (id, killed) in [("agent", "$agent"), ("keeper", "$keeper"), ("both", "$agent $keeper")] {
        let instance = guest.machine.instance();
        guest.kill_when_frozen(id, killed);
        guest.freeze("10m");
        // Without a connection, which would start the agent.
        guest.until_written();
        if killed.contains("$agent") {
            guest.machine.until_another(&instance);
        }
        wait_until("the quiesce ends", SOON, || Ok(guest.lease().is_null().then_some(())))
            .unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(guest.machine.printed("echo works >/var/works; sync; cat /var/works"), "works");
        if killed == "$keeper" {
            let late = guest.ctl(&["thaw"]);
            let stderr = String::from_utf8_lossy(&late.stderr);
            assert!(stderr.contains("its keeper was ended"), "{stderr}");
        }
    }

    // A thaw by another process: the quiesce did not last until the thaw.
    guest.when_frozen("other", "fsfreeze -u /");
    guest.freeze("10m");
    guest.until_written();
    let late = guest.ctl(&["thaw"]);
    let stderr = String::from_utf8_lossy(&late.stderr);
    assert!(stderr.contains("another process thawed / (ext4)"), "{stderr}");
    assert!(guest.lease().is_null());
}
