//! Clock limits of declarations.

use serde_json::{Value, json};
use testkit::daemon::{DEADLINE, TestDaemon};
use testkit::wire::framed;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio::time::timeout;

/// Serves a connection of an agent whose guest's clock is years late. Reports the type of each request.
async fn serve(mut stream: UnixStream, requests: mpsc::UnboundedSender<String>) -> Option<()> {
    let health = json!({
        "status": "ok", "uptime_secs": 1, "hostname": "h", "time_unix_ms": 1_600_000_000_000_u64, "step_ms": 0,
        "agent": {
            "name": "n", "version": "v", "protocol": 2, "boot_id": "b", "instance_id": "i", "features": ["clock"],
        },
    });
    let health = framed(health.to_string());
    let mut connect = [0; b"CONNECT 1024\n".len()];
    stream.read_exact(&mut connect).await.ok()?;
    stream.write_all(b"OK 1\n").await.ok()?;
    loop {
        let length = stream.read_u32().await.ok()?;
        let mut request = vec![0; usize::try_from(length).unwrap()];
        stream.read_exact(&mut request).await.ok()?;
        let request: Value = serde_json::from_slice(&request).unwrap();
        requests.send(request["type"].as_str().unwrap().to_owned()).ok()?;
        stream.write_all(&health).await.ok()?;
    }
}

#[tokio::test]
async fn a_declared_clock_limit_applies_from_the_next_health_check() {
    // The configuration of this daemon never sets a clock.
    let daemon = TestDaemon::start().await;
    let listener = UnixListener::bind(daemon.sockets().join("late.vsock")).unwrap();
    let (sender, mut requests) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, sender.clone()));
        }
    });
    daemon.until_state("late", "ready").await;
    let policy = json!({ "clock_limit_ms": 1000, "restore": { "steps": [] } });
    assert_eq!(daemon.put("/declarations/late", policy).await.status, 200);
    let mut before = Vec::new();
    while let Ok(request) = requests.try_recv() {
        before.push(request);
    }
    assert!(!before.contains(&"set_clock".to_owned()), "{before:?}");
    let is_set = async { while requests.recv().await.unwrap() != "set_clock" {} };
    timeout(DEADLINE, is_set).await.expect("the clock is set");
    let config = daemon.get("/vms/late/config").await.json;
    assert_eq!(config["clock_limit_ms"], 1000);
    assert_eq!(config["restore"], json!({ "steps": [] }));
    let origins = json!([
        { "field": "clock_limit_ms", "from": "late" },
        { "field": "restore", "from": "late" },
    ]);
    assert_eq!(config["origins"], origins);
    assert_eq!(config["configured"], Value::Null, "nothing is configured in the guest");
}
