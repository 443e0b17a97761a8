//! Intervals at which guests are asked for their figures, by the names of their VMs.

use super::error::ConfigError;
use minions_api::VmName;
use minions_api::VmPattern;
use serde::Deserialize;
use std::ops::RangeInclusive;
use std::time::Duration;

/// Allowed intervals. An hour of points is kept, so a longer one would leave none.
const INTERVALS: RangeInclusive<u64> = 1000..=3_600_000;

/// Default: short enough for a plot of an hour, long enough to cost a guest less than a thousandth of its processor.
const DEFAULT: Duration = Duration::from_secs(10);

/// Intervals of all VMs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SampleIntervals {
    /// Interval of VMs without a rule; `None` for no samples.
    pub default: Option<Duration>,
    /// Rules by VM name; the first match applies.
    pub rules: Vec<SampleRule>,
}

impl Default for SampleIntervals {
    fn default() -> Self {
        Self { default: Some(DEFAULT), rules: Vec::new() }
    }
}

/// Interval of some VMs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SampleRule {
    /// Names of the VMs.
    pub vms: VmPattern,
    /// Their interval; `None` for no samples.
    pub interval: Option<Duration>,
}

/// Entry of `samples` in the file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SampleEntry {
    vms: String,
    interval_ms: u64,
}

impl SampleIntervals {
    /// Returns the interval of `vm`; `None` for no samples.
    #[must_use]
    pub fn of(&self, vm: &VmName) -> Option<Duration> {
        let rule = self.rules.iter().find(|rule| rule.vms.matches(vm));
        rule.map_or(self.default, |rule| rule.interval)
    }

    /// Checks the settings of the file.
    pub(super) fn parse(
        interval_ms: Option<u64>,
        entries: Vec<SampleEntry>,
    ) -> Result<Self, ConfigError> {
        let default = match interval_ms {
            Some(ms) => interval("sample_interval_ms".to_owned(), ms)?,
            None => Some(DEFAULT),
        };
        let rules = entries.into_iter().enumerate().map(|(index, entry)| {
            let vms = entry.vms.parse().map_err(|source| ConfigError::InvalidPattern {
                field: format!("samples[{index}].vms"),
                pattern: entry.vms.clone(),
                source,
            })?;
            let field = format!("samples[{index}].interval_ms");
            Ok(SampleRule { vms, interval: interval(field, entry.interval_ms)? })
        });
        Ok(Self { default, rules: rules.collect::<Result<_, ConfigError>>()? })
    }
}

fn interval(field: String, ms: u64) -> Result<Option<Duration>, ConfigError> {
    match ms {
        0 => Ok(None),
        ms if INTERVALS.contains(&ms) => Ok(Some(Duration::from_millis(ms))),
        ms => Err(ConfigError::InvalidSampleInterval { field, ms }),
    }
}

#[cfg(test)]
mod tests {
    use crate::config::Config;

    fn seconds(file: &str, vm: &str) -> Option<u64> {
        let intervals = Config::parse(file).unwrap().samples;
        intervals.of(&vm.parse().unwrap()).map(|interval| interval.as_secs())
    }

    #[test]
    fn the_first_rule_that_matches_decides() {
        assert_eq!(seconds("", "web"), Some(10));
        assert_eq!(seconds("sample_interval_ms = 0", "web"), None);
        let rules = "sample_interval_ms = 5000\n[[samples]]\nvms = 'web-*'\ninterval_ms = 0\n\
                     [[samples]]\nvms = '*-1'\ninterval_ms = 60000";
        assert_eq!(seconds(rules, "web-1"), None);
        assert_eq!(seconds(rules, "db-1"), Some(60));
        assert_eq!(seconds(rules, "db"), Some(5));
    }

    #[test]
    fn an_invalid_setting_is_named() {
        for (file, field) in [
            ("sample_interval_ms = 999", "`sample_interval_ms`"),
            ("[[samples]]\nvms = '*'\ninterval_ms = 3600001", "`samples[0].interval_ms`"),
            ("[[samples]]\nvms = ''\ninterval_ms = 0", "`samples[0].vms`"),
        ] {
            let error = Config::parse(file).unwrap_err().to_string();
            assert!(error.contains(field), "{file}: {error}");
        }
    }
}
