//! Files of an agent that does not keep to the form of the streams.

use crate::exec_hostile::{output, reply_with, with};
use reqwest::Method;
use testkit::daemon::read;

const FILE: &str = "/vms/web-1/files?path=/etc/hostname";

const FEATURES: [&str; 2] = ["exec2", "files"];

#[tokio::test]
async fn a_header_that_never_ends_is_a_protocol_error() {
    // Frames of 64 KiB without a newline.
    let (daemon, _vm) = with(reply_with(&FEATURES, 0), output(64 * 1024)).await;
    daemon.get(FILE).await.assert_problem(502, "agent_protocol_error");
    let listed = daemon.get("/vms/web-1/files/list?path=/etc").await;
    listed.assert_problem(502, "agent_protocol_error");
    // A write gets its header last: what the guest sends before is bounded all the same.
    let put = daemon.request(Method::PUT, FILE).body("x").send().await.unwrap();
    read(put).await.assert_problem(502, "agent_protocol_error");
}

#[tokio::test]
async fn a_header_that_is_not_sent_is_a_timeout() {
    let (daemon, _vm) = with(reply_with(&FEATURES, 0), Vec::new()).await;
    for path in [
        format!("{FILE}&timeout_ms=300"),
        "/vms/web-1/files/list?path=/etc&timeout_ms=300".to_owned(),
        "/vms/web-1/files/watch?path=/etc&timeout_ms=300".to_owned(),
    ] {
        daemon.get(&path).await.assert_problem(504, "agent_timeout");
    }
    let head = daemon.request(Method::HEAD, &format!("{FILE}&timeout_ms=300")).send().await;
    assert_eq!(head.unwrap().status(), 504);
}
