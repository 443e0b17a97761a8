//! minionsd with one to five thousand VMs with fake sockets, compared with itself and one VM.

use std::{fs, path::Path, thread, time::Duration};

use anyhow::Context;

use crate::{
    clients::wrk,
    figures::{
        clock::{milliseconds, timed},
        plot::{self, PlotCurve},
        report::{BenchReport, FigureAim, FigureUnit, ReportRow},
        series::RoundSeries,
    },
    programs::{MeasuredPrograms, WorkAmount, usage::ProcessUsage},
    site::{self, MeasuredDaemon},
};

const COUNTS: [u32; 4] = [1, 100, 1000, 5000];

/// Number of VMs that the aims apply to.
const AIMED_AT: u32 = 1000;

/// Time for which an idle daemon is observed: two rounds of probes of every VM.
const IDLE: Duration = Duration::from_secs(10);

/// Time for the remaining work of the start, after all VMs are ready.
const SETTLING: Duration = Duration::from_secs(2);

/// Figures of a daemon with one number of VMs.
#[derive(Debug, Default)]
struct ScaleFigures {
    ready_ms: RoundSeries,
    rss_mb: RoundSeries,
    idle_percent: RoundSeries,
    health_p50_us: RoundSeries,
}

pub(crate) fn run(
    programs: &MeasuredPrograms,
    amount: WorkAmount,
    out: &Path,
) -> anyhow::Result<BenchReport> {
    let mut figures: [ScaleFigures; COUNTS.len()] = Default::default();
    for _ in 0..amount.rounds {
        for (count, figures) in COUNTS.into_iter().zip(&mut figures) {
            measure(programs, amount, count, figures)?;
        }
    }
    let medians = |of: fn(&ScaleFigures) -> &RoundSeries| {
        figures.iter().map(|figures| of(figures).median()).collect::<Vec<f64>>()
    };
    let latency = PlotCurve {
        label: "health p50, µs",
        colour: "#1f5fa8",
        values: medians(|figures| &figures.health_p50_us),
    };
    let memory = PlotCurve {
        label: "RSS, MB",
        colour: "#b3471f",
        values: medians(|figures| &figures.rss_mb),
    };
    let picture = plot::svg("minionsd and the number of VMs", &COUNTS, &latency, &memory);
    fs::write(out.join("scale.svg"), picture).context("cannot write the plot")?;
    Ok(report(figures))
}

fn measure(
    programs: &MeasuredPrograms,
    amount: WorkAmount,
    count: u32,
    figures: &mut ScaleFigures,
) -> anyhow::Result<()> {
    let dir = site::directory()?;
    let _responder = site::responder(programs, dir.path(), count)?;
    let mut started = None;
    let ready = timed(|| {
        let daemon = started.insert(MeasuredDaemon::start(programs, dir.path())?);
        daemon.wait_until_ready(count)
    })?;
    let daemon = started.context("the daemon was not started")?;
    figures.ready_ms.push(milliseconds(ready));
    let pid = daemon.program.pid();
    let idle = if amount.is_quick { IDLE / 10 } else { IDLE };
    thread::sleep(SETTLING.min(idle));
    let before = ProcessUsage::of(pid)?;
    thread::sleep(idle);
    let after = ProcessUsage::of(pid)?;
    figures.rss_mb.push(after.rss_mb);
    let busy = after.cpu.saturating_sub(before.cpu);
    figures.idle_percent.push(100.0 * busy.as_secs_f64() / idle.as_secs_f64());
    let load = wrk::run(daemon.address, 1, Duration::from_secs(2))?;
    figures.health_p50_us.push(load.p50_us);
    Ok(())
}

fn report(figures: [ScaleFigures; COUNTS.len()]) -> BenchReport {
    let one_p50_us = figures[0].health_p50_us.clone();
    let mut rows = Vec::new();
    for (count, figures) in COUNTS.into_iter().zip(figures) {
        let aim = |most| (count == AIMED_AT).then_some(FigureAim::AtMost(most));
        let mut row = |what: &str, unit, ours, peer, aim| {
            rows.push(ReportRow { case: format!("{count} VMs: {what}"), unit, ours, peer, aim });
        };
        row("all ready", FigureUnit::Milliseconds, figures.ready_ms, None, aim(1000.0));
        row("RSS", FigureUnit::Megabytes, figures.rss_mb, None, aim(30.0));
        row("idle", FigureUnit::PercentOfACore, figures.idle_percent, None, aim(1.0));
        let peer = (count > 1).then(|| ("1 VM", one_p50_us.clone()));
        let aim = (count == AIMED_AT).then_some(FigureAim::RatioAtMost(1.1));
        row("health p50", FigureUnit::Microseconds, figures.health_p50_us, peer, aim);
    }
    BenchReport { bench: "scale", rows }
}
