//! Word of an engine that has gone, for a thread beside the one that the application may block.
#![forbid(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use crate::sys::{process, seqpacket::Seqpacket, signal, wait_hang_up};

/// Waits for the engine to hang up; see [`Consumer::hang_up`](super::Consumer::hang_up).
#[derive(Debug)]
pub struct HangUp(OwnedFd);

impl HangUp {
    pub(super) fn of(socket: &Seqpacket) -> io::Result<Self> {
        socket.as_fd().try_clone_to_owned().map(Self)
    }

    /// Blocks until the engine has hung up. It reads nothing, and no signal comes to the calling
    /// thread from now on.
    pub fn wait(&self) -> io::Result<()> {
        signal::leave_to_others();
        wait_hang_up(self.0.as_fd())
    }

    /// Ends this process as it is: no destructor and no exit handler runs. `line`, with its end,
    /// goes to standard error if there is room for it.
    pub fn end_process(self, line: &str, code: i32) -> ! {
        process::end_at_once(line, code)
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn packets_are_no_hang_up_and_are_left_to_others() {
        let (engine, consumer) = Seqpacket::pair().unwrap();
        let hang_up = HangUp::of(&consumer).unwrap();
        engine.send(b"drain", &[]).unwrap();
        let waits = thread::spawn(move || hang_up.wait());
        let mut packet = [0; 8];
        assert_eq!(consumer.recv(&mut packet, &mut Vec::new()).unwrap(), 5);
        engine.send(b"more", &[]).unwrap();
        assert!(!waits.is_finished());
        drop(engine);
        waits.join().unwrap().unwrap();
        assert_eq!(consumer.recv(&mut packet, &mut Vec::new()).unwrap(), 4);
    }
}
