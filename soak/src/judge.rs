//! Checks of answers.

use crate::member::{CallStart, VmModel};
use crate::orders::ExecutionClaim;
use crate::state::SoakState;
use serde_json::Value;

/// Answer that was read to its end.
#[derive(Debug)]
pub(super) struct HttpAnswer {
    pub(super) status: u16,
    pub(super) json: Value,
}

/// Problem codes that a VM may cause, with their status.
const FAILURES: [(u16, &str); 8] = [
    (404, "vm_not_found"),
    (502, "agent_error"),
    (502, "agent_protocol_error"),
    (502, "connection_lost"),
    (503, "agent_unreachable"),
    (503, "overloaded"),
    (504, "agent_timeout"),
    (410, "exec_gone"),
];

impl SoakState {
    /// Reports whether the answer is a 200. Any other answer must be a valid problem, about a VM that may fail.
    pub(super) fn is_ok(
        &self,
        what: &str,
        vm: &VmModel,
        before: &CallStart,
        answer: &HttpAnswer,
    ) -> bool {
        if answer.status == 200 {
            self.journal.answer(&format!("{what} 200"));
            return true;
        }
        let code = answer.json["code"].as_str().unwrap_or_default();
        self.journal.answer(&format!("{what} {} {code}", answer.status));
        if !FAILURES.contains(&(answer.status, code)) {
            self.wrong(what, vm, "is no failure that a VM can cause", answer);
        } else if code == "vm_not_found" && !vm.may_have_been_gone(before.at) {
            self.wrong(what, vm, "is reported for a VM whose VMM runs", answer);
        } else if answer.json["vm"] != vm.name.as_str() {
            self.wrong(what, vm, "is about another VM", answer);
        } else if vm.was_calm(before) {
            self.wrong(what, vm, "failed, although the VM has no fault", answer);
        }
        false
    }

    /// Checks an answer to health or status: it must be from this VM, from a life that may answer, and newer than the
    /// call.
    pub(super) fn judge_vitals(
        &self,
        what: &str,
        vm: &VmModel,
        before: &CallStart,
        answer: &HttpAnswer,
    ) {
        if !self.is_ok(what, vm, before, answer) {
            return;
        }
        let json = &answer.json;
        if json.get("hostname").is_some_and(|hostname| *hostname != vm.name.as_str()) {
            self.wrong(what, vm, "is another VM's", answer);
        }
        let number = json["uptime_secs"].as_u64().unwrap_or(0);
        if number <= before.answers || number > vm.guest().answers() {
            self.wrong(what, vm, &format!("is not newer than answer {}", before.answers), answer);
        }
        if let Some(instance) = json["agent"]["instance_id"].as_str() {
            let life = instance.rsplit(' ').next().and_then(|life| life.parse().ok());
            if !life.is_some_and(|life| vm.may_answer(life, before)) {
                self.wrong(what, vm, "is from a life that may not answer", answer);
            }
        }
    }

    /// Checks the output of a program: it must be from this VM, from a life that may answer, and for this order.
    pub(super) fn judge_output(&self, vm: &VmModel, before: &CallStart, order: u64, output: &str) {
        let words: Vec<_> = output.split_whitespace().collect();
        let right = match words.as_slice() {
            [name, life, number] => {
                *name == vm.name
                    && *number == order.to_string()
                    && life.parse().is_ok_and(|life| vm.may_answer(life, before))
            }
            _ => false,
        };
        if !right {
            let text = format!("{}: order {order} wrote {output:?}: {before:?}", vm.name);
            self.journal.violation(text);
        }
    }

    /// Checks the answer to the caller of a program, and returns what it says about the execution.
    pub(super) fn told(
        &self,
        what: &str,
        vm: &VmModel,
        before: &CallStart,
        order: u64,
        answer: &HttpAnswer,
    ) -> ExecutionClaim {
        if self.is_ok(what, vm, before, answer) {
            self.judge_output(vm, before, order, answer.json["stdout"].as_str().unwrap_or(""));
            return ExecutionClaim::Ran;
        }
        told_by_problem(&answer.json)
    }

    pub(super) fn wrong(&self, what: &str, vm: &VmModel, why: &str, answer: &HttpAnswer) {
        let HttpAnswer { status, json } = answer;
        self.journal.violation(format!("{}: {what} {status} {why}: {json}", vm.name));
    }
}

/// Returns what a problem says about the execution.
pub(super) fn told_by_problem(problem: &Value) -> ExecutionClaim {
    match problem["may_have_executed"].as_bool() {
        Some(false) => ExecutionClaim::Not,
        _ => ExecutionClaim::Perhaps,
    }
}
