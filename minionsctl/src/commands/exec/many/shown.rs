//! Printing the outputs of many VMs: each line after the name of its VM, or each different output once.
//!
//! A pipe gets the bytes unchanged. On a terminal control characters are escaped: otherwise the output of one guest
//! could overwrite the names of others.

use crate::failure::Failure;
use crate::local::terminal::output_is_terminal;
use crate::output::{Printer, harmless_line, write_to};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use minions_api::VmName;
use minions_api::exec::{ExecResult, ManyExecEvent};
use minions_proto::channel::OutputStream::{self, Stderr, Stdout};

/// Form of printed output: unchanged, or with control characters escaped.
#[derive(Debug)]
pub(super) struct OutputForm {
    harmless: bool,
}

impl OutputForm {
    /// Returns the form for standard output: escaped if it is a terminal.
    pub(super) fn of_ours() -> Self {
        Self { harmless: output_is_terminal() }
    }

    fn line(&self, line: &[u8]) -> Vec<u8> {
        if self.harmless {
            harmless_line(&String::from_utf8_lossy(line)).into_bytes()
        } else {
            line.to_vec()
        }
    }

    /// Puts `prefix` before each line, and completes the last line with a newline.
    fn lines(&self, prefix: &str, output: &[u8]) -> Vec<u8> {
        let mut shown = Vec::with_capacity(output.len() + prefix.len() + 1);
        for line in output.split_inclusive(|byte| *byte == b'\n') {
            shown.extend_from_slice(prefix.as_bytes());
            shown.extend(self.line(line.strip_suffix(b"\n").unwrap_or(line)));
            shown.push(b'\n');
        }
        shown
    }
}

/// Prints the result or the problem of one VM.
pub(super) fn show(
    printer: &Printer,
    look: &OutputForm,
    event: &ManyExecEvent,
) -> Result<(), Failure> {
    match event {
        ManyExecEvent::Result { vm, result } => {
            let prefix = format!("{vm} | ");
            for (stream, output) in [(Stdout, stdout(result)), (Stderr, stderr(result))] {
                write_to(stream, &look.lines(&prefix, &output)).map_err(Failure::Output)?;
            }
            if is_cut(result) {
                printer.remark(&format!(
                    "{vm}: the output was too long and is truncated in the middle"
                ));
            }
        }
        ManyExecEvent::Problem { vm, problem, .. } => {
            printer.remark(&format!("{vm}: {}", problem.detail));
        }
        ManyExecEvent::Skipped { .. } | ManyExecEvent::Heartbeat | ManyExecEvent::Summary(_) => {}
    }
    Ok(())
}

/// Result that VMs of one group have in common.
#[derive(Debug, PartialEq, Eq)]
struct CommonResult {
    /// Description of the end, such as `exit 3`, or of the problem.
    end: String,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

/// Groups of VMs with equal results, in order of arrival.
#[derive(Debug, Default)]
pub(super) struct ResultGroups {
    groups: Vec<(CommonResult, Vec<VmName>)>,
}

impl ResultGroups {
    pub(super) fn add(&mut self, event: ManyExecEvent) {
        let (vm, same) = match event {
            ManyExecEvent::Result { vm, result } => {
                let cut = if is_cut(&result) { ", output truncated in the middle" } else { "" };
                let end = match result.exit_code {
                    0 => format!("ok{cut}"),
                    code => format!("exit {code}{cut}"),
                };
                (vm, CommonResult { end, stdout: stdout(&result), stderr: stderr(&result) })
            }
            ManyExecEvent::Problem { vm, problem, .. } => {
                (vm, CommonResult { end: problem.detail, stdout: Vec::new(), stderr: Vec::new() })
            }
            ManyExecEvent::Skipped { .. }
            | ManyExecEvent::Heartbeat
            | ManyExecEvent::Summary(_) => return,
        };
        match self.groups.iter_mut().find(|(known, _)| *known == same) {
            Some((_, vms)) => vms.push(vm),
            None => self.groups.push((same, vec![vm])),
        }
    }

    /// Prints the groups, the largest one last: it is the most visible position on a terminal.
    pub(super) fn show(mut self, printer: &Printer, look: &OutputForm) -> Result<(), Failure> {
        self.groups.sort_by_key(|(_, vms)| vms.len());
        for (same, vms) in &mut self.groups {
            vms.sort();
            printer.heading(&heading(same, vms))?;
            for (stream, output) in [(Stdout, &same.stdout), (Stderr, &same.stderr)] {
                write_to(stream, &look.lines("", output)).map_err(Failure::Output)?;
            }
        }
        Ok(())
    }
}

fn heading(same: &CommonResult, vms: &[VmName]) -> String {
    let names: Vec<String> = vms.iter().map(ToString::to_string).collect();
    format!("== {} ({}): {}", names.join(" "), vms.len(), same.end)
}

fn is_cut(result: &ExecResult) -> bool {
    result.stdout_truncated == Some(true) || result.stderr_truncated == Some(true)
}

fn stdout(result: &ExecResult) -> Vec<u8> {
    bytes(result, Stdout)
}

fn stderr(result: &ExecResult) -> Vec<u8> {
    bytes(result, Stderr)
}

/// Returns the base64-decoded bytes if there are any, otherwise the text.
fn bytes(result: &ExecResult, stream: OutputStream) -> Vec<u8> {
    let (text, base64) = match stream {
        Stdout => (&result.stdout, &result.stdout_base64),
        Stderr => (&result.stderr, &result.stderr_base64),
    };
    let decoded = base64.as_ref().and_then(|base64| BASE64_STANDARD.decode(base64).ok());
    decoded.unwrap_or_else(|| text.clone().into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn ran(vm: &str, code: i32, stdout: &str) -> ManyExecEvent {
        let result = json!({ "status": "ok", "exit_code": code, "stdout": stdout, "stderr": "" });
        serde_json::from_value(json!({ "type": "result", "vm": vm, "result": result })).unwrap()
    }

    #[test]
    fn every_line_is_prefixed_with_its_vm() {
        let look = OutputForm { harmless: false };
        assert_eq!(look.lines("a | ", b"1\n2\x1b"), b"a | 1\na | 2\x1b\n");
        assert_eq!(look.lines("a | ", b""), b"");
        assert_eq!(look.lines("a | ", b"\n\n"), b"a | \na | \n");
    }

    #[test]
    fn on_a_terminal_no_guest_can_overwrite_another_name() {
        let look = OutputForm { harmless: true };
        assert_eq!(look.lines("a | ", b"x\r\tb | y\x1b[A\n"), b"a | x\\u{d}\tb | y\\u{1b}[A\n");
    }

    #[test]
    fn equal_results_are_one_group() {
        let mut groups = ResultGroups::default();
        for (vm, code, stdout) in
            [("c", 0, "6.1"), ("a", 0, "6.1"), ("b", 0, "6.6"), ("d", 1, "6.1")]
        {
            groups.add(ran(vm, code, stdout));
        }
        let shown: Vec<String> =
            groups.groups.iter().map(|(same, vms)| heading(same, vms)).collect();
        assert_eq!(shown, ["== c a (2): ok", "== b (1): ok", "== d (1): exit 1"]);
    }
}
