//! From the command line to an [`ExecRequest`].

use crate::cli::Exec;
use crate::failure::Failure;
use crate::local::terminal;
use minions_api::exec::ExecRequest;
use std::collections::BTreeMap;
use std::env;
use std::ffi::OsString;
use std::time::Duration;

/// All that the arguments say about the program itself.
pub(super) fn request(args: &Exec, timeout: Option<Duration>) -> Result<ExecRequest, Failure> {
    let mut argv = args.argv.iter().cloned();
    Ok(ExecRequest {
        command: argv.next().unwrap_or_default(),
        args: argv.collect(),
        env: variables(&args.env, |key| env::var_os(key))?,
        cwd: args.workdir.clone(),
        user: args.user.clone(),
        rlimits: args.rlimit.iter().cloned().collect(),
        memory_bytes: args.memory,
        pids: args.pids,
        tty: args.tty.then(terminal::like_ours),
        timeout_ms: timeout.map(|limit| u64::try_from(limit.as_millis()).unwrap_or(u64::MAX)),
        id: args.id.as_ref().map(ToString::to_string),
        on_disconnect: args.on_disconnect.map(Into::into),
        ..ExecRequest::default()
    })
}

/// `KEY=VALUE`; or `KEY`, with the value that it has `here`, if it has one.
fn variables(
    said: &[String],
    here: impl Fn(&str) -> Option<OsString>,
) -> Result<BTreeMap<String, String>, Failure> {
    let mut variables = BTreeMap::new();
    for one in said {
        let (key, value) = match one.split_once('=') {
            Some((key, value)) => (key, Some(value.into())),
            None => (one.as_str(), here(one)),
        };
        if key.is_empty() {
            return Err(Failure::Usage(
                "--env wants KEY=VALUE, or KEY to take its value from here",
            ));
        }
        if let Some(value) = value {
            let value = value.into_string().map_err(|_| {
                Failure::Usage("--env can only take a value from here that is UTF-8")
            })?;
            variables.insert(key.to_owned(), value);
        }
    }
    Ok(variables)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(said: &[&str]) -> Result<Vec<(String, String)>, Failure> {
        let said: Vec<String> = said.iter().map(|one| (*one).to_owned()).collect();
        let here = |key: &str| (key == "HOME").then(|| "/root".into());
        variables(&said, here).map(|variables| variables.into_iter().collect())
    }

    #[test]
    fn a_variable_is_given_or_taken_from_here() {
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!(parsed(&["A=B=C", "E="]).unwrap(), [pair("A", "B=C"), pair("E", "")]);
        assert_eq!(parsed(&["HOME", "NOPE"]).unwrap(), [pair("HOME", "/root")]);
        assert_eq!(parsed(&["A=1", "A=2"]).unwrap(), [pair("A", "2")]);
    }

    #[test]
    fn a_variable_has_a_name() {
        assert!(parsed(&["=x"]).is_err());
        assert!(parsed(&[""]).is_err());
    }
}
