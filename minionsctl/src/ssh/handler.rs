//! Requests of an SSH client on one connection.

use super::channel_output::ChannelOutput;
use super::connection::ChannelConnection;
use super::input::ChannelInput;
use super::input_budget::{InputBudget, TOO_MUCH_INPUT};
use super::listeners::{GuestListeners, ListenerName};
use super::login::{self, GuestLogin};
use super::program::ChannelProgram;
use super::request::{PreparedProgram, ProgramKind, terminal_size};
use super::services::RequestedService;
use super::sftp::{SFTP, SftpSubsystem};
use crate::output::to_stderr;
use crate::target::Target;
use minions_proto::message::Signal;
use russh::server::{Auth, ChannelOpenHandle, Handle, Handler, Msg, Session, VerifiedPublicKey};
use russh::{Channel, ChannelId, ChannelOpenFailure, Disconnect, Error, Pty, Sig};
use std::collections::HashMap;
use std::sync::Arc;
use tokio_util::task::TaskTracker;

/// Largest number of channels at the same time. minionsd permits 64 streams to one VM.
const MAX_CHANNELS: usize = 64;

/// Variable with the path of the socket of an SSH agent.
const AGENT_VARIABLE: &str = "SSH_AUTH_SOCK";

/// State of one connection.
#[derive(Debug)]
pub(super) struct ConnectionHandler {
    target: Arc<Target>,
    budget: Arc<InputBudget>,
    programs: TaskTracker,
    /// Result of the last authentication: a login, or the reason why it failed.
    login: Result<GuestLogin, String>,
    channels: HashMap<ChannelId, SessionChannel>,
    listeners: GuestListeners,
}

/// Channel. Dropping it ends its program or connection, as when the client ends.
#[derive(Debug)]
struct SessionChannel {
    input: Arc<ChannelInput>,
    /// Settings and output of the program, until it is started; `None` for a connection.
    prepared: Option<(PreparedProgram, ChannelOutput)>,
    is_connection: bool,
}

impl Drop for SessionChannel {
    fn drop(&mut self) {
        self.input.close();
    }
}

impl ConnectionHandler {
    /// Creates the state of a connection; `programs` tracks the tasks of its programs.
    pub(super) fn new(target: Target, budget: Arc<InputBudget>, programs: TaskTracker) -> Self {
        let target = Arc::new(target);
        let listeners =
            GuestListeners::new(Arc::clone(&target), Arc::clone(&budget), programs.clone());
        Self {
            target,
            budget,
            programs,
            listeners,
            login: Err("not authenticated".into()),
            channels: HashMap::new(),
        }
    }

    /// Accepts every user, because minionsd authorizes this process. If the login fails, the client is told the reason
    /// later, in a disconnect message: SSH has no message for a refused authentication.
    async fn admit(&mut self, user: &str) -> Auth {
        let login = login::look_up(&self.target, user).await;
        self.login = login.map_err(|failure| login::rejection(&failure));
        Auth::Accept
    }

    fn prepared(&mut self, id: ChannelId) -> Option<&mut PreparedProgram> {
        self.channels.get_mut(&id)?.prepared.as_mut().map(|(prepared, _)| prepared)
    }

    fn input(&self, id: ChannelId) -> Option<&ChannelInput> {
        self.channels.get(&id).map(|channel| &*channel.input)
    }

    /// Returns both directions of a new channel; `None` if the limit is reached.
    fn add(
        &mut self,
        channel: Channel<Msg>,
        connection: Handle,
    ) -> Option<(Arc<ChannelInput>, ChannelOutput)> {
        // A client never closes the channel of a connection that failed, because for the client it was never opened.
        self.channels.retain(|_, channel| !channel.input.is_closed());
        if self.channels.len() >= MAX_CHANNELS {
            return None;
        }
        // The reading half is unused: messages of the client arrive as calls of this handler.
        let (_, writer) = channel.split();
        let output = ChannelOutput::new(writer, connection);
        Some((Arc::new(ChannelInput::new(Arc::clone(&self.budget))), output))
    }

    /// Starts a connection to `destination`.
    async fn connect(
        &mut self,
        channel: Channel<Msg>,
        destination: &str,
        reply: ChannelOpenHandle,
        connection: Handle,
    ) {
        let Ok(destination) = destination.parse() else {
            return reply.reject(ChannelOpenFailure::ConnectFailed).await;
        };
        let Some((input, output)) = self.add(channel, connection) else {
            return reply.reject(ChannelOpenFailure::ResourceShortage).await;
        };
        let channel =
            SessionChannel { input: Arc::clone(&input), prepared: None, is_connection: true };
        self.channels.insert(output.id(), channel);
        let target = Arc::clone(&self.target);
        let connection = ChannelConnection::new(target, destination, input, output);
        self.programs.spawn(connection.run(reply));
    }

