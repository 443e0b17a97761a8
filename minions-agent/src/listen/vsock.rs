//! AF_VSOCK, for the host only.
//!
//! A process in the guest can connect to the guest's own CID, or to the loopback CID, and would
//! otherwise be served as if it were the host. The kernel fills in the peer's CID, so it can't be
//! forged.

use super::{ListenError, pause_after};
use crate::Agent;
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

/// Whether the port that was passed is the one that was asked for, if one was.
fn check(passed: u32, asked: Option<AgentPort>) -> Result<(), ListenError> {
    match asked.filter(|asked| asked.get() != passed) {
        Some(asked) => Err(ListenError::OtherPort { passed, asked }),
        None => Ok(()),
    }
}

/// A VSOCK port.
#[derive(Debug)]
pub(super) struct Listener(VsockListener);

impl Listener {
    pub(super) fn bind(port: AgentPort) -> Result<Self, ListenError> {
        let listener = VsockListener::bind(VsockAddr::new(VMADDR_CID_ANY, port.get()))
            .map_err(|source| failed(port, source))?;
        tracing::info!(%port, "listening on vsock");
        Ok(Self(listener))
    }

    /// A socket that listens already, on the port that was `asked` for, if one was.
    pub(super) fn of(fd: OwnedFd, asked: Option<AgentPort>) -> Result<Self, ListenError> {
        ioctl_fionbio(&fd, true).map_err(|errno| ListenError::Activation(errno.into()))?;
        let listener = VsockListener::from(fd);
        let passed = listener.local_addr().map_err(ListenError::Activation)?.port();
        check(passed, asked)?;
        tracing::info!(port = passed, "listening on the service manager's vsock port");
        Ok(Self(listener))
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
                        sessions.spawn(async move { agent.serve(stream).await });
                    }
                    // At debug: whoever it is can do it as often as he likes.
                    Ok((_, peer)) => tracing::debug!(cid = peer.cid(), "not the host: closed"),
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
    fn a_port_in_use_is_not_taken_for_a_missing_device() {
        let in_use = failed(AgentPort::DEFAULT, io::ErrorKind::AddrInUse.into());
        let said = in_use.to_string();
        assert!(said.contains("VSOCK port 1024 is in use") && said.contains("--port"), "{said}");
        assert!(!said.contains("driver") && in_use.source().is_none(), "{said}");
        let no_device = failed(AgentPort::DEFAULT, io::Error::from_raw_os_error(19));
        assert!(no_device.to_string().contains("driver"), "{no_device}");
    }

    #[test]
    fn a_socket_of_the_service_manager_must_have_the_port_that_was_asked_for() {
        let asked = |port: i64| Some(AgentPort::try_from(port).unwrap());
        assert!(check(1024, None).is_ok() && check(2048, asked(2048)).is_ok());
        let said = check(1024, asked(2048)).unwrap_err().to_string();
        assert!(said.contains("1024") && said.contains("ListenStream=vsock::2048"), "{said}");
    }
}
