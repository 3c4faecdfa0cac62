//! Signals as a descriptor.

use std::io;
use std::mem::{self, MaybeUninit};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::ptr;

use super::call::new_fd;

pub use libc::{SIGABRT, SIGHUP, SIGINT, SIGKILL, SIGTERM};

/// Signals that are blocked in this thread, and in the threads it starts from now on, and are read
/// here instead. The mask is as before once this is dropped.
#[derive(Debug)]
pub struct Signals {
    fd: OwnedFd,
    before: libc::sigset_t,
}

impl Signals {
    /// Blocks `signals` and reads them from now on.
    pub fn block(signals: &[i32]) -> io::Result<Self> {
        let set = set_of(signals);
        let mut before = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: a valid set, and room for the old one, which the call fills in.
        let error = unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &set, before.as_mut_ptr()) };
        if error != 0 {
            return Err(io::Error::from_raw_os_error(error));
        }
        // SAFETY: the call above succeeded.
        let before = unsafe { before.assume_init() };
        let flags = libc::SFD_CLOEXEC | libc::SFD_NONBLOCK;
        // SAFETY: a valid set; the descriptor is new.
        let fd = unsafe { new_fd(libc::signalfd(-1, &set, flags)) };
        let fd = fd.inspect_err(|_| set_mask(&before))?;
        Ok(Self { fd, before })
    }

    /// The next signal that has arrived.
    pub fn next(&self) -> Option<i32> {
        let mut info = MaybeUninit::<libc::signalfd_siginfo>::uninit();
        let size = size_of::<libc::signalfd_siginfo>();
        // SAFETY: room for one record.
        let read = unsafe { libc::read(self.fd.as_raw_fd(), info.as_mut_ptr().cast(), size) };
        if read != size as isize {
            return None;
        }
        // SAFETY: a whole record was read.
        Some(unsafe { info.assume_init() }.ssi_signo as i32)
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        // What came too late must not kill the process now.
        while self.next().is_some() {}
        set_mask(&self.before);
    }
}

impl AsRawFd for Signals {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

/// Whether `signal` is ignored, as `nohup` has it for `SIGHUP`.
pub fn is_ignored(signal: i32) -> bool {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: only reads the disposition into `action`, for which zeros are valid.
    unsafe {
        libc::sigaction(signal, ptr::null(), action.as_mut_ptr());
        action.assume_init().sa_sigaction == libc::SIG_IGN
    }
}

/// Undoes an ignored `SIGCHLD` inherited from whoever started this process: children's exit
/// statuses would be lost.
pub fn keep_exit_statuses() {
    if is_ignored(libc::SIGCHLD) {
        // SAFETY: the default disposition installs no code.
        unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
    }
}

/// Has a write beyond the limit of file sizes (`ulimit -f`) be an error to whoever writes, a log
/// perhaps, and not the end of this process. In this thread and those that it starts from now on, but
/// not in children.
pub fn survive_large_files() {
    block(&[libc::SIGXFSZ]);
}

/// The same, and for a write to a pipe that nobody reads any more. For a thread that only writes, in
/// whoever's program.
pub fn survive_writes() {
    block(&[libc::SIGXFSZ, libc::SIGPIPE]);
}

fn block(signals: &[i32]) {
    let set = set_of(signals);
    // SAFETY: a valid set; the old one is not asked for.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &set, ptr::null_mut()) };
}

/// The usual name of a signal.
pub fn name(signal: i32) -> &'static str {
    match signal {
        SIGABRT => "SIGABRT",
        libc::SIGALRM => "SIGALRM",
        libc::SIGBUS => "SIGBUS",
        libc::SIGFPE => "SIGFPE",
        SIGHUP => "SIGHUP",
        libc::SIGILL => "SIGILL",
        SIGINT => "SIGINT",
        SIGKILL => "SIGKILL",
        libc::SIGPIPE => "SIGPIPE",
        libc::SIGQUIT => "SIGQUIT",
        libc::SIGSEGV => "SIGSEGV",
        libc::SIGSYS => "SIGSYS",
        SIGTERM => "SIGTERM",
        libc::SIGTRAP => "SIGTRAP",
        libc::SIGUSR1 => "SIGUSR1",
        libc::SIGUSR2 => "SIGUSR2",
        libc::SIGXCPU => "SIGXCPU",
        _ => "another signal",
    }
}

/// Leaves every signal to the other threads of this process.
pub(crate) fn leave_to_others() {
    let mut set = set_of(&[]);
    // SAFETY: a valid set.
    unsafe { libc::sigfillset(&mut set) };
    set_mask(&set);
}

/// Lets every signal through in this thread. Safe between fork and exec.
pub(super) fn unblock_all() {
    set_mask(&set_of(&[]));
}

fn set_of(signals: &[i32]) -> libc::sigset_t {
    // SAFETY: sigemptyset initialises the set it is given; sigaddset then adds to it.
    unsafe {
        let mut set: libc::sigset_t = mem::zeroed();
        libc::sigemptyset(&mut set);
        for &signal in signals {
            libc::sigaddset(&mut set, signal);
        }
        set
    }
}

fn set_mask(set: &libc::sigset_t) {
    // SAFETY: a valid set; the old mask is not asked for.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, set, ptr::null_mut()) };
}

#[cfg(test)]
mod tests {
    use super::*;

    /// To this thread only: the test harness has others.
    fn raise(signal: i32) {
        // SAFETY: the calling thread exists.
        let error = unsafe { libc::pthread_kill(libc::pthread_self(), signal) };
        assert_eq!(error, 0);
    }

    fn is_blocked(signal: i32) -> bool {
        // SAFETY: reads the mask into a zeroed set.
        unsafe {
            let mut set: libc::sigset_t = mem::zeroed();
            libc::pthread_sigmask(libc::SIG_BLOCK, ptr::null(), &mut set);
            libc::sigismember(&set, signal) == 1
        }
    }

    #[test]
    fn blocked_signals_are_read_and_the_mask_comes_back() {
        let signals = Signals::block(&[libc::SIGUSR1, libc::SIGUSR2]).unwrap();
        assert_eq!(signals.next(), None);
        raise(libc::SIGUSR2);
        assert_eq!(signals.next(), Some(libc::SIGUSR2));
        assert_eq!(signals.next(), None);
        raise(libc::SIGUSR1);
        drop(signals);
        assert!(!is_blocked(libc::SIGUSR1));
    }

    #[test]
    fn names() {
        assert_eq!(name(SIGKILL), "SIGKILL");
        assert_eq!(name(63), "another signal");
    }
}
