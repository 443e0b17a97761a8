//! Sum of the results that the test binaries report, and what their failures said.

use std::fmt;

/// Number of failures that are repeated at the end.
const REPEATED: usize = 20;

/// Lines of one failure that are repeated, and their length in bytes.
const FAILURE_LINES: usize = 6;
const FAILURE_LINE: usize = 500;

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
    failures: Vec<TestFailure>,
    /// True between the message of a failure and its backtrace.
    in_message: bool,
}

/// Test that panicked, with the place and the first lines of its message.
#[derive(Debug, PartialEq, Eq)]
struct TestFailure {
    test: String,
    said: Vec<String>,
}

impl TestFailure {
    fn add(&mut self, line: &str) {
        if self.said.len() < FAILURE_LINES {
            self.said.push(line[..line.floor_char_boundary(FAILURE_LINE)].to_owned());
        }
    }
}

impl Summary {
    /// Reads a line of output: of a failed test (`---- net::works stdout ----`, then `thread 'net::works' panicked at …:`
    /// and the message), or the result line of a test binary:
    /// `test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; …`.
    pub(crate) fn read(&mut self, line: &str) {
        self.read_failure(line);
        self.read_result(line);
    }

    fn read_failure(&mut self, line: &str) {
        let heading = line.strip_prefix("---- ").and_then(|line| line.strip_suffix(" stdout ----"));
        if let Some(test) = heading {
            self.failures.push(TestFailure { test: test.to_owned(), said: Vec::new() });
            self.in_message = false;
        }
        let Some(failure) = self.failures.last_mut() else { return };
        let place = line.strip_prefix("thread '").and_then(|line| line.split_once(" panicked at "));
        if let Some((_, place)) = place {
            failure.add(place);
            self.in_message = true;
        } else if line.is_empty() || line == "stack backtrace:" || line.starts_with("note: ") {
            self.in_message = false;
        } else if self.in_message {
            failure.add(line);
        }
    }

    /// Returns what the first failed tests said, for the end of a run whose output is long.
    pub(crate) fn failures(&self) -> impl Iterator<Item = String> {
        self.failures.iter().take(REPEATED).map(|failure| {
            let TestFailure { test, said } = failure;
            format!("{test}: {}", said.join("\n    "))
        })
    }

    fn read_result(&mut self, line: &str) {
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
    fn the_message_of_each_failed_test_is_repeated_without_its_backtrace() {
        let output = "test a ... ok\n---- net::works stdout ----\nsent 3\n\n\
            thread 'net::works' (17) panicked at src/net.rs:3:5:\n\
            assertion `left == right` failed\n  left: 1\n right: 2\nstack backtrace:\n   0: main\n\
            ---- net::ends stdout ----\nthread 'tokio' panicked at src/a.rs:1:1:\nlost\nnote: run\n\n\
            failures:\n    net::works";
        let lines: Vec<_> = output.lines().collect();
        let summary = after(&lines, false);
        let works = "net::works: src/net.rs:3:5:\n    assertion `left == right` failed\n      \
            left: 1\n     right: 2";
        let shown: Vec<_> = summary.failures().collect();
        assert_eq!(shown, [works, "net::ends: src/a.rs:1:1:\n    lost"]);
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
