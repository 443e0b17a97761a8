//! The commands of the tour: four operations, each through REST, through minionsctl and the daemon, and
//! through minionsctl directly to the agent.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use super::daemon::DemoDaemon;
use crate::{command::line, progress};

/// Address of the guest in QEMU's user network. The gateway is QEMU itself: nothing that the guest sends
/// leaves the machine.
const ADDRESS: &str = "10.0.2.15/24";
const GATEWAY: &str = "10.0.2.2";
/// Name server that is only written to the guest's resolver file; no query is sent to it.
const DNS: &str = "1.1.1.1";

/// Part of the tour: commands under one title.
pub(crate) struct TourPart {
    pub(crate) title: &'static str,
    pub(crate) commands: Vec<Command>,
}

/// Builder of the commands; holds the addresses of the daemon and the agent.
#[derive(Debug)]
pub(crate) struct DemoTour {
    minionsctl: PathBuf,
    /// URL of the daemon, `http://ADDRESS:PORT`: for reads.
    host: String,
    /// Unix socket of the daemon: for calls that need operator rights.
    daemon_socket: PathBuf,
    vm: String,
    socket: PathBuf,
}

impl DemoTour {
    pub(crate) fn new(minionsctl: &Path, daemon: &DemoDaemon, vm: &str, socket: &Path) -> Self {
        Self {
            minionsctl: from_here(minionsctl),
            host: format!("http://{}", daemon.listen()),
            daemon_socket: daemon.socket().to_owned(),
            vm: vm.to_owned(),
            socket: socket.to_owned(),
        }
    }

    /// Returns a command that ends when the daemon reports the VM as ready.
    pub(crate) fn wait_until_ready(&self) -> Command {
        let mut command = Command::new("timeout");
        command.args(["--kill-after=5", "60"]).arg(&self.minionsctl);
        command.args(["--host", &self.unix_host(), "wait", &self.vm]);
        command
    }

    /// Returns all parts in order: the network is configured before the ping that needs it.
    pub(crate) fn parts(&self) -> [TourPart; 5] {
        let ping = ["--", "ping", "-c", "2", GATEWAY];
        let net = ["--ip", ADDRESS, "--gateway", GATEWAY, "--dns", DNS];
        let net_body = format!(r#"{{"ip":"{ADDRESS}","gateway":"{GATEWAY}","dns":["{DNS}"]}}"#);
        let ping_body = format!(r#"{{"command":"ping","args":["-c","2","{GATEWAY}"]}}"#);
        [
            TourPart { title: "inventory", commands: vec![self.get(""), self.ctl(&["ls"], &[])] },
            self.part("health", self.get("/health"), "health", &[]),
            self.part(
                "network: none until the host configures it",
                self.send("PUT", "/network", &net_body),
                "configure-network",
                &net,
            ),
            self.part(
                "exec: the guest pings its gateway",
                self.send("POST", "/exec", &ping_body),
                "exec",
                &ping,
            ),
            self.part("status", self.get("/status"), "status", &[]),
        ]
    }

    /// Prints commands to copy.
    pub(crate) fn print_what_to_try(&self) {
        progress::title("running until Ctrl-C; try");
        let shell = r#"{"command":"sh","args":["-c","uname -a; id; ls /"]}"#;
        for command in [
            self.get("/health"),
            self.send("POST", "/exec", shell),
            self.ctl(&["get", &self.vm], &[]),
            self.ctl(&["exec", &self.vm], &["--", "sh", "-c", "uname -a; id; ls /"]),
            self.direct("health", &[]),
        ] {
            progress::line(line(&command));
        }
        progress::line(format!("in a browser: {}/docs", self.host));
    }

    /// Returns a part that shows one operation in three ways.
    fn part(&self, title: &'static str, rest: Command, verb: &str, arguments: &[&str]) -> TourPart {
        let through_daemon = self.ctl(&[verb, &self.vm], arguments);
        TourPart { title, commands: vec![rest, through_daemon, self.direct(verb, arguments)] }
    }

    /// Builds a read request: every local user may send it over TCP.
    fn get(&self, below_vm: &str) -> Command {
        let mut command = Command::new("curl");
        command.args(["-sS", "--fail-with-body"]);
        command.arg(format!("{}/vms/{}{below_vm}", self.host, self.vm));
        command
    }

    /// Builds an operating request: over the Unix socket, where the kernel identifies the caller.
    fn send(&self, method: &str, below_vm: &str, json: &str) -> Command {
        let mut command = Command::new("curl");
        command.args(["-sS", "--fail-with-body", "--unix-socket"]).arg(&self.daemon_socket);
        command.args(["-X", method, "-H", "content-type: application/json", "-d", json]);
        command.arg(format!("http://localhost/vms/{}{below_vm}", self.vm));
        command
    }

    fn ctl(&self, verb_and_vm: &[&str], arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.minionsctl);
        command.args(["--host", &self.unix_host()]).args(verb_and_vm).args(arguments);
        command
    }

    fn unix_host(&self) -> String {
        format!("unix://{}", self.daemon_socket.display())
    }

    fn direct(&self, verb: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.minionsctl);
        command.arg("--socket").arg(&self.socket).arg(verb).args(arguments);
        command
    }
}

/// Shortens the path relative to the current directory; it is still right to copy.
fn from_here(path: &Path) -> PathBuf {
    let here = env::current_dir().unwrap_or_default();
    path.strip_prefix(here).unwrap_or(path).to_owned()
}
