//! AF_VSOCK listener that serves only the host.
//!
//! A process in the guest can also connect, through the guest's own CID or the loopback CID. Therefore the
//! peer's CID is checked; the kernel fills it in, so it cannot be forged.

use super::{ListenError, pause_after};
use crate::Agent;
use rustix::io::ioctl_fionbio;
use std::io;
use std::os::fd::OwnedFd;
use tokio::task::JoinSet;
use tokio_vsock::{VMADDR_CID_ANY, VMADDR_CID_HOST, VsockAddr, VsockListener};

/// Listening VSOCK port.
#[derive(Debug)]
pub(super) struct HostListener(VsockListener);

impl HostListener {
    pub(super) fn bind(port: u32) -> Result<Self, ListenError> {
        let listener = VsockListener::bind(VsockAddr::new(VMADDR_CID_ANY, port))
            .map_err(|source| ListenError::Vsock { port, source })?;
        tracing::info!(port, "listening on vsock");
        Ok(Self(listener))
    }

    /// Uses a socket that already listens.
    pub(super) fn of(fd: OwnedFd) -> io::Result<Self> {
        ioctl_fionbio(&fd, true)?;
        tracing::info!("listening on the service manager's vsock port");
        Ok(Self(VsockListener::from(fd)))
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
                    // At debug level: an unprivileged process in the guest can trigger this at will.
                    Ok((_, peer)) => tracing::debug!(cid = peer.cid(), "refused a peer that is not the host"),
                    Err(error) => pause_after(error).await,
                },
            }
        }
    }
}
