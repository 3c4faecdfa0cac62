//! One descriptor for everything a consumer waits for, for loops that can watch only one, or none.
#![forbid(unsafe_code)]

use std::{
    io,
    os::fd::{AsRawFd, RawFd},
    time::Duration,
};

use super::Consumer;
use crate::sys::{
    epoll::{EDGE, Epoll, Events, IN},
    eventfd::EventFd,
};

const DOORBELL: u64 = 0;
const CONTROL: u64 = 1;
const BELL: u64 = 2;

/// An epoll over the doorbell and the control socket of a consumer. Its own descriptor can be watched
/// level-triggered; each wake-up costs one [`wait`](Self::wait), and nothing else has to be read.
#[derive(Debug)]
pub struct Watch {
    epoll: Epoll,
    ready: Events,
    has_control: bool,
}

/// What [`Watch::wait`] found.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Woken {
    /// Anything at all; if not, the time is over or a signal came.
    pub any: bool,
    /// [`Consumer::control`] has something to say.
    pub control: bool,
}

impl Watch {
    /// Watches this consumer, which lives at least as long.
    pub fn new(consumer: &Consumer) -> io::Result<Self> {
        let epoll = Epoll::new()?;
        // An edge-triggered descriptor stays ready in the eyes of who watches the epoll until the
        // epoll is asked, and then no longer: the doorbell need not be read.
        epoll.add(&consumer.fd(), DOORBELL, IN | EDGE)?;
        epoll.add(&consumer.control_fd(), CONTROL, IN)?;
        Ok(Self {
            epoll,
            ready: Events::with_capacity(3),
            has_control: true,
        })
    }

    /// Lets this bell end a wait, too.
    pub fn add_bell(&self, bell: &EventFd) -> io::Result<()> {
        self.epoll.add(bell, BELL, IN | EDGE)
    }

    /// The descriptor: readable when there is something to [`wait`](Self::wait) for.
    pub fn fd(&self) -> RawFd {
        self.epoll.as_raw_fd()
    }

    /// Waits until something comes, at most for `timeout` (`None`: for ever), and makes the
    /// descriptor unreadable again. Not to be blocked in unless [`Consumer::arm`] allowed it.
    pub fn wait(&mut self, timeout: Option<Duration>) -> io::Result<Woken> {
        self.epoll.wait(&mut self.ready, timeout)?;
        Ok(Woken {
            any: !self.ready.is_empty(),
            control: self.ready.iter().any(|(token, _)| token == CONTROL),
        })
    }

    /// After a hang-up the control socket would stay readable for ever.
    pub fn forget_control(&mut self, consumer: &Consumer) {
        if std::mem::take(&mut self.has_control) {
            // It is of no use any more, watched or not.
            let _ = self.epoll.delete(&consumer.control_fd());
        }
    }
}
