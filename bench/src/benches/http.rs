//! Health of one VM over keep-alive connections, compared with nginx as a proxy for the same answer.
//!
//! ```text
//!  wrk ──TCP──▶ minionsd ──hybrid socket──▶ responder
//!      ──TCP──▶ nginx ─────Unix socket────▶ nginx, with the answer in its configuration
//! ```

use std::{net::SocketAddr, os::unix::net::UnixStream, time::Duration};

use crate::{
    clients::{wire::WireClient, wrk},
    contenders::nginx::NginxPair,
    figures::{
        clock::p50,
        report::{BenchReport, FigureAim, FigureUnit, ReportRow},
        series::RoundSeries,
    },
    programs::{
        Effort, MeasuredPrograms,
        site::{self, MeasuredDaemon},
        usage::ProcessUsage,
    },
};

const PATH: &str = "/vms/vm-1/health";

/// Direct exchanges with the responder in each round. A request through a proxy takes at least two such hops.
const HOPS: u32 = 2000;

/// Figures of one server.
#[derive(Debug, Default)]
struct ServerFigures {
    one_p50_us: RoundSeries,
    many_per_second: RoundSeries,
    many_cpu_us: RoundSeries,
}

pub(crate) fn run(programs: &MeasuredPrograms, effort: Effort) -> anyhow::Result<BenchReport> {
    let dir = site::directory()?;
    let _responder = site::responder(programs, dir.path(), 1)?;
    let daemon = MeasuredDaemon::ready(programs, dir.path())?;
    let nginx = NginxPair::start(dir.path())?;
    let (mut ours, mut theirs) = (ServerFigures::default(), ServerFigures::default());
    let mut bare = WireClient::handshake(UnixStream::connect(site::vm_socket(dir.path()))?)?;
    let mut hops_us = RoundSeries::default();
    let duration = Duration::from_secs(if effort.is_quick { 1 } else { 3 });
    for _ in 0..effort.rounds {
        hops_us.push(2.0 * p50(HOPS, || bare.ask_health())?);
        for connections in [1, 32] {
            ours.load(daemon.address, daemon.program.pid(), connections, duration)?;
            theirs.load(nginx.address(), nginx.pid(), connections, duration)?;
        }
    }
    Ok(report(ours, theirs, hops_us))
}

impl ServerFigures {
    fn load(
        &mut self,
        address: SocketAddr,
        pid: u32,
        connections: u32,
        duration: Duration,
    ) -> anyhow::Result<()> {
        let before = ProcessUsage::of(pid)?;
        let load = wrk::run(address, PATH, connections, duration)?;
        let cpu = ProcessUsage::of(pid)?.cpu.saturating_sub(before.cpu);
        if connections == 1 {
            self.one_p50_us.push(load.p50_us);
        } else {
            self.many_per_second.push(load.requests_per_second);
            self.many_cpu_us.push(cpu.as_secs_f64() * 1e6 / load.requests);
        }
        Ok(())
    }
}

fn report(ours: ServerFigures, theirs: ServerFigures, hops_us: RoundSeries) -> BenchReport {
    let row = |case: &str, unit, ours, theirs, aim| ReportRow {
        case: case.into(),
        unit,
        ours,
        peer: Some(("nginx", theirs)),
        aim,
    };
    let rows = vec![
        row(
            "32 connections",
            FigureUnit::RequestsPerSecond,
            ours.many_per_second,
            theirs.many_per_second,
            Some(FigureAim::RatioAtLeast(1.25)),
        ),
        row(
            "1 connection, p50",
            FigureUnit::Microseconds,
            ours.one_p50_us.clone(),
            theirs.one_p50_us,
            Some(FigureAim::RatioAtMost(0.6)),
        ),
        ReportRow {
            case: "1 connection, p50".into(),
            unit: FigureUnit::Microseconds,
            ours: ours.one_p50_us,
            peer: Some(("two bare hops", hops_us)),
            aim: None,
        },
        row(
            "32 connections, CPU per request",
            FigureUnit::Microseconds,
            ours.many_cpu_us,
            theirs.many_cpu_us,
            None,
        ),
    ];
    BenchReport { bench: "http", rows }
}
