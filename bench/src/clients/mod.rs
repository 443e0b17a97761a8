//! Clients that cost little.

pub(crate) mod exec_stream;
pub(crate) mod rest;
pub(crate) mod wire;
pub(crate) mod wrk;

#[cfg(test)]
mod tests {
    use std::{os::unix::net::UnixStream, path::Path};

    use reqwest::StatusCode;
    use serde_json::json;
    use testkit::daemon::TestDaemon;

    use super::{exec_stream::StreamedProgram, rest::RestClient, wire::WireClient};

    /// Number of bytes: more than a client may leave unacknowledged, and not a multiple of a message.
    const LEN: u64 = 1_000_001;

    /// Runs `work` with the socket of a daemon whose VM `web-1` is ready, and with the socket of the VM.
    async fn with_daemon(work: impl FnOnce(&Path, &Path) + Send + 'static) {
        let (daemon, vm) = TestDaemon::with_vm().await;
        let sockets = (daemon.unix_socket(), vm.path().to_owned());
        tokio::task::spawn_blocking(move || work(&sockets.0, &sockets.1)).await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn output_is_counted_to_its_last_byte() {
        with_daemon(|daemon, _| {
            let script = format!("head -c {LEN} /dev/zero");
            let program = StreamedProgram::start(daemon, "web-1", &script, false).unwrap();
            assert_eq!(program.drain().unwrap(), LEN);
        })
        .await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn input_arrives_to_its_last_byte() {
        with_daemon(|daemon, _| {
            let script = format!("test $(wc -c) -eq {LEN}");
            let program = || StreamedProgram::start(daemon, "web-1", &script, true).unwrap();
            program().feed(LEN).unwrap();
            let error = program().feed(LEN - 1).unwrap_err().to_string();
            assert!(error.contains("the program failed"), "{error}");
        })
        .await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_program_that_cannot_start_is_an_error_with_the_answer() {
        with_daemon(|daemon, _| {
            let error = StreamedProgram::start(daemon, "no-vm", "true", false).unwrap_err();
            let text = format!("{error:#}");
            assert!(text.contains("unknown_vm") || text.contains("404"), "{text}");
        })
        .await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_unexpected_status_is_an_error_with_the_answer() {
        with_daemon(|daemon, _| {
            let rest = RestClient::new(daemon).unwrap();
            assert_eq!(rest.get("/vms/web-1/health").unwrap()["status"], "ok");
            let exec = json!({ "command": "true" });
            let result = rest.post("/vms/web-1/exec", &exec, StatusCode::OK).unwrap();
            assert_eq!(result["exit_code"], 0);
            let error = rest.get("/vms/no-vm/health").unwrap_err().to_string();
            assert!(error.contains("404") && error.contains("no-vm"), "{error}");
            let error = rest.post("/vms/web-1/exec", &exec, StatusCode::ACCEPTED).unwrap_err();
            assert!(error.to_string().contains("200 OK"), "{error}");
        })
        .await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_agent_answers_several_health_checks_on_one_connection() {
        with_daemon(|_, vm| {
            let mut client = WireClient::handshake(UnixStream::connect(vm).unwrap()).unwrap();
            client.ask_health().unwrap();
            client.ask_health().unwrap();
        })
        .await;
    }
}
