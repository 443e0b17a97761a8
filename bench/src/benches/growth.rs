//! Growth of minionsd and the agent during transfers.

use crate::{
    figures::report::{FigureAim, FigureUnit, ReportRow},
    programs::usage::ProcessUsage,
};

/// Allowed growth of each program, in megabytes.
const FLAT_MB: f64 = 8.0;

/// Largest growth so far of the resident memory of minionsd and the agent, without the programs that the agent runs.
#[derive(Debug)]
pub(super) struct MemoryGrowth {
    pids: [u32; 2],
    before: [f64; 2],
    grown: [f64; 2],
}

impl MemoryGrowth {
    /// Begins with the present size of minionsd and the agent.
    pub(super) fn begin(daemon: u32, agent: u32) -> anyhow::Result<Self> {
        let pids = [daemon, agent];
        Ok(Self { pids, before: rss_mb(pids)?, grown: [0.0; 2] })
    }

    /// Measures the programs after a round.
    pub(super) fn measure(&mut self) -> anyhow::Result<()> {
        let now = rss_mb(self.pids)?;
        for (most, (now, before)) in self.grown.iter_mut().zip(now.into_iter().zip(self.before)) {
            *most = f64::max(*most, now - before);
        }
        Ok(())
    }

    /// Returns a row for each program.
    pub(super) fn rows(self) -> impl Iterator<Item = ReportRow> {
        ["minionsd", "agent"].into_iter().zip(self.grown).map(|(name, grown)| ReportRow {
            case: format!("{name} grows by"),
            unit: FigureUnit::Megabytes,
            ours: [grown].into_iter().collect(),
            peer: None,
            aim: Some(FigureAim::AtMost(FLAT_MB)),
        })
    }
}

fn rss_mb(pids: [u32; 2]) -> anyhow::Result<[f64; 2]> {
    let [daemon, agent] = pids;
    Ok([ProcessUsage::alone(daemon)?.rss_mb, ProcessUsage::alone(agent)?.rss_mb])
}
