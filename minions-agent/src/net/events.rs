//! That something happened, as netlink's groups tell it. What it was is looked up.

use crate::watched::watch;
use rustix::io::Errno;
use rustix::net::netlink::{KOBJECT_UEVENT, SocketAddrNetlink};
use rustix::net::{AddressFamily, Protocol, RecvFlags, SocketFlags, SocketType};
use rustix::net::{bind, recv, socket_with};
use std::io;
use std::os::fd::OwnedFd;
use tokio::io::unix::AsyncFd;

/// `RTMGRP_LINK`: interfaces come, go and change.
const LINKS: u32 = 1;

/// `MONITOR_GROUP_UDEV`: udev has done with a device.
const UDEV: u32 = 2;

/// A socket that is in one group. What comes is thrown away, and more than the kernel keeps is none of
/// ours: it can't grow.
#[derive(Debug)]
pub(super) struct Events {
    socket: AsyncFd<OwnedFd>,
}

impl Events {
    pub(super) fn of_links() -> io::Result<Self> {
        // `NETLINK_ROUTE` is zero, the default.
        Self::open(None, LINKS)
    }

    pub(super) fn of_udev() -> io::Result<Self> {
        Self::open(Some(KOBJECT_UEVENT), UDEV)
    }

    fn open(protocol: Option<Protocol>, groups: u32) -> io::Result<Self> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::NETLINK, SocketType::DGRAM, flags, protocol)?;
        bind(&socket, &SocketAddrNetlink::new(0, groups))?;
        Ok(Self { socket: watch(socket)? })
    }

    /// Until something has happened since it was opened, or since this returned last. Dropping the
    /// future loses nothing.
    pub(super) async fn next(&self) -> io::Result<()> {
        loop {
            let mut ready = self.socket.readable().await?;
            let mut happened = false;
            loop {
                match recv(&self.socket, &mut [0_u8; 1], RecvFlags::TRUNC) {
                    // The latter: there was no room for what happened.
                    Ok(_) | Err(Errno::NOBUFS) => happened = true,
                    Err(Errno::INTR) => {}
                    Err(Errno::AGAIN) => break,
                    Err(error) => return Err(error.into()),
                }
            }
            ready.clear_ready();
            if happened {
                return Ok(());
            }
        }
    }
}
