//! AF_VSOCK listener that serves only the host.
//!
//! A process in the guest can also connect, through the guest's own CID or the loopback CID. Therefore the
//! peer's CID is checked; the kernel fills it in, so it cannot be forged.

use super::{ListenError, pause_after};
use crate::agent::Agent;
use crate::announce::AnnounceTarget;
use crate::task::BoxedTask;
use minions_proto::AgentPort;
use rustix::io::ioctl_fionbio;
use std::io;
use std::os::fd::OwnedFd;
use tokio::task::JoinSet;
use tokio_vsock::{VMADDR_CID_ANY, VMADDR_CID_HOST, VsockAddr, VsockListener};

fn failed(port: AgentPort, source: io::Error) -> ListenError {
    if source.kind() == io::ErrorKind::AddrInUse {
        ListenError::PortInUse(port)
    } else {
        ListenError::Vsock { port, source }
    }
}

/// Checks that the passed port is the requested one, if one was requested.
fn check(passed: u32, requested: Option<AgentPort>) -> Result<(), ListenError> {
    match requested.filter(|requested| requested.get() != passed) {
        Some(requested) => Err(ListenError::OtherPort { passed, requested }),
        None => Ok(()),
    }
}

/// Listening VSOCK port.
#[derive(Debug)]
pub(super) struct HostListener(VsockListener);

impl HostListener {
    pub(super) fn bind(port: AgentPort) -> Result<Self, ListenError> {
        let listener = VsockListener::bind(VsockAddr::new(VMADDR_CID_ANY, port.get()))
            .map_err(|source| failed(port, source))?;
        tracing::info!(%port, "listening on vsock");
        Ok(Self(listener))
    }

    /// Uses a socket that already listens. Its port must be `requested`, if that is given.
    pub(super) fn of(fd: OwnedFd, requested: Option<AgentPort>) -> Result<Self, ListenError> {
        ioctl_fionbio(&fd, true).map_err(|errno| ListenError::Activation(errno.into()))?;
        let listener = VsockListener::from(fd);
        let passed = listener.local_addr().map_err(ListenError::Activation)?.port();
        check(passed, requested)?;
        tracing::info!(port = passed, "listening on the service manager's vsock port");
        Ok(Self(listener))
    }

    /// Returns the host as the destination of an announcement.
    pub(super) fn announce_target(&self) -> Option<AnnounceTarget> {
        let port = i64::from(self.0.local_addr().ok()?.port());
        Some(AnnounceTarget::Host { port: port.try_into().ok()? })
    }

    pub(super) async fn serve(self, agent: &Agent, shutdown: impl Future<Output = ()>) {
        let mut sessions = JoinSet::new();
        tokio::pin!(shutdown);
        loop {
            tokio::select! {
                () = &mut shutdown => return,
                Some(_ended) = sessions.join_next() => {}
                accepted = self.0.accept() => match accepted {
                    Ok((stream, peer)) if peer.cid() == VMADDR_CID_HOST => {
                        let agent = agent.clone();
                        let session: BoxedTask = Box::pin(async move { agent.serve(stream).await });
                        sessions.spawn(session);
                    }
                    // At debug level: an unprivileged process in the guest can trigger this at will.
                    Ok((_, peer)) => tracing::debug!(cid = peer.cid(), "refused a peer that is not the host"),
                    Err(error) => pause_after(error).await,
                },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::error::Error;

    #[test]
    fn a_port_in_use_is_not_reported_as_a_missing_device() {
        let in_use = failed(AgentPort::DEFAULT, io::ErrorKind::AddrInUse.into());
        let message = in_use.to_string();
        assert!(
            message.contains("VSOCK port 1024 is in use") && message.contains("--port"),
            "{message}"
        );
        assert!(!message.contains("driver") && in_use.source().is_none(), "{message}");
        let no_device = failed(AgentPort::DEFAULT, io::Error::from_raw_os_error(19));
        assert!(no_device.to_string().contains("driver"), "{no_device}");
    }

    #[test]
    fn a_socket_of_the_service_manager_must_have_the_requested_port() {
        let requested = |port: i64| Some(AgentPort::try_from(port).unwrap());
        assert!(check(1024, None).is_ok() && check(2048, requested(2048)).is_ok());
        let message = check(1024, requested(2048)).unwrap_err().to_string();
        assert!(
            message.contains("1024") && message.contains("ListenStream=vsock::2048"),
            "{message}"
        );
    }
}
