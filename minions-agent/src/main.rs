//! `minions-agent`: see the library.

use lexopt::{Arg, Parser, ValueExt};
use minions_agent::listen::{Listen, Listener, PORT_VARIABLE, Place};
use minions_agent::log::Log;
use minions_agent::privileges::{self, PrivilegeError};
use minions_agent::protection::{self, Protection, inherited};
use minions_agent::supervision::Supervision;
use minions_agent::{Agent, Capabilities, Capability, Config, init};
use minions_proto::AgentPort;
use minions_proto::port::InvalidPort;
use std::env::{self, VarError};
use std::fmt;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tracing::Level;

const HELP: &str = "\
minions-agent: the small root daemon in a guest that its host talks to

usage: minions-agent [OPTIONS]

  --listen vsock:PORT | hybrid:PATH | activated
                                      where the host comes from [default: activated if a service
                                      manager passes a socket, else vsock]
                                      hybrid: a Unix socket that speaks CONNECT/OK itself
                                      activated: the socket that the service manager passes
  --port PORT                         VSOCK port, 1 to 4294967294; with hybrid: the port that
                                      CONNECT asks for. minionsd's `agent_port` must be the same
                                      [env: MINIONS_AGENT_PORT] [default: 1024]
  --allow NAME,…                      answer these only: health, status, network, exec, write_file,
                                      clock, power [default: all; with hybrid:, which is no guest's,
                                      all but clock and power]
  --exec-timeout SECONDS              for programs that come without a limit [default: 600]
  --exec-user USER[:GROUP]            programs that name no user run as this one
                                      [default: the agent's own user]. A default, no barrier: the
                                      host may name another one
  --init                              be the first process of a VM that has no other: mount, insert
                                      modules, keep an agent with the other options running, reap,
                                      power off when asked. Implied for PID 1 named `init`
  --log-level LEVEL                   error, warn, info, debug or trace [default: info]
  --version
  --help
";

/// What the command line asks for.
enum Asked {
    Serve(Options),
    Print(String),
}

struct Options {
    listen: Listen,
    config: Config,
    level: Level,
}

/// The command line is wrong, or the agent can't do what it says.
enum Failure {
    Usage(lexopt::Error),
    Run(Box<dyn std::error::Error>),
}

/// For the last lines of the log.
const LOG_PATIENCE: Duration = Duration::from_secs(1);

/// For threads that are idle: for ever. A guest that has no process left to give (a fork bomb's) has
/// none for a thread either, and what needs one then must find one.
const KEEP_THREADS: Duration = Duration::from_secs(u32::MAX as u64);

fn main() -> ExitCode {
    // All of this before there is a second thread.
    inherited::forget();
    if let Some(options) = init::asked(std::env::args_os()) {
        let Err(error) = init::run(&options);
        return ended(Err(run_failure(error)), &Log::to_standard_error());
    }
    let asked = parse(Parser::from_env());
    let prepared = asked.map(|asked| match asked {
        Asked::Print(text) => Prepared::Print(text),
        Asked::Serve(options) => {
            let protection = protection::raise(options.listen.is_of_guest());
            // Last: what protects takes privileges.
            let kept = privileges::keep_for(options.config.capabilities);
            Prepared::Serve(options, protection, kept)
        }
    });
    let log = Log::to_standard_error();
    let done = match prepared {
        Ok(Prepared::Print(text)) => io::stdout().write_all(text.as_bytes()).map_err(run_failure),
        Ok(Prepared::Serve(options, protection, kept)) => {
            kept.map_err(run_failure).and_then(|()| run(options, protection, &log))
        }
        Err(error) => Err(Failure::Usage(error)),
    };
    ended(done, &log)
}

/// What the command line asks for, as far as it must be done by the only thread.
enum Prepared {
    Serve(Options, Protection, Result<(), PrivilegeError>),
    Print(String),
}

fn ended(done: Result<(), Failure>, log: &Log) -> ExitCode {
    let code = match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            log.say(format!("minions-agent: {failure}\n").as_bytes());
            ExitCode::from(if matches!(failure, Failure::Usage(_)) { 2 } else { 1 })
        }
    };
    log.flush(LOG_PATIENCE);
    code
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(error) => write!(f, "{error} (see --help)"),
            Self::Run(error) => {
                write!(f, "{error}")?;
                let mut cause = error.source();
                while let Some(error) = cause {
                    write!(f, ": {error}")?;
                    cause = error.source();
                }
                Ok(())
            }
        }
    }
}

