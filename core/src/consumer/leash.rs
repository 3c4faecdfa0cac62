//! What ties a worker of `toolb work` to the program that has started it, while its engine is
//! somewhere else.
#![forbid(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{AttachError, ControlEvent};
use crate::message::{Control, MAX_CONTROL_PACKET};
use crate::sys::{inherited, seqpacket::Seqpacket};

/// A worker's end of it.
#[derive(Debug)]
pub struct Leash {
    socket: Seqpacket,
    state: Mutex<State>,
}

/// What the supervisor is told.
#[derive(Debug, Default)]
struct State {
    /// It wants to know: those of older releases do not.
    asked: bool,
    attached: bool,
    why: String,
}

impl Leash {
    /// Takes the socket that `address`, the value of TOOLB_SUPERVISOR, names as `fd:N`.
    pub fn take(address: &str) -> Result<Self, AttachError> {
        let number = address.strip_prefix("fd:").and_then(|fd| fd.parse().ok());
        let fd: RawFd = number.ok_or_else(|| AttachError::Address(address.to_owned()))?;
        let inherited = |error| AttachError::Inherited { fd, error };
        let socket = inherited::packet_socket(fd).map_err(inherited)?;
        socket.set_nonblocking(true).map_err(AttachError::Io)?;
        Ok(Self {
            socket,
            state: Mutex::default(),
        })
    }

    /// The application has started.
    pub fn ready(&self) {
        self.tell(&Control::Ready);
    }

    /// The application does not start. `permanent`: nor would it if tried again.
    pub fn fail(&self, reason: &str, permanent: bool) {
        self.tell(&Control::Failed {
            reason: reason.to_owned(),
            permanent,
        });
    }

    /// It ends when it has finished what it has begun, though it was not asked to from here.
    pub fn leave(&self) {
        self.tell(&Control::Draining);
    }

    /// It is with an engine, or not, and why.
    pub fn attached(&self, attached: bool, why: &str) {
        let mut state = self.state();
        let changes = state.attached != attached || state.why != why;
        state.attached = attached;
        state.why = why.to_owned();
        if state.asked && changes {
            self.tell(&state.packet());
        }
    }

    /// What the supervisor says: to drain is to take leave of the engine and to finish what there
    /// is; said a second time, it is to hurry. To be called until there is nothing.
    pub fn word(&self) -> ControlEvent {
        let mut packet = vec![0; MAX_CONTROL_PACKET];
        loop {
            match self.socket.recv(&mut packet, &mut Vec::new()) {
                Ok(0) => return ControlEvent::HangUp,
                Ok(len) => match Control::decode(&packet[..len]) {
                    Ok(Control::Drain { left }) => return ControlEvent::Drain { left },
                    Ok(Control::Error(text)) => return ControlEvent::Error(text),
                    // That it is answered tells that this process turns.
                    Ok(Control::Ask) => {
                        let mut state = self.state();
                        state.asked = true;
                        self.tell(&state.packet());
                    }
                    // What a worker need not know.
                    _ => {}
                },
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return ControlEvent::None;
                }
                Err(_) => return ControlEvent::HangUp,
            }
        }
    }

    /// A supervisor that has gone is noticed by its hang-up.
    fn tell(&self, packet: &Control) {
        let _ = self.socket.send(&packet.encode(), &[]);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic cannot leave it half written.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsRawFd for Leash {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

impl State {
    fn packet(&self) -> Control {
        Control::State {
            attached: self.attached,
            why: self.why.clone(),
        }
    }
}
