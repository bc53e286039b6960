//! A UDP socket that answers from the address to which the query was sent.
//!
//! Without this, a socket of `0.0.0.0` or `[::]` on a machine with several addresses sends from the address of the
//! route to the sender of the query. That sender drops an answer from an address that it did not ask.

use std::{
    io::{self, IoSlice, IoSliceMut},
    net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6},
    os::fd::AsRawFd,
};

use nix::{
    libc,
    sys::socket::{
        ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg, setsockopt, sockopt,
    },
};
use tokio::{io::Interest, net::UdpSocket};

/// The socket.
#[derive(Debug)]
pub(super) struct Udp(UdpSocket);

/// A message that was received.
pub(super) struct Received {
    /// The length of the message in the buffer, in bytes.
    pub length: usize,
    /// The address of the sender.
    pub asker: SocketAddr,
    /// Our address to which it was sent. `None` if the socket has only one.
    pub asked: Option<Asked>,
}

/// An address of ours, as the kernel reports it (`ip(7)`, `ipv6(7)`).
#[derive(Clone, Copy)]
pub(super) enum Asked {
    V4(libc::in_pktinfo),
    V6(libc::in6_pktinfo),
}

impl Udp {
    /// Binds `address`. It is asynchronous only in form, and does not wait.
    pub async fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = UdpSocket::bind(address).await?;
        if address.ip().is_unspecified() {
            match address {
                SocketAddr::V4(_) => setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?,
                // This covers IPv4, too, which `[::]` accepts. The addresses are then ::ffff:a.b.c.d.
                SocketAddr::V6(_) => setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?,
            }
        }
        Ok(Self(socket))
    }

    /// The next message, cut to the length of `buffer`. Safe to drop: no message is lost.
    pub async fn receive(&self, buffer: &mut [u8]) -> io::Result<Received> {
        self.0
            .async_io(Interest::READABLE, || {
                let mut control = nix::cmsg_space!(libc::in_pktinfo, libc::in6_pktinfo);
                let mut parts = [IoSliceMut::new(buffer)];
                let received = recvmsg::<SockaddrStorage>(
                    self.0.as_raw_fd(),
                    &mut parts,
                    Some(&mut control),
                    MsgFlags::empty(),
                )?;
                let asker = received.address.as_ref().and_then(sender).ok_or(io::ErrorKind::InvalidData)?;
                let asked = received.cmsgs()?.find_map(Asked::of);
                Ok(Received { length: received.bytes, asker, asked })
            })
            .await
    }

    /// Sends `message` to `asker`, from the address `asked`.
    pub async fn send(&self, message: &[u8], asker: SocketAddr, asked: Option<Asked>) -> io::Result<()> {
        let to = SockaddrStorage::from(asker);
        self.0
            .async_io(Interest::WRITABLE, || {
                let from = asked.as_ref().map(|asked| match asked {
                    Asked::V4(info) => ControlMessage::Ipv4PacketInfo(info),
                    Asked::V6(info) => ControlMessage::Ipv6PacketInfo(info),
                });
                let parts = [IoSlice::new(message)];
                sendmsg(self.0.as_raw_fd(), &parts, from.as_slice(), MsgFlags::empty(), Some(&to))?;
                Ok(())
            })
            .await
    }
}

impl Asked {
    /// Our address from this control message, ready to be the sender of the answer. `None` for a multicast address,
    /// because nothing can be sent from one.
    fn of(message: ControlMessageOwned) -> Option<Self> {
        match message {
            ControlMessageOwned::Ipv4PacketInfo(mut info) => {
                // The routes decide through which interface the answer goes.
                info.ipi_ifindex = 0;
                Some(Self::V4(info))
            }
            ControlMessageOwned::Ipv6PacketInfo(mut info) => {
                let ip = Ipv6Addr::from(info.ipi6_addr.s6_addr);
                // A link-local address is valid only on its link, so the interface stays.
                if !ip.is_unicast_link_local() {
                    info.ipi6_ifindex = 0;
                }
                (!IpAddr::from(ip).to_canonical().is_multicast()).then_some(Self::V6(info))
            }
            _ => None,
        }
    }
}

fn sender(address: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = address.as_sockaddr_in().map(|&address| SocketAddrV4::from(address).into());
    v4.or_else(|| address.as_sockaddr_in6().map(|&address| SocketAddrV6::from(address).into()))
}
