//! Counts of the results on many VMs, with their summary and exit code.

use crate::exit::ExitStatus;
use minions_api::ErrorCode;
use minions_api::exec::{ManyExecEvent, Outcome};
use std::collections::BTreeMap;

/// Kind of result on one VM, in the order of the summary.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum ResultKind {
    Ok,
    Exit(i32),
    Signal(i32),
    TimedOut,
    Problem(String),
    Skipped,
}

/// Counts of the results.
#[derive(Debug, Default)]
pub(super) struct ResultTally {
    ends: BTreeMap<ResultKind, u64>,
    /// The highest exit code of a program.
    worst: i32,
    /// A program could not be run, or was lost: worse than any exit code of a program.
    ours: bool,
}

impl ResultTally {
    pub(super) fn count(&mut self, event: &ManyExecEvent) {
        let end = match event {
            ManyExecEvent::Result { result, .. } => {
                self.code(result.exit_code);
                match (&result.outcome, result.exit_code) {
                    (Some(Outcome::TimedOut), _) => ResultKind::TimedOut,
                    (Some(Outcome::Signaled { signal, .. }), _) => ResultKind::Signal(*signal),
                    (_, 0) => ResultKind::Ok,
                    (_, code) => ResultKind::Exit(code),
                }
            }
            ManyExecEvent::Problem { problem, .. } => {
                self.code(i32::from(ExitStatus::of_exec(problem.code).code()));
                ResultKind::Problem(short(problem.code))
            }
            ManyExecEvent::Skipped { .. } => {
                self.ours = true;
                ResultKind::Skipped
            }
            ManyExecEvent::Heartbeat | ManyExecEvent::Summary(_) => return,
        };
        *self.ends.entry(end).or_default() += 1;
    }

    fn code(&mut self, code: i32) {
        // An exit code outside 0 to 255 counts as a failure of minions too.
        self.ours |= ExitStatus::remote(code).code() == ExitStatus::Ours.code();
        self.worst = self.worst.max(code);
    }

    /// Formats the counts as `50 VMs: 48 ok, 1 exit 3, 1 unreachable`.
    pub(super) fn summary(&self) -> String {
        let total: u64 = self.ends.values().sum();
        let vms = if total == 1 { "VM" } else { "VMs" };
        let ends = self.ends.iter().map(|(end, count)| match end {
            ResultKind::Ok => format!("{count} ok"),
            ResultKind::Exit(code) => format!("{count} exit {code}"),
            ResultKind::Signal(signal) => format!("{count} signal {signal}"),
            ResultKind::TimedOut => format!("{count} timed out"),
            ResultKind::Problem(what) => format!("{count} {what}"),
            ResultKind::Skipped => format!("{count} skipped"),
        });
        let ends = ends.collect::<Vec<_>>().join(", ");
        if ends.is_empty() { format!("{total} {vms}") } else { format!("{total} {vms}: {ends}") }
    }

    pub(super) fn exit_status(&self) -> ExitStatus {
        if self.ours || self.ends.is_empty() {
            return ExitStatus::Ours;
        }
        ExitStatus::remote(self.worst)
    }
}

fn short(code: ErrorCode) -> String {
    match code {
        ErrorCode::AgentUnreachable => "unreachable".into(),
        code => code.as_str().replace('_', " "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use minions_api::Problem;
    use serde_json::json;

    fn ran(code: i32, outcome: &serde_json::Value) -> ManyExecEvent {
        let result = json!({
            "status": "ok", "exit_code": code, "stdout": "", "stderr": "", "outcome": outcome,
        });
        serde_json::from_value(json!({ "type": "result", "vm": "a", "result": result })).unwrap()
    }

    fn exited(code: i32) -> ManyExecEvent {
        ran(code, &json!({ "type": "exited", "code": code }))
    }

    fn problem(code: ErrorCode) -> ManyExecEvent {
        ManyExecEvent::Problem {
            vm: "a".parse().unwrap(),
            outcome: Outcome::Lost { reason: String::new() },
            problem: Box::new(Problem::new(code, "")),
        }
    }

    fn tally(events: &[ManyExecEvent]) -> (String, u8) {
        let mut tally = ResultTally::default();
        events.iter().for_each(|event| tally.count(event));
        (tally.summary(), tally.exit_status().code())
    }

    #[test]
    fn the_worst_result_determines_the_exit_code() {
        assert_eq!(tally(&[exited(0), exited(0)]), ("2 VMs: 2 ok".into(), 0));
        assert_eq!(tally(&[exited(0), exited(3), exited(1)]).1, 3);
        let killed = ran(137, &json!({ "type": "signaled", "signal": 9, "core": false }));
        let late = ran(124, &json!({ "type": "timed_out" }));
        assert_eq!(
            tally(&[killed.clone(), late, exited(0)]),
            ("3 VMs: 1 ok, 1 signal 9, 1 timed out".into(), 137)
        );
        assert_eq!(
            tally(&[killed, problem(ErrorCode::AgentUnreachable), exited(3), exited(0)]),
            ("4 VMs: 1 ok, 1 exit 3, 1 signal 9, 1 unreachable".into(), 125)
        );
        assert_eq!(
            tally(&[problem(ErrorCode::CommandNotFound), exited(0)]),
            ("2 VMs: 1 ok, 1 command not found".into(), 127)
        );
    }

    #[test]
    fn a_program_that_never_ran_is_not_a_success() {
        let skipped = ManyExecEvent::Skipped { vm: "a".parse().unwrap() };
        assert_eq!(tally(&[exited(0), skipped]), ("2 VMs: 1 ok, 1 skipped".into(), 125));
        assert_eq!(tally(&[exited(-1)]).1, 125);
        assert_eq!(tally(&[]).1, 125);
    }
}
