//! Netlink notifications. Only the fact that something has changed is used; the caller reads the new state.

use crate::watched::watch;
use rustix::io::Errno;
use rustix::net::netlink::{KOBJECT_UEVENT, SocketAddrNetlink};
use rustix::net::{AddressFamily, Protocol, RecvFlags, SocketFlags, SocketType};
use rustix::net::{bind, recv, socket_with};
use std::io;
use std::os::fd::OwnedFd;
use tokio::io::unix::AsyncFd;

/// `RTMGRP_LINK`: an interface was added, removed or changed.
const LINKS: u32 = 1;

/// `RTMGRP_IPV4_IFADDR`, `RTMGRP_IPV4_ROUTE`, `RTMGRP_IPV6_IFADDR`, `RTMGRP_IPV6_ROUTE`: an address or a route was added,
/// removed or changed.
const ADDRESSES_AND_ROUTES: u32 = 0x10 | 0x40 | 0x100 | 0x400;

/// `MONITOR_GROUP_UDEV`: udev has processed a device.
const UDEV: u32 = 2;

/// Socket that is a member of multicast groups. Messages are discarded, and the kernel's buffer for them is
/// bounded.
#[derive(Debug)]
pub(super) struct NetlinkEvents {
    socket: AsyncFd<OwnedFd>,
}

impl NetlinkEvents {
    pub(super) fn of_links() -> io::Result<Self> {
        // `NETLINK_ROUTE` is zero, the default.
        Self::open(None, LINKS)
    }

    /// Opens a socket for changes of interfaces, addresses and routes.
    pub(super) fn of_network() -> io::Result<Self> {
        Self::open(None, LINKS | ADDRESSES_AND_ROUTES)
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

    /// Waits for a notification since the socket was opened or since this returned last. Cancel safe.
    pub(super) async fn next(&self) -> io::Result<()> {
        loop {
            let mut ready = self.socket.readable().await?;
            let mut happened = false;
            loop {
                match recv(&self.socket, &mut [0_u8; 1], RecvFlags::TRUNC) {
                    // ENOBUFS: the kernel dropped notifications for lack of room.
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
