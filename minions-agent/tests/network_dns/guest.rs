//! An agent in its own namespaces, with a `systemctl` that records its arguments.

use crate::support::{self, RunningAgent};
use minions_proto::AgentError;
use minions_proto::message::{ChangeNetwork, NetworkChanged};
use serde_json::{Value, json};
use std::process::Command;

pub(crate) struct Guest {
    pub(crate) agent: RunningAgent,
}

impl Guest {
    /// Starts an agent after the shell commands `setup`. `status` is the exit status of `systemctl`.
    pub(crate) async fn with(setup: &str, status: u8) -> Self {
        Self::with_flags(setup, status, "").await
    }

    pub(crate) async fn with_flags(setup: &str, status: u8, flags: &str) -> Self {
        let script = format!(
            "set -e
            mount --make-rprivate /
            mount -t tmpfs tmpfs /etc
            mount -t tmpfs tmpfs /run
            ip link add name eth0 index 2 type veth peer name peer0 index 3
            ip link set peer0 up
            mkdir /run/bin
            printf '#!/bin/sh\\necho \"$@\" >> /run/asked\\nexit {status}\\n' > /run/bin/systemctl
            chmod 755 /run/bin/systemctl
            {setup}
            export PATH=/run/bin:$PATH
            exec \"$0\" --log-level error --listen \"$1\" {flags}"
        );
        let agent = RunningAgent::with(|listen| {
            let mut command = Command::new("unshare");
            command.args(["--net", "--mount", "--uts", "--", "sh", "-c", &script]);
            command.args([support::BINARY, listen]);
            command
        })
        .await;
        Self { agent }
    }

    pub(crate) fn sh(&self, script: &str) -> String {
        let output = Command::new("nsenter")
            .args(["--net", "--mount", "-t", &self.agent.pid().to_string(), "--"])
            .args(["sh", "-ec", script])
            .output()
            .unwrap();
        assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    pub(crate) fn asked(&self) -> String {
        self.sh("cat /run/asked 2>/dev/null || true; rm -f /run/asked")
    }

    pub(crate) async fn change(&self, more: Value) -> Result<NetworkChanged, AgentError> {
        let mut change = json!({
            "interfaces": [{ "addresses": ["10.0.0.2/16"] }],
            "dns": ["1.1.1.1", "2606:4700:4700::1111"], "search": ["example.org"],
        });
        change.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.agent.call(&serde_json::from_value::<ChangeNetwork>(change).unwrap()).await
    }
}
