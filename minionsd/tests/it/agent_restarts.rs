//! An agent that is killed and started again, many times.

use testkit::agent_process::AgentProcess;
use testkit::minionsd::Minionsd;
use testkit::wait::until_async;

const RESTARTS: usize = 100;

/// Round after which the daemon has all descriptors that it needs.
const SETTLED: usize = 5;

#[tokio::test(flavor = "multi_thread")]
async fn after_each_of_100_agent_restarts_the_vm_is_ready_and_nothing_leaks() {
    let mut daemon = Minionsd::builder().spawn();
    let mut last = String::new();
    let mut descriptors = 0;
    for round in 0..=RESTARTS {
        let agent = AgentProcess::start(daemon.vms(), "web-1", &[]);
        last = ready_after(&daemon, &last).await;
        let status = daemon.get("/vms/web-1/status").await.expect("the daemon answers");
        assert_eq!(status.status, 200, "round {round}: {status:?}");
        if round == SETTLED {
            descriptors = daemon.descriptors().unwrap();
        }
        drop(agent);
    }
    until_async("the daemon has no more descriptors than before", async || {
        let now = daemon.descriptors().unwrap();
        if now <= descriptors { Ok(()) } else { Err((descriptors, now)) }
    })
    .await;
    assert_eq!(daemon.ended(), None);
}

/// Waits until an agent of another instance is ready, and returns its instance.
async fn ready_after(daemon: &Minionsd, last: &str) -> String {
    until_async("another agent is ready", async || {
        let reply = daemon.get("/vms/web-1").await.ok_or("no answer")?;
        let instance = reply.json["agent"]["instance_id"].as_str().unwrap_or(last);
        let is_ready = reply.json["state"] == "ready" && instance != last;
        if is_ready { Ok(instance.to_owned()) } else { Err("not ready") }
    })
    .await
}