fn run_failure(error: impl std::error::Error + 'static) -> Failure {
    Failure::Run(Box::new(error))
}

fn parse(mut line: Parser) -> Result<Asked, lexopt::Error> {
    let (mut place, mut port) = (None::<Place>, None);
    let mut allow = None::<Capabilities>;
    let (mut config, mut level) = (Config::default(), Level::INFO);
    while let Some(argument) = line.next()? {
        match argument {
            Arg::Long("listen") => place = Some(line.value()?.parse()?),
            Arg::Long("port") => port = Some(line.value()?.parse()?),
            Arg::Long("allow") => allow = Some(line.value()?.parse()?),
            Arg::Long("exec-timeout") => {
                config.exec_timeout = seconds(line.value()?.parse()?)?;
            }
            Arg::Long("exec-user") => config.exec_user = Some(line.value()?.string()?),
            Arg::Long("log-level") => level = line.value()?.parse()?,
            Arg::Long("version") | Arg::Short('V') => {
                let version = concat!("minions-agent ", env!("CARGO_PKG_VERSION"), "\n");
                return Ok(Asked::Print(version.to_owned()));
            }
            Arg::Long("help") | Arg::Short('h') => return Ok(Asked::Print(HELP.to_owned())),
            other => return Err(other.unexpected()),
        }
    }
    let listen = place.unwrap_or_else(Place::by_environment).on_port(port, port_of_environment()?);
    let listen = listen.map_err(|error| lexopt::Error::Custom(error.into()))?;
    config.capabilities = allow.unwrap_or_else(|| default_capabilities(&listen));
    Ok(Asked::Serve(Options { listen, config, level }))
}

/// The port that the agent is given where its options are not at hand: an empty variable is none.
fn port_of_environment() -> Result<Option<AgentPort>, lexopt::Error> {
    match env::var(PORT_VARIABLE) {
        Err(VarError::NotPresent) => Ok(None),
        Ok(text) if text.is_empty() => Ok(None),
        Ok(text) => text.parse().map(Some).map_err(|error| wrong_port(&text, error)),
        Err(VarError::NotUnicode(text)) => Err(wrong_port(&text.to_string_lossy(), InvalidPort)),
    }
}

fn wrong_port(text: &str, error: InvalidPort) -> lexopt::Error {
    format!("{PORT_VARIABLE} is {text:?}: {error}").into()
}

/// A limit of nothing would end every program at its start.
fn seconds(seconds: u64) -> Result<Duration, lexopt::Error> {
    match seconds {
        0 => Err("--exec-timeout must be at least 1 second".into()),
        _ => Ok(Duration::from_secs(seconds)),
    }
}

fn run(options: Options, protection: Protection, log: &Log) -> Result<(), Failure> {
    let Options { listen, mut config, level } = options;
    log.take_panics();
    tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(log.clone())
        .with_ansi(false)
        .with_target(false)
        .init();
    for failure in &protection.failures {
        tracing::warn!("not protected from the agent's programs: {failure}");
    }
    if !config.capabilities.contain(Capability::Health) {
        tracing::warn!("--allow has no `health`: minionsd takes such an agent for unreachable");
    }
    config.programs = protection.programs;
    config.groups = listen.program_groups();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .thread_keep_alive(KEEP_THREADS)
        .build()
        .map_err(run_failure)?;
    // The first of them.
    runtime.spawn_blocking(|| {});
    let served = runtime.block_on(async {
        let shutdown = shutdown().map_err(run_failure)?;
        let supervision = Supervision::from_environment();
        // The listener first: where another agent has the port, this one must not resume that one's work.
        let listener = Listener::bind(&listen).await.map_err(run_failure)?;
        let agent = Agent::new(config).map_err(run_failure)?;
        supervision.ready();
        tokio::select! {
            () = listener.serve(&agent, shutdown) => {}
            () = supervision.stay_alive() => {}
        }
        supervision.stopping();
        Ok(())
    });
    // A thread that hangs (on a mount whose server is gone, say) is not waited for.
    runtime.shutdown_timeout(Duration::from_secs(1));
    served
}

fn default_capabilities(listen: &Listen) -> Capabilities {
    if listen.is_of_guest() { Capabilities::all() } else { Capabilities::without_the_machine() }
}

/// Ready at SIGTERM or SIGINT.
fn shutdown() -> io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
