//! Lookup of a guest user's home directory and shell, which a login needs and a plain exec does not.

use crate::failure::Failure;
use crate::link::{self, FirstMessage};
use crate::output::failure_line;
use crate::ssh_error::SshError;
use crate::target::Target;
use minions_api::exec::ExecRequest;
use minions_proto::channel::OutputStream;
use minions_proto::exec_client::{ExecClient, StreamEvent};
use minions_proto::message::Outcome;
use std::time::{Duration, Instant};
use tokio::time::timeout;
use uuid::Uuid;

/// Deadline of the lookup: longer than that of opening a stream.
const DEADLINE: Duration = Duration::from_secs(40);

/// Time limit of the script in the guest, in milliseconds. The lookup may query a directory service.
const SCRIPT_LIMIT_MS: u64 = 20_000;

/// Maximum output of the script, in bytes. An entry has about 60.
const MAX_OUTPUT: usize = 16 * 1024;

/// Longest user name, in bytes. Linux allows 32; directory services allow more.
const MAX_NAME: usize = 256;

/// Exit code of the script for an unknown user.
const NO_USER: i32 = 44;

/// Prints the entry of the user `$1`, then `home` if the home directory exists. A guest without `getent`, such as one
/// with busybox only, has its users in `/etc/passwd`.
const SCRIPT: &str = r#"
entry=$(getent passwd "$1" 2>/dev/null)
if [ -z "$entry" ] && [ -r /etc/passwd ]; then
    while IFS= read -r line || [ -n "$line" ]; do
        case $line in "$1":*) entry=$line; break;; esac
    done < /etc/passwd
fi
[ -n "$entry" ] || exit 44
printf '%s\n' "$entry"
home=${entry%:*}
if [ -d "${home##*:}" ]; then echo home; fi
"#;

/// Properties of a login.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct GuestLogin {
    /// User of the programs; `None` for the agent's user.
    pub(super) user: Option<String>,
    /// Directory in which programs start.
    pub(super) directory: String,
    /// Shell that runs commands.
    pub(super) shell: String,
}

/// Looks up a user.
pub(super) async fn look_up(target: &Target, name: &str) -> Result<GuestLogin, Failure> {
    let is_valid = !name.is_empty()
        && name.len() <= MAX_NAME
        && !name.contains(|character: char| character == ':' || character.is_control());
    if !is_valid {
        return Err(SshError::InvalidUser(name.chars().take(MAX_NAME).collect()).into());
    }
    let request = ExecRequest {
        command: "/bin/sh".into(),
        args: ["-c", SCRIPT, "sh", name].map(Into::into).into(),
        interactive: Some(false),
        timeout_ms: Some(SCRIPT_LIMIT_MS),
        id: Some(Uuid::new_v4().to_string()),
        ..ExecRequest::default()
    };
    let failed = |reason: String| SshError::Lookup { name: name.into(), reason };
    let ran = timeout(DEADLINE, collect(target, request)).await;
    let (outcome, output) =
        ran.map_err(|_| failed("the agent did not answer before the deadline".into()))??;
    match outcome {
        Outcome::Exited { code: 0 } => Ok(parse(name, &output)?),
        // In a guest without a user database, root is the agent's user.
        Outcome::Exited { code: NO_USER } if name == "root" => {
            Ok(GuestLogin { user: None, directory: "/".into(), shell: "/bin/sh".into() })
        }
        Outcome::Exited { code: NO_USER } => Err(SshError::NoUser(name.into()).into()),
        other => {
            Err(failed(format!("the lookup script ended with the exit code {}", other.exit_code()))
                .into())
        }
    }
}

/// Parses the script's output.
fn parse(name: &str, output: &[u8]) -> Result<GuestLogin, SshError> {
    let malformed = || SshError::MalformedUser(name.into());
    let text = str::from_utf8(output).map_err(|_| malformed())?;
    let mut lines = text.lines();
    let fields: Vec<&str> = lines.next().unwrap_or_default().split(':').collect();
    let [user, _, _, _, _, home, shell] = fields[..] else { return Err(malformed()) };
    let has_home = lines.any(|line| line == "home") && home.starts_with('/');
    let usable = |path: &str, or: &str| {
        let valid = path.starts_with('/') && !path.contains(char::is_control);
        String::from(if valid { path } else { or })
    };
    Ok(GuestLogin {
        user: Some(user.to_owned()),
        directory: if has_home { usable(home, "/") } else { "/".into() },
        // An empty field means /bin/sh (passwd(5)).
        shell: usable(shell, "/bin/sh"),
    })
}

/// Runs a program without input, and returns its outcome and standard output.
async fn collect(target: &Target, request: ExecRequest) -> Result<(Outcome, Vec<u8>), Failure> {
    let opening = FirstMessage::Start(Box::new(request));
    let (attached, mut link) = link::open(target, &opening).await?;
    let mut client = ExecClient::new(&attached, Instant::now())?;
    let mut output = Vec::new();
    loop {
        let message = link.receive().await.map_err(Failure::Link)?;
        match client.receive(message, Instant::now())? {
            StreamEvent::Output(OutputStream::Stdout, bytes) => {
                let room = MAX_OUTPUT.saturating_sub(output.len());
                output.extend_from_slice(&bytes[..room.min(bytes.len())]);
            }
            StreamEvent::Ended(ended) => return Ok((ended.outcome, output)),
            StreamEvent::Refused(error) => return Err(Failure::TakenOver(error)),
            StreamEvent::Output(OutputStream::Stderr, _)
            | StreamEvent::Gap(..)
            | StreamEvent::InputTaken
            | StreamEvent::Heartbeat => {}
        }
    }
}

/// Returns the message about a failed lookup for the SSH client, in one line.
pub(super) fn rejection(failure: &Failure) -> String {
    match failure.hint() {
        Some(hint) => format!("{}; {hint}", failure_line(failure)),
        None => failure_line(failure),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_has_the_name_the_home_directory_and_the_shell() {
        let login = parse("eve", b"eve:x:1000:1000:Eve,,,:/home/eve:/bin/zsh\nhome\n").unwrap();
        let expected = GuestLogin {
            user: Some("eve".into()),
            directory: "/home/eve".into(),
            shell: "/bin/zsh".into(),
        };
        assert_eq!(login, expected);
    }

    #[test]
    fn missing_and_unusable_values_have_defaults() {
        let of = |output: &str| parse("eve", output.as_bytes()).unwrap();
        let defaults = |login: GuestLogin| (login.directory, login.shell);
        let expected = ("/".to_owned(), "/bin/sh".to_owned());
        for output in [
            "eve:x:1:1::/missing:\n",
            "eve:x:1:1:::\nhome\n",
            "eve:x:1:1::relative:sh\nhome\n",
            "eve:x:1:1::/a\u{1b}b:/bin/\u{7f}\nhome\n",
        ] {
            assert_eq!(defaults(of(output)), expected, "{output:?}");
        }
    }

    #[test]
    fn an_entry_without_seven_fields_is_refused() {
        for output in
            [&b""[..], b"eve\n", b"eve:x:1:1::/home/eve\n", b"a:b:c:d:e:f:g:h\n", b"\xff:"]
        {
            let error = parse("eve", output).unwrap_err().to_string();
            assert!(error.contains("seven fields"), "{error}");
        }
    }
}
