//! Bytes that go through the kernel: a Unix socket pair, and two pipes. Both sides block.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use crate::process::Peer;
use crate::{Asker, Outcome};

struct Ends<I, O> {
    input: I,
    output: O,
}

impl<I: Read, O: Write> Asker for Ends<I, O> {
    #[inline]
    fn trip(&mut self, message: &[u8], answer: &mut Vec<u8>) -> Outcome<()> {
        self.output.write_all(message)?;
        answer.resize(message.len(), 0);
        self.input.read_exact(answer)?;
        Ok(())
    }
}

pub(crate) fn ask_socket(peer: &Peer, _: usize) -> Outcome<Box<dyn Asker>> {
    let (ours, theirs) = UnixStream::pair()?;
    peer.give("socket", &[theirs.as_fd()])?;
    peer.take()?;
    Ok(Box::new(Ends {
        input: ours.try_clone()?,
        output: ours,
    }))
}

pub(crate) fn ask_pipe(peer: &Peer, _: usize) -> Outcome<Box<dyn Asker>> {
    let (there_out, there_in) = io::pipe()?;
    let (back_out, back_in) = io::pipe()?;
    peer.give("pipes", &[there_out.as_fd(), back_in.as_fd()])?;
    peer.take()?;
    Ok(Box::new(Ends {
        input: back_out,
        output: there_in,
    }))
}

pub(crate) fn answer_socket(peer: &Peer, bytes: usize) -> Outcome<()> {
    let (_, fds) = peer.take()?;
    let [socket] = <[OwnedFd; 1]>::try_from(fds).map_err(|_| "no socket came")?;
    let socket = File::from(socket);
    answer(peer, bytes, socket.try_clone()?, socket)
}

pub(crate) fn answer_pipe(peer: &Peer, bytes: usize) -> Outcome<()> {
    let (_, fds) = peer.take()?;
    let [input, output] = <[OwnedFd; 2]>::try_from(fds).map_err(|_| "no pipes came")?;
    answer(peer, bytes, File::from(input), File::from(output))
}

/// Sends each message back until the other side closes its end.
fn answer(peer: &Peer, bytes: usize, mut input: File, mut output: File) -> Outcome<()> {
    peer.give("ready", &[])?;
    let mut message = vec![0; bytes];
    loop {
        match input.read_exact(&mut message) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(()),
            outcome => outcome?,
        }
        output.write_all(&message)?;
    }
}
