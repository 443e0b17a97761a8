//! The OpenAPI document, as clients and test tools that were made for any document understand it.
//!
//! The longest tests are in this module, whose name is the first: tests are started in this order, and the other ones use
//! the second processor meanwhile.

use crate::system::{VM, ready};
use std::path::Path;
use std::process::{Command, Stdio};
use testkit::daemon::TestDaemon;
use testkit::rig::Layout;

/// Returns a command for a Python tool that `cargo xtask test` has installed in the rig directory.
fn python_tool(name: &str) -> Command {
    let venv = Layout::from_env().venv().canonicalize().unwrap_or_else(|error| {
        panic!("no Python tools ({error}): run `cargo xtask test`, which installs them")
    });
    Command::new(venv.join("bin").join(name))
}

#[track_caller]
fn passes(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}\n{stdout}\n{stderr}");
    stdout
}

/// Calls every operation with generated requests, and compares the replies with the document. `settings` are those of
/// schemathesis.
async fn conforms(settings: &str) {
    let (_vm, daemon) = ready().await;
    let dir = tempfile::tempdir().unwrap();
    let document = dir.path().join("openapi.json");
    let served = daemon.http.get(daemon.url("/openapi.json")).send().await.unwrap();
    std::fs::write(&document, served.bytes().await.unwrap()).unwrap();
    passes(python_tool("openapi-spec-validator").arg(&document));
    std::fs::write(dir.path().join("schemathesis.toml"), settings).unwrap();
    passes(schemathesis(&daemon, &document).current_dir(dir.path()));
    assert_eq!(daemon.get(&format!("/vms/{VM}/health")).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_daemon_conforms_to_its_document_for_any_vm_name() {
    conforms("").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_daemon_conforms_to_its_document_for_a_vm_that_exists() {
    conforms(&format!("[parameters]\n\"path.vm\" = \"{VM}\"\n")).await;
}

/// Returns the schemathesis command. An undocumented status is a failure, which covers unexpected 5xx.
fn schemathesis(daemon: &TestDaemon, document: &Path) -> Command {
    let checks = [
        "status_code_conformance",
        "content_type_conformance",
        "response_schema_conformance",
        "response_headers_conformance",
        "unsupported_method",
        "negative_data_rejection",
    ];
    let mut command = python_tool("schemathesis");
    command.arg("run").arg(document).args(["--url", &daemon.url("")]);
    command.args(["--checks", &checks.join(",")]);
    command.arg("--header").arg(format!("Authorization: {}", daemon.bearer()));
    // Powering off would end the VM that the other calls need.
    command.args(["--exclude-operation-id", "power_vm"]);
    // The event stream never ends.
    command.args(["--exclude-operation-id", "follow_events"]);
    command.args(["--phases", "examples,coverage,fuzzing", "--max-examples", "30", "--seed", "1"]);
    command.args(["--request-timeout", "60", "--no-color"]);
    command
}

#[tokio::test(flavor = "multi_thread")]
async fn a_generated_client_calls_health_status_and_exec() {
    let (_vm, daemon) = ready().await;
    let dir = tempfile::tempdir().unwrap();
    let document = dir.path().join("openapi.json");
    std::fs::write(&document, minionsd::openapi_json()).unwrap();
    passes(
        python_tool("openapi-python-client")
            .current_dir(dir.path())
            .args(["generate", "--meta", "none", "--output-path", "minions_client", "--path"])
            .arg(&document),
    );
    let script = r#"
import sys
from minions_client import AuthenticatedClient
from minions_client.api.exec_ import run_exec
from minions_client.api.guest import get_health, get_status
from minions_client.models import ExecRequest, Problem

client, vm = AuthenticatedClient(base_url=sys.argv[1], token=sys.argv[3]), sys.argv[2]
assert get_health.sync(client=client, vm=vm).hostname == vm
assert get_status.sync(client=client, vm=vm).memory_total_mb > 0
ran = run_exec.sync(client=client, vm=vm, body=ExecRequest(command="sh", args=["-c", "echo hi; exit 3"]))
assert (ran.exit_code, ran.stdout) == (3, "hi\n"), ran
missing = get_health.sync(client=client, vm="nope")
assert isinstance(missing, Problem) and missing.code == "vm_not_found", missing
print("three calls and a problem")
"#;
    let bearer = daemon.bearer();
    let token = bearer.strip_prefix("Bearer ").unwrap();
    let mut python = python_tool("python");
    python.args(["-c", script, &daemon.url(""), VM, token]);
    let stdout = passes(python.current_dir(dir.path()));
    assert_eq!(stdout, "three calls and a problem\n");
}
