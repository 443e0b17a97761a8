//! The guest is paused by its VMM (`stop`), and continues.

use crate::host::{Host, VM};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

/// Longer than the silence after which the daemon re-attaches to a program.
const LONGEST: Duration = Duration::from_secs(25);

/// Once for as long as a snapshot takes, once for longer than the daemon needs to call a VM unreachable.
const PAUSES: [Duration; 4] =
    [Duration::from_secs(2), LONGEST, Duration::from_millis(2500), Duration::from_secs(8)];

/// Output of the program that runs during a pause: a line, repeated up to this length. A piece of it that is lost or
/// repeated shifts the rest, because no piece that the agent sends is a multiple of the line.
const LINE: &str = "0123456789abcdef\n";
const OUTPUT: usize = 100_000_000;

/// Reads the output of a program, as NDJSON events, and checks each byte. Publishes the number of bytes.
async fn read_output(
    mut response: reqwest::Response,
    progress: watch::Sender<usize>,
) -> (usize, Value) {
    let (mut pending, mut received) = (Vec::new(), 0);
    loop {
        let chunk = response.chunk().await.unwrap().expect("the last event has not arrived");
        pending.extend_from_slice(&chunk);
        while let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = pending.drain(..=end).collect();
            let event: Value = serde_json::from_slice(&line).unwrap();
            match event["type"].as_str().unwrap() {
                "stdout" => {
                    let bytes = event["data"].as_str().unwrap().as_bytes();
                    assert_eq!(event["offset"], received, "a byte was lost or repeated");
                    let expected = LINE.as_bytes().iter().cycle().skip(received % LINE.len());
                    assert!(bytes.iter().eq(expected.take(bytes.len())), "at {received}");
                    received += bytes.len();
                    progress.send_replace(received);
                }
                "exit" => return (received, event),
                "started" | "heartbeat" => {}
                other => panic!("{other}: {event}"),
            }
        }
    }
}

/// Starts the program and returns when a part of its output has arrived.
async fn output_on_its_way(host: &Host) -> JoinHandle<(usize, Value)> {
    let script = format!("yes {} | head -c {OUTPUT}", LINE.trim_end());
    let response = host.exec_lines(json!({ "command": "sh", "args": ["-c", script] })).await;
    let (progress, mut seen) = watch::channel(0);
    let reading = tokio::spawn(read_output(response, progress));
    seen.wait_for(|received| *received > OUTPUT / 100).await.unwrap();
    assert!(!reading.is_finished(), "the program ended before the pause");
    reading
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_guest_is_ready_again_when_it_continues_and_was_not_dialled_meanwhile() {
    let mut host = Host::start().await;
    let before = host.agent().await;
    for pause in PAUSES {
        // For the longest pause, with a program whose output is on its way.
        let reading = if pause == LONGEST { Some(output_on_its_way(&host).await) } else { None };
        host.vm.stop().unwrap();
        let end = Instant::now() + pause;
        let silent = |vm: &Value| {
            let reason = &vm["reason"];
            (&reason["failure"], &reason["layer"])
                == (&json!("paused_or_hung"), &json!("agent_silent"))
        };
        // A call makes the daemon ask; without idle connections it waits for that answer, and does not dial.
        let asked = host.get(&format!("/vms/{VM}/status?timeout_ms=300")).await;
        assert!(matches!(asked.status, 503 | 504), "{asked:?}");
        host.until(&format!("/vms/{VM}"), |vm| silent(&vm.json)).await;
        if pause > Duration::from_secs(5) {
            let seen =
                host.until(&format!("/vms/{VM}"), |vm| vm.json["state"] == "unreachable").await;
            assert!(silent(&seen.json), "{seen:?}");
            host.get(&format!("/vms/{VM}/health")).await.assert_problem(503, "agent_unreachable");
        }
        // The fault itself, not a wait for something to come about.
        sleep_until(end).await;
        host.vm.cont().unwrap();
        let continued = Instant::now();
        let well = |vm: &Value| vm["state"] == "ready" && vm.get("reason").is_none();
        host.until(&format!("/vms/{VM}"), |vm| well(&vm.json)).await;
        println!("paused for {pause:?}: ready {:?} after it continued", continued.elapsed());
        assert_eq!(host.agent().await, before, "neither guest nor agent was restarted");
        assert_eq!(host.prints("echo back").await, "back");
        if let Some(reading) = reading {
            let (received, exit) = reading.await.unwrap();
            assert_eq!((received, &exit["exit_code"]), (OUTPUT, &json!(0)), "{exit}");
            println!("{received} bytes received {:?} after it continued", continued.elapsed());
        }
    }
    assert_eq!(host.daemon.ended(), None);
}
