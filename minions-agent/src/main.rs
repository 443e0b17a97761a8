//! `minions-agent`: command line and startup of the agent, which is implemented in the library.

use lexopt::{Arg, Parser, ValueExt};
use minions_agent::announce::announce;
use minions_agent::listen::{ListenAddress, ListenOption, Listener, PORT_VARIABLE};
use minions_agent::log::{LineSubscriber, LogWriter};
use minions_agent::privileges::{self, PrivilegeError};
use minions_agent::protection::{self, ProtectionReport, inherited};
use minions_agent::quiesce::keeper;
use minions_agent::supervision::ServiceNotifier;
use minions_agent::{Agent, AgentConfig, Capabilities, Capability, error_chain, file_op, init};
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
minions-agent: daemon in a guest, usually run as root, that serves requests from the guest's host

usage: minions-agent [OPTIONS]

  --listen vsock:PORT | hybrid:PATH | activated
                                      where to accept the host's connections [default: activated if
                                      the service manager passes a socket, else vsock].
                                      hybrid: a Unix socket on which the agent answers CONNECT
                                      itself, as a VMM does;
                                      activated: the socket passed by the service manager
  --port PORT                         VSOCK port, 1 to 4294967294; with hybrid: the port that CONNECT
                                      must request. `agent_port` of minionsd must be the same
                                      [env: MINIONS_AGENT_PORT] [default: 1024]
  --allow NAME,…                      serve only these operations: health, status, network, exec,
                                      write_file, clock, power, files, forward, quiesce [default: all;
                                      on a socket other than VSOCK, all except clock, power and
                                      quiesce]
  --allow-forward RULE,…              also forward to these targets: HOST:PORT or NETWORK; also listen on
                                      these addresses: listen:ADDRESS:PORT or listen:NETWORK [default:
                                      only loopback addresses and Unix sockets]
  --no-announce                       do not connect to the host (CID 2, VSOCK port 1025) once the agent
                                      listens; the host then finds the agent by its probes only
  --hook-dir DIR                      directory with the directories of hooks: freeze.d, thaw.d,
                                      restore.d [default: /etc/minions]
  --exec-timeout SECONDS              time limit of a base `exec` request that has none [default: 600];
                                      `exec_start` without a time limit is not limited
  --exec-user USER[:GROUP]            user of programs whose request names none [default: the agent's
                                      own user]. Not an access control: a request can name any user
  --init                              run as PID 1 of a VM without another init: mount file systems,
                                      insert modules, keep an agent running with the other options,
                                      reap orphans, power off on request. Implied if the program is
                                      PID 1 and is named `init`
  --log-level LEVEL                   error, warn, info, debug or trace [default: info]
  --version
  --help
";

/// Parsed command line.
enum CommandLine {
    Serve(Box<ServeOptions>),
    Print(String),
}

struct ServeOptions {
    listen: ListenAddress,
    config: AgentConfig,
    /// True if the agent tells its host that it listens.
    announces: bool,
    level: Level,
}

/// Reason for a non-zero exit status: 2 for a wrong command line, 1 for a failed start.
enum CommandError {
    Usage(lexopt::Error),
    Run(Box<dyn std::error::Error>),
}

/// Maximum time to wait at exit until the last lines of the log are written.
const LOG_PATIENCE: Duration = Duration::from_secs(1);

/// Time for which idle blocking threads are kept: practically forever. A guest that has reached its limit of processes
/// (a fork bomb) cannot create a thread either, so the agent must already have one.
const KEEP_THREADS: Duration = Duration::from_secs(u32::MAX as u64);

fn main() -> ExitCode {
    if let Some(operation) = file_op::asked(env::args_os().skip(1)) {
        return file_op::run(&operation);
    }
    if keeper::is_asked(env::args_os().skip(1)) {
        return keeper::run();
    }
    // All steps before `log` is created must run while the process has only one thread.
    inherited::forget();
    #[cfg(target_env = "gnu")]
    minions_agent::heap::keep_small();
    if let Some(options) = init::asked(std::env::args_os()) {
        let Err(error) = init::run(&options);
        return ended(Err(run_failure(error)), &LogWriter::to_standard_error());
    }
    let asked = parse(Parser::from_env());
    let prepared = asked.map(|asked| match asked {
        CommandLine::Print(text) => PreparedCommand::Print(text),
        CommandLine::Serve(options) => {
            let protection = protection::raise(options.listen.is_of_guest());
            // Privileges are dropped last, because `protection::raise` needs them.
            let kept = privileges::keep_for(options.config.capabilities);
            PreparedCommand::Serve(options, protection, kept)
        }
    });
    let log = LogWriter::to_standard_error();
    let done = match prepared {
        Ok(PreparedCommand::Print(text)) => {
            io::stdout().write_all(text.as_bytes()).map_err(run_failure)
        }
        Ok(PreparedCommand::Serve(options, protection, kept)) => {
            kept.map_err(run_failure).and_then(|()| run(*options, protection, &log))
        }
        Err(error) => Err(CommandError::Usage(error)),
    };
    ended(done, &log)
}

/// Parsed command line, with the results of the steps that must run while the process has only one thread.
enum PreparedCommand {
    Serve(Box<ServeOptions>, ProtectionReport, Result<(), PrivilegeError>),
    Print(String),
}

