//! Sum of the results that the test binaries report.

use std::fmt;

/// Reason why a run does not count as passed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Verdict {
    #[error("{0} tests failed")]
    Failed(u64),
    #[error("no test ran")]
    NothingRan,
    #[error("{0} tests were ignored, but every test must run")]
    Ignored(u64),
}

/// Sum over all test binaries.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Summary {
    passed: u64,
    failed: u64,
    ignored: u64,
}

impl Summary {
    /// Reads a line of output; only the result line of a test binary counts:
    /// `test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; …`.
    pub(crate) fn read(&mut self, line: &str) {
        let Some(result) = line.strip_prefix("test result: ") else { return };
        // The verdict ends with a dot; the counts follow it.
        let Some((_, counts)) = result.split_once(". ") else { return };
        for count in counts.split("; ") {
            let Some((number, what)) = count.split_once(' ') else { continue };
            let Ok(number) = number.parse::<u64>() else { continue };
            match what {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.ignored += number,
                _ => {}
            }
        }
    }

    /// Records how the whole run ended: a test binary that crashed or did not compile reports no failure
    /// itself, so it counts as one.
    pub(crate) fn finish(&mut self, success: bool) {
        if !success && self.failed == 0 {
            self.failed = 1;
        }
    }

    pub(crate) fn verdict(&self) -> Result<(), Verdict> {
        match *self {
            Self { failed: 1.., .. } => Err(Verdict::Failed(self.failed)),
            Self { ignored: 1.., .. } => Err(Verdict::Ignored(self.ignored)),
            Self { passed: 0, .. } => Err(Verdict::NothingRan),
            Self { .. } => Ok(()),
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.ignored)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(lines: &[&str], success: bool) -> Summary {
        let mut summary = Summary::default();
        lines.iter().for_each(|line| summary.read(line));
        summary.finish(success);
        summary
    }

    const PASSED: &str = "test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s";

    #[test]
    fn only_result_lines_are_added_up() {
        let failed = "test result: FAILED. 1 passed; 2 failed; 1 ignored; 0 measured; 9 filtered out; finished in 1s";
        let summary = after(&[PASSED, "test a ... ok", "7 passed; 7 failed", failed], false);
        assert_eq!(summary.to_string(), "4 passed, 2 failed, 1 skipped");
        assert_eq!(summary.verdict(), Err(Verdict::Failed(2)));
    }

    #[test]
    fn a_run_without_a_test_does_not_pass() {
        assert_eq!(after(&[], true).verdict(), Err(Verdict::NothingRan));
    }

    #[test]
    fn a_run_with_an_ignored_test_does_not_pass() {
        let ignored = "test result: ok. 1 passed; 0 failed; 2 ignored; 0 measured; 0 filtered out";
        assert_eq!(after(&[ignored], true).verdict(), Err(Verdict::Ignored(2)));
    }

    #[test]
    fn a_test_binary_that_crashed_counts_as_a_failure() {
        assert_eq!(after(&[PASSED], false).verdict(), Err(Verdict::Failed(1)));
        assert_eq!(after(&[PASSED], true).verdict(), Ok(()));
    }
}
