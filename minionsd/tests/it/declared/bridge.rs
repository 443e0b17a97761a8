//! Agents in namespaces of their own, with one interface each on a common bridge.
//!
//! ```text
//!  agent a │ eth0 ◀─ veth ─▶ va ┐
//!  agent b │ eth0 ◀─ veth ─▶ vb ├─ br0: 10.0.0.1
//!  agent c │ eth0 ◀─ veth ─▶ vc ┘
//! ```

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use testkit::built::program;
use testkit::wait::until;

/// Network namespace with a bridge. Dropping it removes it.
pub(crate) struct Bridge(Child);

impl Bridge {
    pub(crate) fn start() -> Self {
        crate::callers::must_be_root();
        let script = "ip link set lo up; ip link add br0 type bridge; ip link set br0 up
            ip addr add 10.0.0.1/24 dev br0; exec sleep infinity";
        let mut command = Command::new("unshare");
        command.args(["--net", "--", "sh", "-ec", script]);
        let bridge = Self(command.stdin(Stdio::null()).spawn().unwrap());
        until("the bridge has its address", || {
            let shown = bridge.try_run("ip -4 -o addr show dev br0 2>/dev/null")?;
            shown.contains("10.0.0.1/24").then_some(())
        });
        bridge
    }

    /// Waits until this number of ports forward.
    pub(crate) fn until_forwarding(&self, ports: usize) {
        until("the ports forward", || {
            let shown = self.try_run("bridge link")?;
            (shown.matches("state forwarding").count() == ports).then_some(())
        });
    }

    /// Gives the host a further address on the bridge.
    pub(crate) fn add_address(&self, address: &str) {
        self.try_run(&format!("ip addr add {address} dev br0")).unwrap();
    }

    fn try_run(&self, script: &str) -> Option<String> {
        in_namespaces(&self.0, &["--net"], script)
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        end(&mut self.0);
    }
}

/// Guest: an agent whose network, hostname and files are its own. Dropping it kills it.
pub(crate) struct Guest(Child);

impl Guest {
    /// Starts an agent for the VM `name` with its socket in `dir`.
    pub(crate) fn start(bridge: &Bridge, dir: &Path, name: &str) -> Self {
        // The kernel removes the interface of an earlier guest some time after that guest has ended.
        let script = "set -e
            mount --make-rprivate /
            mount -t tmpfs tmpfs /etc; mount -t tmpfs tmpfs /run
            ip link set lo up
            nsenter --net -t \"$2\" ip link del \"$3\" 2>/dev/null || true
            until ip link add name eth0 type veth peer name \"$3\" netns \"$2\"; do sleep 0.05; done
            nsenter --net -t \"$2\" ip link set \"$3\" master br0 up
            exec \"$0\" --log-level error --listen \"$1\"";
        // The VMM of a VM that starts again has removed the socket of the last one.
        let socket = dir.join(format!("{name}.vsock"));
        let _ = std::fs::remove_file(&socket);
        let log = File::create(dir.join(format!("{name}.log"))).unwrap();
        let mut command = Command::new("unshare");
        command.args(["--net", "--mount", "--uts", "--", "sh", "-c", script]);
        command.arg(program("minions-agent")).arg(format!("hybrid:{}", socket.display()));
        command.args([bridge.0.id().to_string(), format!("v{name}")]);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn();
        Self(child.unwrap())
    }

    /// Runs a script in the guest's namespaces. Returns its output if it succeeds.
    pub(crate) fn run(&self, script: &str) -> Option<String> {
        in_namespaces(&self.0, &["--net", "--mount", "--uts"], script)
    }

    /// Reports whether a host answers on the link: it refuses a connection to a port on which nothing listens.
    pub(crate) fn reaches(&self, address: &str) -> bool {
        let script = format!(
            "python3 -c 'import socket, sys, errno; s = socket.socket(); s.settimeout(10); \
             sys.exit(s.connect_ex((\"{address}\", 9)) != errno.ECONNREFUSED)'"
        );
        self.run(&script).is_some()
    }

    /// Returns the IPv4 address of `eth0`, with its prefix length.
    pub(crate) fn address(&self) -> Option<String> {
        let shown = self.run("ip -4 -o addr show dev eth0")?;
        let mut words = shown.split_whitespace();
        words.find(|word| *word == "inet")?;
        words.next().map(str::to_owned)
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        end(&mut self.0);
    }
}

fn in_namespaces(child: &Child, kinds: &[&str], script: &str) -> Option<String> {
    let mut command = Command::new("nsenter");
    command.args(kinds).args(["-t", &child.id().to_string(), "--", "sh", "-ec", script]);
    let output = command.stderr(Stdio::null()).output().unwrap();
    output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
}

fn end(child: &mut Child) {
    // Both fail only if the process has ended and been waited for.
    let _ = child.kill();
    let _ = child.wait();
}
