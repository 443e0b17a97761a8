//! Agents on other ports than the default.
#![allow(clippy::unwrap_used, reason = "in tests, a panic with its location is the report")]

mod support;

use minions_proto::connection::Connection;
use minions_proto::handshake::HandshakeError;
use minions_proto::hybrid::{DialError, dial};
use minions_proto::message::{Exec, HealthCheck};
use std::path::Path;
use std::process::Command;
use support::{BINARY, RunningAgent, SOON, agent_command};

/// Reports whether an agent answers on this port.
async fn answers(socket: &Path, port: u32) -> bool {
    match dial(socket, port, SOON).await {
        Ok(stream) => {
            support::answer(&mut Connection::new(stream), &HealthCheck {}).await.unwrap();
            true
        }
        Err(DialError::Handshake(HandshakeError::Refused)) => false,
        Err(other) => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_agent_listens_on_the_port_of_its_option_or_environment_and_on_no_other() {
    let by_option = RunningAgent::with_flags(&["--port", "2048"]).await;
    let with_variable = |flags: &'static [&str]| {
        move |listen: &str| {
            let mut command = agent_command(listen);
            command.env("MINIONS_AGENT_PORT", "2048").args(flags);
            command
        }
    };
    let by_variable = RunningAgent::with(with_variable(&[])).await;
    for agent in [&by_option, &by_variable] {
        assert!(answers(&agent.socket(), 2048).await);
        assert!(!answers(&agent.socket(), 1024).await);
    }
    let by_both = RunningAgent::with(with_variable(&["--port", "4294967294"])).await;
    assert!(answers(&by_both.socket(), 4_294_967_294).await);
    assert!(!answers(&by_both.socket(), 2048).await);
    let empty = |listen: &str| {
        let mut command = agent_command(listen);
        command.env("MINIONS_AGENT_PORT", "");
        command
    };
    assert!(answers(&RunningAgent::with(empty).await.socket(), 1024).await);
}

#[tokio::test]
async fn programs_do_not_receive_the_agents_own_setting() {
    let agent = RunningAgent::with(|listen| {
        let mut command = agent_command(listen);
        command.env("MINIONS_AGENT_PORT", "1024").env("OF_THE_PARENT", "1");
        command
    })
    .await;
    let env = Exec { command: "env".into(), args: Vec::new(), timeout_ms: None };
    let printed = agent.call(&env).await.unwrap().stdout;
    assert!(printed.contains("OF_THE_PARENT") && !printed.contains("AGENT_PORT"), "{printed}");
}

#[test]
fn the_error_for_an_invalid_port_in_the_environment_names_the_variable() {
    for value in ["0", "x", "4294967295"] {
        let mut command = Command::new(BINARY);
        let output = command.env("MINIONS_AGENT_PORT", value).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        let expected = format!("MINIONS_AGENT_PORT is {value:?}: must be a VSOCK port");
        assert!(stderr.contains(&expected), "{stderr}");
    }
}
