//! Word of an engine that has gone, for a thread beside the one that the application may block.
#![forbid(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use crate::sys::{eventfd::EventFd, process, seqpacket::Seqpacket, signal, wait_hang_up};

/// Waits for the engine to hang up; see [`Consumer::hang_up`](super::Consumer::hang_up).
#[derive(Debug)]
pub struct HangUp {
    socket: OwnedFd,
    off: EventFd,
}

impl HangUp {
    pub(super) fn of(socket: &Seqpacket) -> io::Result<Self> {
        Ok(Self {
            socket: socket.as_fd().try_clone_to_owned()?,
            off: EventFd::new()?,
        })
    }

    /// Blocks until the engine has hung up, or the wait is called off: then it is false. It reads
    /// nothing, and no signal comes to the calling thread from now on.
    pub fn wait(&self) -> io::Result<bool> {
        signal::leave_to_others();
        wait_hang_up(self.socket.as_fd(), self.off.as_fd())
    }

    /// Blocks for that time. False: that was called off.
    pub fn pause(&self, time: Duration) -> io::Result<bool> {
        self.off.wait(Some(time)).map(|off| !off)
    }

    /// Ends what another thread waits for, and all waits to come until they are
    /// [resumed](Self::resume).
    pub fn call_off(&self) -> io::Result<()> {
        self.off.signal()
    }

    /// Allows to wait again.
    pub fn resume(&self) {
        self.off.drain();
    }

    /// Ends this process as it is: no destructor and no exit handler runs. `line`, with its end,
    /// goes to standard error if there is room for it.
    pub fn end_process(&self, line: &str, code: i32) -> ! {
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
        assert!(waits.join().unwrap().unwrap());
        assert_eq!(consumer.recv(&mut packet, &mut Vec::new()).unwrap(), 4);
    }

    #[test]
    fn waits_are_called_off_and_resumed() {
        let (engine, consumer) = Seqpacket::pair().unwrap();
        let hang_up = HangUp::of(&consumer).unwrap();
        thread::scope(|scope| {
            let waits = scope.spawn(|| hang_up.wait());
            hang_up.call_off().unwrap();
            assert!(!waits.join().unwrap().unwrap());
            let pauses = scope.spawn(|| hang_up.pause(Duration::MAX));
            assert!(!pauses.join().unwrap().unwrap());
            hang_up.resume();
            assert!(hang_up.pause(Duration::ZERO).unwrap());
            drop(engine);
            let waits = scope.spawn(|| hang_up.wait());
            assert!(waits.join().unwrap().unwrap());
        });
    }
}
