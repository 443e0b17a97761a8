//! minionsd with 5,000 fake VMs: with a declaration for each, compared with itself before.

use std::{thread, time::Duration};

use anyhow::ensure;
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::{
    clients::rest::RestClient,
    figures::{
        clock::{milliseconds, p50, timed},
        report::{BenchReport, FigureAim, FigureUnit, ReportRow},
        series::RoundSeries,
    },
    programs::{MeasuredPrograms, WorkAmount, usage::ProcessUsage},
    site::{self, MeasuredDaemon},
};

/// Number of VMs, each with a declaration.
const COUNT: u32 = 5000;

/// Number of values of the label `shard`.
const SHARDS: u32 = 10;

/// Times for which an idle daemon is observed, without and with declarations: four rounds of probes of every VM, and one round
/// of looks for drift.
const IDLE: [Duration; 2] = [Duration::from_secs(20), Duration::from_mins(1)];

/// Time for the remaining work after a start or a change.
const SETTLING: Duration = Duration::from_secs(5);

/// Number of queries in each round.
const QUERIES: u32 = 20;

#[derive(Debug, Default)]
struct DeclaredFigures {
    /// Without and with declarations.
    rss_mb: [RoundSeries; 2],
    idle_percent: [RoundSeries; 2],
    /// First apply, which changes everything; second one, which changes nothing.
    apply_ms: [RoundSeries; 2],
    /// Queries that match all VMs, and one in [`SHARDS`].
    query_ms: [RoundSeries; 2],
}

pub(crate) fn run(programs: &MeasuredPrograms, amount: WorkAmount) -> anyhow::Result<BenchReport> {
    let mut figures = DeclaredFigures::default();
    for _ in 0..amount.rounds {
        measure(programs, amount, &mut figures)?;
    }
    Ok(report(figures))
}

fn measure(
    programs: &MeasuredPrograms,
    amount: WorkAmount,
    figures: &mut DeclaredFigures,
) -> anyhow::Result<()> {
    let dir = site::directory()?;
    let _responder = site::responder(programs, dir.path(), COUNT)?;
    let database = dir.path().join("minionsd.db");
    let options = ["--state".as_ref(), database.as_os_str()];
    let mut daemon = MeasuredDaemon::start_with(programs, dir.path(), &options)?;
    daemon.wait_until_ready(COUNT)?;
    let rest = RestClient::new(&daemon.socket)?;
    let declarations = declarations();
    for with_declarations in [0, 1] {
        let idle = IDLE[with_declarations];
        let idle = if amount.is_quick { idle / 20 } else { idle };
        if with_declarations == 1 {
            for again in [0, 1] {
                let apply = || {
                    let report = rest.post("/declarations", &declarations, StatusCode::OK)?;
                    ensure!(report["changed"] == (again == 0), "an apply reported {report}");
                    Ok(())
                };
                figures.apply_ms[again].push(milliseconds(timed(apply)?));
                daemon.program.wait_until("all are applied", || is_applied(&rest))?;
            }
            for (query, figures) in ["app=web", "shard=s3"].into_iter().zip(&mut figures.query_ms) {
                let path = format!("/vms?label={query}");
                figures.push(p50(QUERIES, || rest.get_text(&path).map(drop))? / 1e3);
            }
        }
        thread::sleep(SETTLING.min(idle));
        let pid = daemon.program.pid();
        let before = ProcessUsage::of(pid)?;
        thread::sleep(idle);
        let after = ProcessUsage::of(pid)?;
        figures.rss_mb[with_declarations].push(after.rss_mb);
        let busy = after.cpu.saturating_sub(before.cpu).as_secs_f64();
        figures.idle_percent[with_declarations].push(100.0 * busy / idle.as_secs_f64());
    }
    Ok(())
}

/// Returns a request with one pool, and a declaration of two labels and a network for each VM.
fn declarations() -> Value {
    let declaration = |number: u32| {
        json!({
            "name": format!("vm-{number}"),
            "labels": { "app": "web", "shard": format!("s{}", number % SHARDS) },
            "network": { "pool": "lan" },
        })
    };
    json!({
        "pools": [{ "name": "lan", "subnet": "10.0.0.0/16", "gateway": "10.0.0.1" }],
        "declarations": (1..=COUNT).map(declaration).collect::<Vec<_>>(),
    })
}

/// Returns a value when each VM is as declared.
fn is_applied(rest: &RestClient) -> Option<()> {
    let expected = format!("minions_vms_configured{{configured=\"applied\"}} {COUNT}\n");
    rest.get_text("/metrics").ok()?.contains(&expected).then_some(())
}

fn report(figures: DeclaredFigures) -> BenchReport {
    let mut rows = Vec::new();
    let mut row = |what: &str, unit, ours, before: Option<RoundSeries>, aim| {
        let peer = before.map(|before| ("without declarations", before));
        let case = format!("{COUNT} declared VMs: {what}");
        rows.push(ReportRow { case, unit, ours, peer, aim: Some(aim) });
    };
    let [first, second] = figures.apply_ms;
    row("apply", FigureUnit::Milliseconds, first, None, FigureAim::AtMost(2000.0));
    row("apply again", FigureUnit::Milliseconds, second, None, FigureAim::AtMost(2000.0));
    let [all, few] = figures.query_ms;
    let queried = "by label, a tenth of them";
    row(queried, FigureUnit::Milliseconds, few, None, FigureAim::AtMost(20.0));
    row("by label, all", FigureUnit::Milliseconds, all, None, FigureAim::AtMost(20.0));
    let [before, after] = figures.rss_mb;
    row("RSS", FigureUnit::Megabytes, after, Some(before), FigureAim::RatioAtMost(1.2));
    let [before, after] = figures.idle_percent;
    row("idle", FigureUnit::PercentOfACore, after, Some(before), FigureAim::RatioAtMost(1.2));
    BenchReport { bench: "declared", rows }
}
