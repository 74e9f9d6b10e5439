//! Loopback ports.

use anyhow::{Context, Result};
use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, Ipv6Addr, TcpListener},
    sync::{Mutex, PoisonError},
};

/// Below the range from which Linux takes ports for outgoing connections, so that a server that
/// is stopped and started again finds its port free.
const FREE: std::ops::Range<u16> = 20_000..32_000;
/// Ports tried before giving up.
const ATTEMPTS: usize = 500;

/// `preferred` where nobody listens on it and it is not among `taken`, else [`free`].
pub fn pick(preferred: u16, taken: &[u16]) -> Result<u16> {
    if !taken.contains(&preferred) && is_free(preferred) { Ok(preferred) } else { free(taken) }
}

/// What [`free`] gave before: its server may not listen yet.
static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());

/// A random free loopback port that is not among `taken`; never the same twice in a process.
pub fn free(taken: &[u16]) -> Result<u16> {
    for _ in 0..ATTEMPTS {
        let random = getrandom::u32().context("the system gives no random numbers")?;
        let port = FREE.start + (random % u32::from(FREE.end - FREE.start)) as u16;
        if !taken.contains(&port)
            && is_free(port)
            && GIVEN.lock().unwrap_or_else(PoisonError::into_inner).insert(port)
        {
            return Ok(port);
        }
    }
    anyhow::bail!("found no free port on 127.0.0.1 between {} and {}", FREE.start, FREE.end)
}

/// Whether nobody listens on the port, on either loopback address: clients that are told
/// `localhost` try both.
pub fn is_free(port: u16) -> bool {
    let taken = |result: std::io::Result<TcpListener>| {
        result.is_err_and(|error| error.kind() == std::io::ErrorKind::AddrInUse)
    };
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
        && !taken(TcpListener::bind((Ipv6Addr::LOCALHOST, port)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_replaced() {
        let holder = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = holder.local_addr().unwrap().port();
        assert!(!is_free(port));
        let other = pick(port, &[]).unwrap();
        assert_ne!(other, port);
        // A process that another test forks just now holds our probe's socket for an instant.
        assert!((0..100).any(|_| pick(other, &[]).unwrap() == other));
        assert_ne!(pick(other, &[other]).unwrap(), other);
    }
}
