//! Conversion of the arguments to an [`ExecRequest`].

use crate::bounded_file::read_text;
use crate::cli::ExecArgs;
use crate::failure::Failure;
use crate::local::terminal;
use minions_api::exec::ExecRequest;
use std::collections::BTreeMap;
use std::env;
use std::ffi::OsString;
use std::io;
use std::time::Duration;

/// Converts the arguments that describe the program.
pub(super) fn request(args: &ExecArgs, timeout: Option<Duration>) -> Result<ExecRequest, Failure> {
    let mut argv = args.argv.iter().cloned();
    Ok(ExecRequest {
        command: argv.next().unwrap_or_default(),
        args: argv.collect(),
        env: environment(args)?,
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

/// Returns the variables of the files, overridden by those of the options.
fn environment(args: &ExecArgs) -> Result<BTreeMap<String, String>, Failure> {
    let local = |key: &str| env::var_os(key);
    let mut environment = BTreeMap::new();
    for path in &args.env_file {
        environment.extend(variables(&lines(&read_text(path)?), local).map_err(|_| {
            let source = io::Error::new(
                io::ErrorKind::InvalidData,
                "a line must be KEY=VALUE, or KEY with a local value in UTF-8",
            );
            Failure::File { path: path.clone(), source }
        })?);
    }
    environment.extend(variables(&args.env, local)?);
    Ok(environment)
}

/// Returns the lines of an environment file that are variables. A value is taken as it is, without quotes removed, as
/// docker does.
fn lines(text: &str) -> Vec<String> {
    let lines = text.lines().map(str::trim_start);
    lines.filter(|line| !line.is_empty() && !line.starts_with('#')).map(str::to_owned).collect()
}

/// Parses `KEY=VALUE`, and `KEY` with its `local` value; skips a `KEY` without one.
fn variables(
    args: &[String],
    local: impl Fn(&str) -> Option<OsString>,
) -> Result<BTreeMap<String, String>, Failure> {
    let mut variables = BTreeMap::new();
    for arg in args {
        let (key, value) = match arg.split_once('=') {
            Some((key, value)) => (key, Some(value.into())),
            None => (arg.as_str(), local(arg)),
        };
        if key.is_empty() {
            return Err(Failure::Usage("--env requires KEY=VALUE, or KEY to take the local value"));
        }
        if let Some(value) = value {
            let value = value
                .into_string()
                .map_err(|_| Failure::Usage("--env KEY requires a local value in UTF-8"))?;
            variables.insert(key.to_owned(), value);
        }
    }
    Ok(variables)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(args: &[&str]) -> Result<Vec<(String, String)>, Failure> {
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        let local = |key: &str| (key == "HOME").then(|| "/root".into());
        variables(&args, local).map(|variables| variables.into_iter().collect())
    }

    #[test]
    fn a_variable_has_the_given_value_or_the_local_one() {
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!(parsed(&["A=B=C", "E="]).unwrap(), [pair("A", "B=C"), pair("E", "")]);
        assert_eq!(parsed(&["HOME", "NOPE"]).unwrap(), [pair("HOME", "/root")]);
        assert_eq!(parsed(&["A=1", "A=2"]).unwrap(), [pair("A", "2")]);
    }

    #[test]
    fn an_environment_file_has_comments_and_values_with_all_their_characters() {
        let file = "# comment\n\nA=1 # 2\n  B=\"x\"\nC= y \nHOME\n";
        assert_eq!(lines(file), ["A=1 # 2", "B=\"x\"", "C= y ", "HOME"]);
    }

    #[test]
    fn a_variable_without_a_name_is_refused() {
        assert!(parsed(&["=x"]).is_err());
        assert!(parsed(&[""]).is_err());
    }
}