    /// Ends the channel with the most unread input, so that the others can continue.
    fn end_largest(&mut self, session: &mut Session) -> Result<(), Error> {
        let largest = self.channels.iter().max_by_key(|(_, channel)| channel.input.unread());
        let Some(id) = largest.map(|(id, _)| *id) else { return Ok(()) };
        // Its task leaves the program, which ends it.
        self.channels.remove(&id);
        to_stderr(&format!("minionsctl: {TOO_MUCH_INPUT}"));
        session.close(id)
    }

    /// Starts the program of a channel, which can have only one.
    fn start(
        &mut self,
        id: ChannelId,
        kind: ProgramKind<'_>,
        session: &mut Session,
    ) -> Result<(), Error> {
        let channel = self.channels.get_mut(&id);
        let (Some(channel), Ok(login)) = (channel, &self.login) else {
            return session.channel_failure(id);
        };
        let Some((prepared, output)) = channel.prepared.take() else {
            return session.channel_failure(id);
        };
        session.channel_success(id)?;
        let input = Arc::clone(&channel.input);
        let opening = prepared.opening(login, kind);
        let program = ChannelProgram::new(Arc::clone(&self.target), opening, input, output);
        self.programs.spawn(program.run());
        Ok(())
    }
}

impl ConnectionHandler {
    /// Starts the subsystem `sftp` on a channel. Its task answers the request.
    fn start_sftp(&mut self, id: ChannelId) -> bool {
        let channel = self.channels.get_mut(&id);
        let (Some(channel), Ok(login)) = (channel, &self.login) else { return false };
        let Some((_, output)) = channel.prepared.take() else { return false };
        let (target, user) = (Arc::clone(&self.target), login.user.clone());
        let subsystem = SftpSubsystem::new(target, user, Arc::clone(&channel.input), output);
        self.programs.spawn(subsystem.run());
        true
    }
}

/// Sends the reply to a request on a channel.
fn reply(session: &mut Session, id: ChannelId, accepted: bool) -> Result<(), Error> {
    if accepted { session.channel_success(id) } else { session.channel_failure(id) }
}

/// Returns the name of a signal, without `SIG`.
fn signal_name(signal: &Sig) -> &str {
    match signal {
        Sig::ABRT => "ABRT",
        Sig::ALRM => "ALRM",
        Sig::FPE => "FPE",
        Sig::HUP => "HUP",
        Sig::ILL => "ILL",
        Sig::INT => "INT",
        Sig::KILL => "KILL",
        Sig::PIPE => "PIPE",
        Sig::QUIT => "QUIT",
        Sig::SEGV => "SEGV",
        Sig::TERM => "TERM",
        Sig::USR1 => "USR1",
        Sig::Custom(name) => name,
    }
}

impl Handler for ConnectionHandler {
    type Error = Error;

    async fn auth_none(&mut self, user: &str) -> Result<Auth, Error> {
        Ok(self.admit(user).await)
    }

    async fn auth_publickey(
        &mut self,
        user: &str,
        _: VerifiedPublicKey<'_>,
    ) -> Result<Auth, Error> {
        Ok(self.admit(user).await)
    }

    async fn auth_succeeded(&mut self, session: &mut Session) -> Result<(), Error> {
        match &self.login {
            Ok(_) => Ok(()),
            Err(reason) => session.disconnect(Disconnect::ByApplication, reason, ""),
        }
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        session: &mut Session,
    ) -> Result<(), Error> {
        let Some((input, output)) = self.add(channel, session.handle()) else {
            reply.reject(ChannelOpenFailure::ResourceShortage).await;
            return Ok(());
        };
        let id = output.id();
        let prepared = Some((PreparedProgram::default(), output));
        self.channels.insert(id, SessionChannel { input, prepared, is_connection: false });
        reply.accept().await;
        Ok(())
    }

    async fn channel_close(&mut self, id: ChannelId, _: &mut Session) -> Result<(), Error> {
        match self.channels.get(&id) {
            // It stays in the list until everything has been passed on.
            Some(channel) if channel.is_connection => channel.input.close_after_end(),
            Some(_) | None => _ = self.channels.remove(&id),
        }
        Ok(())
    }

    async fn channel_eof(&mut self, id: ChannelId, _: &mut Session) -> Result<(), Error> {
        if let Some(input) = self.input(id) {
            input.end();
        }
        Ok(())
    }

    fn adjust_window(&mut self, _: ChannelId, _: u32) -> u32 {
        self.budget.window()
    }

    async fn data(
        &mut self,
        id: ChannelId,
        data: &[u8],
        session: &mut Session,
    ) -> Result<(), Error> {
        if let Some(input) = self.input(id) {
            input.push(data);
        }
        if self.budget.is_exceeded() { self.end_largest(session) } else { Ok(()) }
    }

