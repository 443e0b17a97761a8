//! Program of a channel, built from the client's requests before it is started.

use super::login::GuestLogin;
use crate::link::FirstMessage;
use minions_api::exec::{ExecRequest, Tty};
use std::collections::BTreeMap;
use uuid::Uuid;

/// Maximum number of variables, and of bytes in their names and values together. A guest's kernel permits 128 KiB for
/// one variable; all of them and the command must fit into a frame of 1 MiB.
const MAX_VARIABLES: (usize, usize) = (512, 256 * 1024);

/// Maximum length of `TERM`, in bytes.
const MAX_TERM: usize = 256;

/// Size of a terminal, in rows and columns, if the client does not know it.
const DEFAULT_SIZE: (u16, u16) = (24, 80);

/// Kind of a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ProgramKind<'a> {
    /// The login shell.
    Shell,
    /// A command for the user's shell.
    Command(&'a str),
}

/// Settings of a program that has not been started yet.
#[derive(Debug, Default)]
pub(super) struct PreparedProgram {
    tty: Option<Tty>,
    variables: BTreeMap<String, String>,
    /// Number of bytes in all names and values.
    size: usize,
}

impl PreparedProgram {
    /// Sets the terminal. Returns false if `term` is not a valid terminal type.
    pub(super) fn set_terminal(&mut self, term: &str, rows: u32, cols: u32) -> bool {
        if term.len() > MAX_TERM || term.contains('\0') {
            return false;
        }
        let (rows, cols) = terminal_size(rows, cols).unwrap_or(DEFAULT_SIZE);
        let term = Some(term.to_owned()).filter(|term| !term.is_empty());
        self.tty = Some(Tty { rows, cols, term });
        true
    }

    /// Changes the size of the terminal, if there is one.
    pub(super) fn resize(&mut self, rows: u32, cols: u32) {
        if let (Some(tty), Some(size)) = (&mut self.tty, terminal_size(rows, cols)) {
            (tty.rows, tty.cols) = size;
        }
    }

    /// Sets a variable. Returns false if its name or value is invalid, or if a limit is exceeded.
    pub(super) fn set_variable(&mut self, name: &str, value: &str) -> bool {
        let is_valid = !name.is_empty() && !name.contains(['=', '\0']) && !value.contains('\0');
        let size = self.size + name.len() + value.len();
        let (most, bytes) = MAX_VARIABLES;
        if !is_valid || self.variables.len() >= most || size > bytes {
            return false;
        }
        self.size = size;
        self.variables.insert(name.to_owned(), value.to_owned());
        true
    }

    /// Returns the request that starts the program.
    pub(super) fn opening(self, login: &GuestLogin, kind: ProgramKind<'_>) -> FirstMessage {
        let args = match kind {
            ProgramKind::Shell => vec!["-l".to_owned()],
            ProgramKind::Command(command) => vec!["-c".to_owned(), command.to_owned()],
        };
        FirstMessage::Start(Box::new(ExecRequest {
            command: login.shell.clone(),
            args,
            env: self.variables,
            cwd: Some(login.directory.clone()),
            user: login.user.clone(),
            interactive: Some(true),
            tty: self.tty,
            // With an id, a start whose reply was lost can be repeated, and a lost stream can be re-attached.
            id: Some(Uuid::new_v4().to_string()),
            ..ExecRequest::default()
        }))
    }
}

/// Converts rows and columns; `None` if either is unknown (0).
pub(super) fn terminal_size(rows: u32, cols: u32) -> Option<(u16, u16)> {
    let limited = |number: u32| u16::try_from(number).unwrap_or(u16::MAX);
    (rows > 0 && cols > 0).then(|| (limited(rows), limited(cols)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login() -> GuestLogin {
        GuestLogin {
            user: Some("eve".into()),
            directory: "/home/eve".into(),
            shell: "/bin/zsh".into(),
        }
    }

    fn request(prepared: PreparedProgram, kind: ProgramKind<'_>) -> ExecRequest {
        match prepared.opening(&login(), kind) {
            FirstMessage::Start(request) => *request,
            FirstMessage::Attach(_) => panic!("not a start"),
        }
    }

    #[test]
    fn a_command_and_a_shell_run_as_the_user_in_the_home_directory() {
        let ran = request(PreparedProgram::default(), ProgramKind::Command("a 'b c'"));
        assert_eq!(
            (ran.command.as_str(), ran.args),
            ("/bin/zsh", vec!["-c".into(), "a 'b c'".into()])
        );
        assert_eq!((ran.user.as_deref(), ran.cwd.as_deref()), (Some("eve"), Some("/home/eve")));
        let ran = request(PreparedProgram::default(), ProgramKind::Shell);
        assert_eq!((ran.args, ran.tty), (vec!["-l".to_owned()], None));
    }

    #[test]
    fn a_terminal_has_the_last_known_size() {
        let mut prepared = PreparedProgram::default();
        prepared.resize(9, 9);
        assert!(prepared.set_terminal("", 0, 80));
        let size =
            |prepared: &PreparedProgram| prepared.tty.as_ref().map(|tty| (tty.rows, tty.cols));
        assert_eq!(size(&prepared), Some((24, 80)));
        prepared.resize(0, 100);
        prepared.resize(40, 1_000_000);
        assert_eq!(size(&prepared), Some((40, u16::MAX)));
        assert!(!prepared.set_terminal(&"x".repeat(257), 1, 1));
        assert!(!prepared.set_terminal("a\0b", 1, 1));
        assert_eq!(request(prepared, ProgramKind::Shell).tty.unwrap().term, None);
    }

    #[test]
    fn variables_are_limited_in_number_and_size() {
        let mut prepared = PreparedProgram::default();
        for name in ["", "A=B", "A\0"] {
            assert!(!prepared.set_variable(name, ""), "{name:?}");
        }
        assert!(!prepared.set_variable("A", "\0"));
        assert!(!prepared.set_variable("A", &"x".repeat(256 * 1024)));
        assert!((0..512).all(|number| prepared.set_variable(&format!("V{number}"), "x")));
        assert!(!prepared.set_variable("ONE_MORE", "x"));
        assert_eq!(request(prepared, ProgramKind::Shell).env.len(), 512);
    }
}
