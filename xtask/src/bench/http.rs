//! Health of one VM over keep-alive connections, compared with nginx as a proxy for the same answer.
//!
//! ```text
//!  wrk ──TCP──▶ minionsd ──hybrid socket──▶ responder
//!      ──TCP──▶ nginx ─────Unix socket────▶ nginx, with the answer in its configuration
//! ```

use std::{net::SocketAddr, os::unix::net::UnixStream, time::Duration};

use super::{
    Options, Programs,
    clock::p50,
    measure::Series,
    nginx::Nginx,
    process::Usage,
    report::{Aim, Report, Row, Unit},
    site::{self, Daemon},
    talk, wrk,
};

const PATH: &str = "/vms/vm-1/health";

/// Direct exchanges with the responder in each round. A request through a proxy takes at least two such hops.
const HOPS: u32 = 2000;

/// Figures of one server.
#[derive(Debug, Default)]
struct Figures {
    one_p50_us: Series,
    many_per_second: Series,
    many_cpu_us: Series,
}

pub(crate) fn run(programs: &Programs, options: &Options) -> anyhow::Result<Report> {
    let dir = site::directory()?;
    let _responder = site::responder(programs, dir.path(), 1)?;
    let daemon = Daemon::ready(programs, dir.path())?;
    let nginx = Nginx::start(dir.path())?;
    let (mut ours, mut theirs) = (Figures::default(), Figures::default());
    let mut bare = talk::handshake(UnixStream::connect(site::vm_socket(dir.path()))?)?;
    let mut hops_us = Series::default();
    let duration = Duration::from_secs(if options.quick { 1 } else { 3 });
    for _ in 0..options.rounds {
        hops_us.push(2.0 * p50(HOPS, || talk::ask_health(&mut bare))?);
        for connections in [1, 32] {
            ours.load(daemon.address, daemon.program.pid(), connections, duration)?;
            theirs.load(nginx.address(), nginx.pid(), connections, duration)?;
        }
    }
    Ok(report(ours, theirs, hops_us))
}

impl Figures {
    fn load(
        &mut self,
        address: SocketAddr,
        pid: u32,
        connections: u32,
        duration: Duration,
    ) -> anyhow::Result<()> {
        let before = Usage::of(pid)?;
        let load = wrk::run(address, PATH, connections, duration)?;
        let cpu = Usage::of(pid)?.cpu.saturating_sub(before.cpu);
        if connections == 1 {
            self.one_p50_us.push(load.p50_us);
        } else {
            self.many_per_second.push(load.requests_per_second);
            self.many_cpu_us.push(cpu.as_secs_f64() * 1e6 / load.requests);
        }
        Ok(())
    }
}

fn report(ours: Figures, theirs: Figures, hops_us: Series) -> Report {
    let row = |case: &str, unit, ours, theirs, aim| Row {
        case: case.into(),
        unit,
        ours,
        peer: Some(("nginx", theirs)),
        aim,
    };
    let rows = vec![
        row(
            "32 connections",
            Unit::RequestsPerSecond,
            ours.many_per_second,
            theirs.many_per_second,
            Some(Aim::RatioAtLeast(1.25)),
        ),
        row(
            "1 connection, p50",
            Unit::Microseconds,
            ours.one_p50_us.clone(),
            theirs.one_p50_us,
            Some(Aim::RatioAtMost(0.6)),
        ),
        Row {
            case: "1 connection, p50".into(),
            unit: Unit::Microseconds,
            ours: ours.one_p50_us,
            peer: Some(("two bare hops", hops_us)),
            aim: None,
        },
        row(
            "32 connections, CPU per request",
            Unit::Microseconds,
            ours.many_cpu_us,
            theirs.many_cpu_us,
            None,
        ),
    ];
    Report { bench: "http", rows }
}