    async fn pty_request(
        &mut self,
        id: ChannelId,
        term: &str,
        cols: u32,
        rows: u32,
        _: u32,
        _: u32,
        _: &[(Pty, u32)],
        session: &mut Session,
    ) -> Result<(), Error> {
        let prepared = self.prepared(id);
        let accepted = prepared.is_some_and(|prepared| prepared.set_terminal(term, rows, cols));
        reply(session, id, accepted)
    }

    async fn env_request(
        &mut self,
        id: ChannelId,
        name: &str,
        value: &str,
        session: &mut Session,
    ) -> Result<(), Error> {
        let prepared = self.prepared(id);
        let accepted = prepared.is_some_and(|prepared| prepared.set_variable(name, value));
        reply(session, id, accepted)
    }

    async fn shell_request(&mut self, id: ChannelId, session: &mut Session) -> Result<(), Error> {
        self.start(id, ProgramKind::Shell, session)
    }

    async fn exec_request(
        &mut self,
        id: ChannelId,
        command: &[u8],
        session: &mut Session,
    ) -> Result<(), Error> {
        match str::from_utf8(command) {
            Ok(command) => self.start(id, ProgramKind::Command(command), session),
            Err(_) => session.channel_failure(id),
        }
    }

    async fn window_change_request(
        &mut self,
        id: ChannelId,
        cols: u32,
        rows: u32,
        _: u32,
        _: u32,
        _: &mut Session,
    ) -> Result<(), Error> {
        if let Some(prepared) = self.prepared(id) {
            prepared.resize(rows, cols);
        } else if let (Some(input), Some((rows, cols))) =
            (self.input(id), terminal_size(rows, cols))
        {
            input.resize(rows, cols);
        }
        Ok(())
    }

    async fn signal(&mut self, id: ChannelId, signal: Sig, _: &mut Session) -> Result<(), Error> {
        if let (Some(input), Ok(signal)) = (self.input(id), signal_name(&signal).parse::<Signal>())
        {
            input.signal(signal);
        }
        Ok(())
    }

    async fn subsystem_request(
        &mut self,
        id: ChannelId,
        name: &str,
        session: &mut Session,
    ) -> Result<(), Error> {
        if name == SFTP && self.start_sftp(id) {
            return Ok(());
        }
        session.channel_failure(id)
    }

    async fn channel_open_direct_tcpip(
        &mut self,
        channel: Channel<Msg>,
        host: &str,
        port: u32,
        _: &str,
        _: u32,
        reply: ChannelOpenHandle,
        session: &mut Session,
    ) -> Result<(), Error> {
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        self.connect(channel, &format!("tcp:{host}:{port}"), reply, session.handle()).await;
        Ok(())
    }

    async fn channel_open_direct_streamlocal(
        &mut self,
        channel: Channel<Msg>,
        path: &str,
        reply: ChannelOpenHandle,
        session: &mut Session,
    ) -> Result<(), Error> {
        self.connect(channel, &format!("unix:{path}"), reply, session.handle()).await;
        Ok(())
    }

    async fn tcpip_forward(
        &mut self,
        host: &str,
        port: &mut u32,
        session: &mut Session,
    ) -> Result<bool, Error> {
        if self.login.is_err() {
            return Ok(false);
        }
        let bound = self.listeners.listen_tcp(host, *port, session.handle()).await;
        *port = bound.unwrap_or(*port);
        Ok(bound.is_some())
    }

    async fn cancel_tcpip_forward(
        &mut self,
        host: &str,
        port: u32,
        _: &mut Session,
    ) -> Result<bool, Error> {
        Ok(self.listeners.cancel(&ListenerName::Tcp(host.to_owned(), port)))
    }

    async fn streamlocal_forward(
        &mut self,
        path: &str,
        session: &mut Session,
    ) -> Result<bool, Error> {
        let Ok(login) = &self.login else { return Ok(false) };
        Ok(self.listeners.listen_unix(path, login, session.handle()).await)
    }

    async fn cancel_streamlocal_forward(
        &mut self,
        path: &str,
        _: &mut Session,
    ) -> Result<bool, Error> {
        Ok(self.listeners.cancel(&ListenerName::Unix(path.to_owned())))
    }

    async fn agent_request(&mut self, id: ChannelId, session: &mut Session) -> Result<bool, Error> {
        let Ok(login) = &self.login else { return Ok(false) };
        let socket = self.listeners.agent_socket(login, session.handle()).await;
        let prepared = self.prepared(id).zip(socket);
        Ok(prepared.is_some_and(|(prepared, path)| prepared.set_variable(AGENT_VARIABLE, &path)))
    }

    async fn x11_request(
        &mut self,
        id: ChannelId,
        _: bool,
        _: &str,
        _: &str,
        _: u32,
        session: &mut Session,
    ) -> Result<(), Error> {
        reply(session, id, RequestedService::X11Forwarding.is_offered())
    }
}
