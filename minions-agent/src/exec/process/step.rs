//! Steps of starting a program, and how a failed one is reported.

use rustix::io::Errno;
use std::io;

/// The step at which starting a program failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::exec) enum SpawnStep {
    Streams,
    Session,
    Terminal,
    Limits,
    User,
    Cwd,
    /// Any other step: the fork, or the execution of the program.
    Exec,
}

/// Bit position of the step in the number that a failed child sends. Error numbers are below 4096 (`MAX_ERRNO`).
const STEP_SHIFT: i32 = 16;

/// Numbers of the steps in that number.
const STEPS: [(SpawnStep, i32); 7] = [
    (SpawnStep::Exec, 0),
    (SpawnStep::Session, 1),
    (SpawnStep::Terminal, 2),
    (SpawnStep::Limits, 3),
    (SpawnStep::User, 4),
    (SpawnStep::Cwd, 5),
    (SpawnStep::Streams, 6),
];

/// A failed step, with the kernel's error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::exec) struct SpawnError {
    pub(in crate::exec) step: SpawnStep,
    pub(in crate::exec) errno: Errno,
}

impl SpawnStep {
    /// Returns a conversion for `map_err` that adds the step.
    pub(super) fn failed(self) -> impl Fn(Errno) -> SpawnError {
        move |errno| SpawnError { step: self, errno }
    }
}

impl SpawnError {
    /// Returns the number that the child sends.
    pub(super) fn code(self) -> i32 {
        let number = STEPS.iter().find(|(step, _)| *step == self.step);
        number.map_or(0, |(_, number)| *number) << STEP_SHIFT | self.errno.raw_os_error()
    }

    pub(super) fn from_code(code: i32) -> Self {
        let step = STEPS.iter().find(|(_, number)| *number == code >> STEP_SHIFT);
        let errno = Errno::from_raw_os_error(code & ((1 << STEP_SHIFT) - 1));
        Self { step: step.map_or(SpawnStep::Exec, |(step, _)| *step), errno }
    }
}

impl From<Errno> for SpawnError {
    fn from(errno: Errno) -> Self {
        Self { step: SpawnStep::Exec, errno }
    }
}

impl From<io::Error> for SpawnError {
    fn from(error: io::Error) -> Self {
        Errno::from_io_error(&error).unwrap_or(Errno::IO).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_keeps_its_step_and_its_number_on_the_way_from_the_child() {
        for (step, _) in STEPS {
            for errno in [Errno::PERM, Errno::from_raw_os_error(4095)] {
                let error = step.failed()(errno);
                assert_eq!(SpawnError::from_code(error.code()), error);
            }
        }
    }
}
