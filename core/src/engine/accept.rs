//! Accepting connections, and resting from it while the process is out of descriptors.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};

use crate::log::{self, Level, Throttle};
use crate::sys::epoll;
use crate::sys::shortage;
use crate::sys::socket::Socket;

use super::conn::Conn;
use super::event_loop::{Loop, Purpose, TAG_LISTENER, Timer};
use super::reserve::Guest;

impl Loop {
    /// Accepts at most so many connections, and says how many.
    pub(super) fn accept_at(&mut self, address: usize, most: usize) -> usize {
        for taken in 0..most {
            // An event of this turn may tell of a listener that a drain has closed since.
            let Some(listener) = self.listeners.get(address) else {
                return taken;
            };
            if self.shared.reserve.is_next(listener.as_fd()) {
                self.pause_accepting(None);
                return taken;
            }
            let (socket, peer) = match listener.accept() {
                Ok(Some(accepted)) => accepted,
                Ok(None) => {
                    self.note_acceptance();
                    return taken;
                }
                // Out of descriptors or memory: the listener stays readable, so look away a while.
                Err(error) => {
                    self.pause_accepting(Some(&error));
                    return taken;
                }
            };
            let guest = self.shared.reserve.receive(socket.as_raw_fd());
            let goes_on = match self.purposes[address] {
                Purpose::Service(service) => self.stream_accepted(service, socket, peer, guest),
                Purpose::Http | Purpose::Streams(_) => {
                    self.conn_accepted(address, socket, peer, guest)
                }
            };
            if !goes_on {
                return taken + 1;
            }
        }
        most
    }

    /// Looks away from all listeners for a while, since a call has failed, or because the
    /// descriptors that are left are not for clients.
    pub(super) fn pause_accepting(&mut self, error: Option<&io::Error>) {
        if !std::mem::replace(&mut self.accepting, false) {
            return;
        }
        static TOLD: Throttle = Throttle::of(1);
        let open = self.conns.len() + self.calls.streams.len();
        if self.rests_since.is_none() {
            let what = match error.filter(|error| !shortage::is_of_open_files(error)) {
                None => format!(
                    "out of open files ({open} connections): accepting rests; \
                     raise the limit (ulimit -n)"
                ),
                Some(error) => format!(
                    "cannot take another client ({open} connections), accepting rests: {}",
                    shortage::explain(error)
                ),
            };
            if log::limited(&TOLD, Level::Warning, format_args!("{what}")) {
                self.rests_since = Some(self.now);
            }
        }
        for listener in &self.listeners {
            let _ = self.epoll.delete(listener);
        }
        self.look_again();
    }

    pub(super) fn resume_accepting(&mut self) {
        if self.accepting {
            return;
        }
        let any = self.listeners.first();
        if any.is_some_and(|any| self.shared.reserve.is_next(any.as_fd())) {
            return self.look_again();
        }
        if self.draining && any.is_some() {
            self.accept_last();
            return self.check_idle();
        }
        self.accepting = true;
        let mut listeners = self.listeners.iter().enumerate();
        let watched = listeners.try_for_each(|(address, listener)| {
            let token = TAG_LISTENER | address as u64;
            self.epoll.add(listener, token, epoll::IN)
        });
        if let Err(error) = watched {
            // Without memory for that either, it would be deaf from now on.
            self.pause_accepting(Some(&error));
        }
    }

    fn look_again(&mut self) {
        self.deadlines
            .insert(self.now + ACCEPT_PAUSE, Timer::Accept);
    }

    /// Nobody waits to be accepted: if it was told that accepting rests, that is over.
    fn note_acceptance(&mut self) {
        if let Some(since) = self.rests_since.take() {
            let seconds = self.now.saturating_sub(since) as f64 / 1e9;
            log::warning(format_args!(
                "accepting goes on: no client waits any more, after {seconds:.1} s"
            ));
        }
    }

    /// A client has connected, to speak HTTP or with a consumer. False: there is no room for more.
    fn conn_accepted(
        &mut self,
        address: usize,
        socket: Socket,
        peer: Option<SocketAddr>,
        guest: Option<Guest>,
    ) -> bool {
        let peer = peer.map(|peer| (peer.ip().to_string().into_boxed_str(), peer.port()));
        let mut conn = Conn::new(socket, peer, address as u16, self.now);
        conn.guest = guest;
        let key = self.conns.insert(conn);
        let flags = epoll::IN | epoll::OUT | epoll::RDHUP | epoll::EDGE;
        // The key was just handed out, so the connection is there.
        let Some(conn) = self.conns.get_mut(key) else {
            return false;
        };
        if let Err(error) = self.epoll.add(&conn.socket, key, flags) {
            self.conns.remove(key);
            self.pause_accepting(Some(&error));
            return false;
        }
        self.stats().accepted.add(1);
        if matches!(self.purposes[address], Purpose::Streams(_)) {
            self.begin_stream(key);
        }
        self.set_timer(key);
        true
    }
}

/// Accept at most this many connections before others have had their turn.
pub(super) const ACCEPT_BATCH: usize = 64;
/// Accepting rests this long after the process ran out of descriptors.
const ACCEPT_PAUSE: u64 = 100_000_000;

#[cfg(test)]
mod tests {
    use super::super::Routes;
    use super::super::event_loop::tests::unstarted;
    use super::*;
    use crate::time::Deadlines;

    #[test]
    fn accepting_rests_on_until_it_can_be_woken_for() {
        let (_engine, mut one) = unstarted(Routes::default());
        one.pause_accepting(None);
        // In place of a machine without memory: what is watched already cannot be added.
        one.epoll.add(&one.listeners[0], 0, epoll::IN).unwrap();
        one.deadlines = Deadlines::new();
        one.resume_accepting();
        assert!(!one.accepting);
        assert!(one.deadlines.next().is_some(), "it tries again");
        one.resume_accepting();
        assert!(one.accepting);
    }
}
