//! The two processes, and the packet socket between them.

use std::cell::Cell;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use toolb_core::sys::seqpacket::Seqpacket;

use crate::Outcome;

/// The argument that makes this program the side that answers.
pub(crate) const PEER: &str = "--peer";
/// Empty looks of one who polls between two looks whether the other side is still there.
const LOOKS: u32 = 1 << 16;

/// The process at the other end. It hangs up by closing the socket.
pub(crate) struct Peer {
    control: Seqpacket,
    child: Option<Child>,
    empty: Cell<u32>,
}

impl Peer {
    /// Starts the side that answers, on a core of its own.
    pub(crate) fn start(way: &str, bytes: usize, core: usize) -> Outcome<Peer> {
        let (ours, theirs) = Seqpacket::pair()?;
        let mut command = Command::new(std::env::current_exe()?);
        command
            .args([PEER, way, &bytes.to_string()])
            .stdin(Stdio::from(OwnedFd::from(theirs)));
        // SAFETY: between fork and exec only a system call is made.
        unsafe { command.pre_exec(move || pin(core)) };
        Ok(Peer {
            control: ours,
            child: Some(command.spawn()?),
            empty: Cell::new(0),
        })
    }

    /// In the process that was started: the one that started it.
    pub(crate) fn inherited() -> io::Result<Peer> {
        Ok(Peer {
            control: Seqpacket::from(io::stdin().as_fd().try_clone_to_owned()?),
            child: None,
            empty: Cell::new(0),
        })
    }

    /// Gives the other side a text and descriptors.
    pub(crate) fn give(&self, text: &str, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        self.control.send(text.as_bytes(), fds)
    }

    /// Takes what the other side gives.
    pub(crate) fn take(&self) -> Outcome<(String, Vec<OwnedFd>)> {
        let (mut text, mut fds) = ([0; 256], Vec::new());
        let count = self.control.recv(&mut text, &mut fds)?;
        if count == 0 {
            return Err("the other side has ended".into());
        }
        Ok((String::from_utf8(text[..count].to_vec())?, fds))
    }

    /// What one who polls does when there was nothing. False: the other side has hung up.
    #[inline]
    pub(crate) fn pause(&self) -> io::Result<bool> {
        std::hint::spin_loop();
        self.empty.set(self.empty.get() + 1);
        if self.empty.get() < LOOKS {
            return Ok(true);
        }
        self.empty.set(0);
        // Nothing is said on the socket once the trips go on.
        Ok(!self.control.wait(Some(Duration::ZERO))?)
    }

    /// The socket, for one who sleeps: readable when the other side has hung up.
    pub(crate) fn control(&self) -> BorrowedFd<'_> {
        self.control.as_fd()
    }

    /// Hangs up, and waits for the process.
    pub(crate) fn finish(self) -> Outcome<()> {
        drop(self.control);
        let Some(mut child) = self.child else {
            return Ok(());
        };
        match child.wait()?.success() {
            true => Ok(()),
            false => Err("the side that answers has failed".into()),
        }
    }
}

/// Two cores this process may run on, those that share least.
pub(crate) fn two_cores() -> Outcome<(usize, usize)> {
    // SAFETY: a set of processors is plain data, and is given with its size.
    let set = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        if libc::sched_getaffinity(0, size_of_val(&set), &mut set) < 0 {
            return Err(io::Error::last_os_error().into());
        }
        set
    };
    // SAFETY: the numbers are within the set.
    let allowed: Vec<usize> = (0..libc::CPU_SETSIZE as usize)
        .filter(|core| unsafe { libc::CPU_ISSET(*core, &set) })
        .collect();
    let [first, .., last] = allowed[..] else {
        return Err("two processes that poll need two cores".into());
    };
    let other = allowed[1..].iter().find(|core| !siblings(first, **core));
    Ok((first, *other.unwrap_or(&last)))
}

/// Keeps this thread on one core.
pub(crate) fn pin(core: usize) -> io::Result<()> {
    // SAFETY: a set of processors is plain data; the core is one of the set of this process.
    let done = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(core, &mut set);
        libc::sched_setaffinity(0, size_of_val(&set), &set)
    };
    match done {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Whether two numbers are threads of one core.
fn siblings(one: usize, other: usize) -> bool {
    let mut text = String::new();
    let path = format!("/sys/devices/system/cpu/cpu{one}/topology/thread_siblings_list");
    let read = std::fs::File::open(path).and_then(|mut file| file.read_to_string(&mut text));
    read.is_ok()
        && text.trim().split(',').any(|part| {
            let mut ends = part.split('-').filter_map(|end| end.parse().ok());
            let from: Option<usize> = ends.next();
            let to = ends.next().or(from);
            from.zip(to)
                .is_some_and(|(from, to)| (from..=to).contains(&other))
        })
}