/// Writes a failure to the log and returns the exit code.
fn ended(done: Result<(), CommandError>, log: &LogWriter) -> ExitCode {
    let code = match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            log.say(format!("minions-agent: {failure}\n").as_bytes());
            ExitCode::from(if matches!(failure, CommandError::Usage(_)) { 2 } else { 1 })
        }
    };
    log.flush(LOG_PATIENCE);
    code
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(error) => write!(f, "{error} (see --help)"),
            Self::Run(error) => f.write_str(&error_chain(error.as_ref())),
        }
    }
}

fn run_failure(error: impl std::error::Error + 'static) -> CommandError {
    CommandError::Run(Box::new(error))
}

fn parse(mut line: Parser) -> Result<CommandLine, lexopt::Error> {
    let mut listen = None::<ListenOption>;
    let mut port = None::<AgentPort>;
    let mut allow = None::<Capabilities>;
    let mut config = AgentConfig::default();
    let mut level = Level::INFO;
    let mut announces = true;
    while let Some(argument) = line.next()? {
        match argument {
            Arg::Long("listen") => listen = Some(line.value()?.parse()?),
            Arg::Long("port") => port = Some(line.value()?.parse()?),
            Arg::Long("allow") => allow = Some(line.value()?.parse()?),
            Arg::Long("allow-forward") => config.forward = line.value()?.parse()?,
            Arg::Long("exec-timeout") => {
                config.exec_timeout = seconds(line.value()?.parse()?)?;
            }
            Arg::Long("hook-dir") => config.hook_dir = line.value()?.into(),
            Arg::Long("no-announce") => announces = false,
            Arg::Long("exec-user") => config.exec_user = Some(line.value()?.string()?),
            Arg::Long("log-level") => level = line.value()?.parse()?,
            Arg::Long("version") | Arg::Short('V') => {
                let version = concat!("minions-agent ", env!("CARGO_PKG_VERSION"), "\n");
                return Ok(CommandLine::Print(version.to_owned()));
            }
            Arg::Long("help") | Arg::Short('h') => return Ok(CommandLine::Print(HELP.to_owned())),
            other => return Err(other.unexpected()),
        }
    }
    let listen = listen
        .unwrap_or_else(ListenOption::by_environment)
        .on_port(port, port_of_environment()?)
        .map_err(|error| lexopt::Error::Custom(error.into()))?;
    config.capabilities = allow.unwrap_or_else(|| default_capabilities(&listen));
    Ok(CommandLine::Serve(Box::new(ServeOptions { listen, config, announces, level })))
}

/// Reads the port from the environment, for agents whose options are fixed. An empty variable is ignored.
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

/// Converts the value of `--exec-timeout`. Rejects 0, which would end every program at its start.
fn seconds(seconds: u64) -> Result<Duration, lexopt::Error> {
    match seconds {
        0 => Err("--exec-timeout is 0: must be at least 1 (second)".into()),
        _ => Ok(Duration::from_secs(seconds)),
    }
}

fn run(
    options: ServeOptions,
    protection: ProtectionReport,
    log: &LogWriter,
) -> Result<(), CommandError> {
    let ServeOptions { listen, mut config, announces, level } = options;
    log.take_panics();
    let subscriber = LineSubscriber::new(level, log.clone());
    tracing::subscriber::set_global_default(subscriber).map_err(run_failure)?;
    for failure in &protection.failures {
        tracing::warn!("cannot protect the agent from its programs completely: {failure}");
    }
    if !config.capabilities.contain(Capability::Health) {
        tracing::warn!("--allow lacks `health`: minionsd will report this agent as unreachable");
    }
    config.programs = protection.programs;
    config.groups = listen.program_groups();
    config.freezes_file_systems = listen.is_of_guest();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .thread_keep_alive(KEEP_THREADS)
        .build()
        .map_err(run_failure)?;
    // Creates the first blocking thread now; see `KEEP_THREADS`.
    runtime.spawn_blocking(|| {});
    let served = runtime.block_on(async {
        let shutdown = shutdown().map_err(run_failure)?;
        let supervision = ServiceNotifier::from_environment();
        // Listens first: if another agent has the port, this one must not resume the other's work.
        let listener = Listener::bind(&listen).await.map_err(run_failure)?;
        let agent = Agent::new(config).map_err(run_failure)?;
        supervision.ready();
        if let Some(target) = listener.announce_target().filter(|_| announces) {
            let agent = agent.clone();
            tokio::spawn(async move { announce(&agent, &target).await });
        }
        tokio::select! {
            () = listener.serve(&agent, shutdown) => {}
            () = supervision.stay_alive() => {}
        }
        supervision.stopping();
        Ok(())
    });
    // The wait for blocking threads is bounded: one may hang, for example on a mount whose server is gone.
    runtime.shutdown_timeout(Duration::from_secs(1));
    minions_agent::forward::finish_removals();
    served
}

/// Returns the operations that are served without `--allow`.
fn default_capabilities(listen: &ListenAddress) -> Capabilities {
    if listen.is_of_guest() { Capabilities::all() } else { Capabilities::without_the_machine() }
}

/// Installs handlers for SIGTERM and SIGINT, and returns a future that completes at the first of these signals.
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
