//! Results of a benchmark, as a table for readers and as JSON for programs.

use std::fmt::Write;

use serde_json::{Value, json};

use super::series::RoundSeries;

/// Unit of a row's figures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FigureUnit {
    RequestsPerSecond,
    Microseconds,
    Milliseconds,
    MegabytesPerSecond,
    Megabytes,
    PercentOfACore,
}

/// Target value of a row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum FigureAim {
    /// Upper limit of our figure divided by the peer's.
    RatioAtMost(f64),
    /// Lower limit of our figure divided by the peer's.
    RatioAtLeast(f64),
    /// Upper limit of our figure.
    AtMost(f64),
}

/// Comparison of our figure with a peer's.
#[derive(Debug)]
pub(crate) struct ReportRow {
    pub(crate) case: String,
    pub(crate) unit: FigureUnit,
    pub(crate) ours: RoundSeries,
    /// Name of the peer, and its figures of the same rounds.
    pub(crate) peer: Option<(&'static str, RoundSeries)>,
    pub(crate) aim: Option<FigureAim>,
}

/// Result of one benchmark.
#[derive(Debug)]
pub(crate) struct BenchReport {
    pub(crate) bench: &'static str,
    pub(crate) rows: Vec<ReportRow>,
}

impl FigureUnit {
    fn as_str(self) -> &'static str {
        match self {
            Self::RequestsPerSecond => "req/s",
            Self::Microseconds => "µs",
            Self::Milliseconds => "ms",
            Self::MegabytesPerSecond => "MB/s",
            Self::Megabytes => "MB",
            Self::PercentOfACore => "% of a core",
        }
    }
}

impl FigureAim {
    fn is_met(self, ours: f64, ratio: Option<f64>) -> bool {
        match self {
            Self::RatioAtMost(most) => ratio.is_some_and(|ratio| ratio <= most),
            Self::RatioAtLeast(least) => ratio.is_some_and(|ratio| ratio >= least),
            Self::AtMost(most) => ours <= most,
        }
    }

    fn to_text(self, unit: FigureUnit) -> String {
        match self {
            Self::RatioAtMost(most) => format!("≤ {most} ×"),
            Self::RatioAtLeast(least) => format!("≥ {least} ×"),
            Self::AtMost(most) => format!("≤ {most} {}", unit.as_str()),
        }
    }
}

impl ReportRow {
    /// Returns our figure divided by the peer's, for each round.
    fn ratio(&self) -> Option<RoundSeries> {
        self.peer.as_ref().map(|(_, theirs)| self.ours.over(theirs))
    }

    fn is_met(&self) -> Option<bool> {
        let ratio = self.ratio().map(|ratio| ratio.median());
        self.aim.map(|aim| aim.is_met(self.ours.median(), ratio))
    }

    fn to_json(&self) -> Value {
        let peer = self.peer.as_ref();
        json!({
            "case": self.case,
            "unit": self.unit.as_str(),
            "ours": self.ours.to_json(),
            "peer": peer.map(|(name, theirs)| json!({ "name": name, "figures": theirs.to_json() })),
            "ratio": self.ratio().map(|ratio| ratio.to_json()),
            "aim": self.aim.map(|aim| aim.to_text(self.unit)),
            "met": self.is_met(),
        })
    }

    fn to_cells(&self) -> [String; 7] {
        let figure = |series: &RoundSeries| {
            format!("{} ±{:.0} %", rounded(series.median()), series.spread() * 100.0)
        };
        let met = match self.is_met() {
            None => "",
            Some(true) => "met",
            Some(false) => "**missed**",
        };
        [
            self.case.clone(),
            self.unit.as_str().to_owned(),
            figure(&self.ours),
            self.peer
                .as_ref()
                .map_or_else(String::new, |(name, theirs)| format!("{name} {}", figure(theirs))),
            self.ratio().map_or_else(String::new, |ratio| format!("{:.2}", ratio.median())),
            self.aim.map_or_else(String::new, |aim| aim.to_text(self.unit)),
            met.to_owned(),
        ]
    }
}

