//! Nagle's algorithm off on connections to databases.
//!
//! A COPY is two small writes, the rows and the end, before the server says anything. With Nagle's
//! algorithm on, the second waits until the server's kernel acknowledges the first, which it puts
//! off for 40 ms. sqlx 0.9.0 leaves it on (sqlx issue 4335; put right by pull request 4336, not
//! released yet) and gives no way to its socket, so we look the socket up among our own.
//! To be removed with the sqlx that sets the option itself.

use nix::sys::socket::{ControlMessage, MsgFlags, SockaddrStorage, getpeername, sendmsg};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use std::{
    fs, io,
    mem::MaybeUninit,
    net::TcpStream,
    os::{
        fd::{AsRawFd, OwnedFd, RawFd},
        unix::net::UnixDatagram,
    },
};

/// Where the kernel lists what this process has open.
const OPEN: &str = "/proc/self/fd";

/// Switches it off on every TCP connection of this process to that port of any machine, and tells
/// on how many it did.
pub(crate) fn set(port: u16) -> io::Result<usize> {
    let (mut set, mut failed) = (0, None);
    for entry in fs::read_dir(OPEN)? {
        let Some(number) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // What was closed meanwhile, what is no socket, what has no peer: not ours.
        if peer_port(number) != Some(port) {
            continue;
        }
        match set_one(number) {
            Ok(changed) => set += usize::from(changed),
            // One that was closed in between must not hinder the others.
            Err(error) => failed = Some(error),
        }
    }
    match failed {
        Some(error) if set == 0 => Err(error),
        _ => Ok(set),
    }
}

/// Whether it had to be changed.
fn set_one(number: RawFd) -> io::Result<bool> {
    let stream = TcpStream::from(handle(number)?);
    let left_on = !stream.nodelay()?;
    if left_on {
        stream.set_nodelay(true)?;
    }
    Ok(left_on)
}

fn peer_port(number: RawFd) -> Option<u16> {
    let peer: SockaddrStorage = getpeername(number).ok()?;
    peer.as_sockaddr_in()
        .map(nix::sys::socket::SockaddrIn::port)
        .or_else(|| peer.as_sockaddr_in6().map(nix::sys::socket::SockaddrIn6::port))
}

/// An owned handle of something this process has open under a number. The kernel makes one for
/// whoever is sent the number, also where that is the sender.
fn handle(number: RawFd) -> io::Result<OwnedFd> {
    let (from, to) = UnixDatagram::pair()?;
    let text = [io::IoSlice::new(b"fd")];
    let numbers = [number];
    let rights = [ControlMessage::ScmRights(&numbers)];
    sendmsg::<()>(from.as_raw_fd(), &text, &rights, MsgFlags::empty(), None)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut text = [0; 2];
    recvmsg(&to, &mut [io::IoSliceMut::new(&mut text)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    control
        .drain()
        .find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut handles) => handles.next(),
            _ => None,
        })
        .ok_or_else(|| io::Error::other("the kernel gave no handle"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn only_connections_to_the_port_are_changed() {
        let here = TcpListener::bind("127.0.0.1:0").unwrap();
        let there = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = here.local_addr().unwrap();
        let ours = TcpStream::connect(address).unwrap();
        let other = TcpStream::connect(there.local_addr().unwrap()).unwrap();
        assert!(!ours.nodelay().unwrap() && !other.nodelay().unwrap());

        assert_eq!(set(address.port()).unwrap(), 1);
        assert!(ours.nodelay().unwrap());
        assert!(!other.nodelay().unwrap());

        assert_eq!(set(address.port()).unwrap(), 0);
        // The handle that was used is closed, the connection is not.
        assert!(ours.peer_addr().is_ok());
    }
}