impl BenchReport {
    pub(crate) fn to_json(&self) -> Value {
        json!({
            "bench": self.bench,
            "rows": self.rows.iter().map(ReportRow::to_json).collect::<Vec<_>>(),
        })
    }

    /// Returns a Markdown table, aligned so that it is readable without rendering.
    pub(crate) fn to_table(&self) -> String {
        let head = [self.bench, "unit", "minions", "peer", "ratio", "aim", ""].map(str::to_owned);
        let mut lines = vec![head];
        lines.extend(self.rows.iter().map(ReportRow::to_cells));
        let width = |column: usize| {
            lines.iter().map(|cells| cells[column].chars().count()).max().unwrap_or_default()
        };
        let widths: [usize; 7] = std::array::from_fn(width);
        let mut table = String::new();
        for (number, cells) in lines.iter().enumerate() {
            for (cell, width) in cells.iter().zip(widths) {
                // Writing to a string does not fail.
                let _ = write!(table, "| {cell:width$} ");
            }
            table.push_str("|\n");
            if number == 0 {
                let rule = widths.map(|width| format!("|{:-<1$}", "", width + 2));
                let _ = writeln!(table, "{}|", rule.concat());
            }
        }
        table
    }
}

/// Rounds to three significant digits, but keeps all digits before the decimal point.
fn rounded(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(ours: &[f64], theirs: &[f64], aim: FigureAim) -> ReportRow {
        ReportRow {
            case: "one".into(),
            unit: FigureUnit::Microseconds,
            ours: ours.iter().copied().collect(),
            peer: Some(("peer", theirs.iter().copied().collect())),
            aim: Some(aim),
        }
    }

    #[test]
    fn an_aim_is_met_at_its_limit_and_not_beyond() {
        let met = |ours, aim| row(&[ours], &[10.0], aim).is_met();
        assert_eq!(met(6.0, FigureAim::RatioAtMost(0.6)), Some(true));
        assert_eq!(met(6.1, FigureAim::RatioAtMost(0.6)), Some(false));
        assert_eq!(met(12.5, FigureAim::RatioAtLeast(1.25)), Some(true));
        assert_eq!(met(12.4, FigureAim::RatioAtLeast(1.25)), Some(false));
        assert_eq!(met(3.0, FigureAim::AtMost(3.0)), Some(true));
        assert_eq!(met(3.1, FigureAim::AtMost(3.0)), Some(false));
    }

    #[test]
    fn an_aim_without_figures_is_not_met() {
        assert_eq!(row(&[], &[], FigureAim::RatioAtMost(1.0)).is_met(), Some(false));
        assert_eq!(row(&[], &[], FigureAim::RatioAtLeast(1.0)).is_met(), Some(false));
        assert_eq!(row(&[], &[], FigureAim::AtMost(1.0)).is_met(), Some(false));
    }

    #[test]
    fn the_ratio_is_the_median_over_rounds_not_the_ratio_of_medians() {
        // Both medians are 20, but in most rounds our time was twice the peer's.
        let row = row(&[20.0, 40.0, 10.0], &[10.0, 20.0, 30.0], FigureAim::RatioAtMost(1.0));
        assert_eq!(row.to_json()["ratio"]["median"], 2.0);
        assert_eq!(row.to_json()["met"], false);
    }

    #[test]
    fn a_table_is_markdown_with_aligned_columns() {
        let rows = vec![row(&[12.34], &[100.0], FigureAim::RatioAtMost(0.6))];
        let table = BenchReport { bench: "http", rows }.to_table();
        let expected = "\
| http | unit | minions   | peer          | ratio | aim     |     |
|------|------|-----------|---------------|-------|---------|-----|
| one  | µs   | 12.3 ±0 % | peer 100 ±0 % | 0.12  | ≤ 0.6 × | met |
";
        assert_eq!(table, expected);
    }

    #[test]
    fn missed_aims_are_in_bold() {
        let report = BenchReport {
            bench: "x",
            rows: vec![row(&[2.0], &[1.0], FigureAim::RatioAtMost(1.0))],
        };
        assert!(report.to_table().contains("| **missed** |"));
    }
}
