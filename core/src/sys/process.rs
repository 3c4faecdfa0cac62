//! Child processes, known by pidfd.

use std::fmt;
use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::call::{check, new_fd};
use super::{signal, stderr, wait_readable};

/// A child process. It is killed if it still lives when this is dropped.
#[derive(Debug)]
pub struct Process {
    pid: u32,
    pidfd: OwnedFd,
    reaped: bool,
}

impl Process {
    /// Starts `command` in a process group of its own, so that Ctrl-C at the terminal reaches only
    /// us, without standard input (reading a terminal from the background would stop it), with no
    /// signal blocked, and with `inherit` open under the number it has here. `open_files` is the
    /// soft limit of descriptors it gets, if not ours.
    pub fn spawn(
        mut command: Command,
        inherit: BorrowedFd<'_>,
        open_files: Option<u64>,
    ) -> io::Result<Self> {
        let fd = inherit.as_raw_fd();
        let prepare = move || {
            signal::unblock_all();
            if let Some(soft) = open_files {
                set_open_files(soft)?;
            }
            // SAFETY: changes a flag of a descriptor that the parent holds open during the fork.
            check(unsafe { libc::fcntl(fd, libc::F_SETFD, 0) })
        };
        // SAFETY: the closure makes only calls that are safe between fork and exec, and allocates
        // nothing.
        unsafe { command.pre_exec(prepare) };
        let mut child = command.stdin(Stdio::null()).process_group(0).spawn()?;
        match pidfd_open(child.id()) {
            Ok(pidfd) => Ok(Self {
                pid: child.id(),
                pidfd,
                reaped: false,
            }),
            Err(error) => {
                // It is still ours to reap, so the number cannot mean another process.
                let _ = child.kill();
                let _ = child.wait();
                Err(error)
            }
        }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Sends a signal. Nothing happens if it has already ended.
    pub fn signal(&self, signal: i32) {
        // SAFETY: a valid pidfd; no siginfo is passed.
        unsafe {
            libc::syscall(
                libc::SYS_pidfd_send_signal,
                self.pidfd.as_raw_fd(),
                signal,
                std::ptr::null::<libc::siginfo_t>(),
                0,
            )
        };
    }

    /// Kills it and the processes it has started, unless they have left its group.
    pub fn kill(&self) {
        if self.reaped {
            return;
        }
        // SAFETY: no pointers. Until it is reaped, its id, and so the id of its group, is taken.
        unsafe { libc::kill(-(self.pid as i32), libc::SIGKILL) };
        self.signal(libc::SIGKILL);
    }

    /// How it ended, once it has. The descriptor is readable from then on.
    pub fn try_wait(&mut self) -> io::Result<Option<Exit>> {
        // SAFETY: a zeroed siginfo is valid, and stays so if there is nothing to report.
        let mut info: libc::siginfo_t = unsafe { mem::zeroed() };
        let flags = libc::WEXITED | libc::WNOHANG;
        let id = self.pidfd.as_raw_fd() as libc::id_t;
        // SAFETY: a valid pidfd and room for the answer.
        if unsafe { libc::waitid(libc::P_PIDFD, id, &mut info, flags) } < 0 {
            let error = io::Error::last_os_error();
            // Somebody else has reaped it: its number may be another's by now.
            self.reaped |= error.raw_os_error() == Some(libc::ECHILD);
            return Err(error);
        }
        // SAFETY: waitid filled in the fields of a child's end, or left zeros.
        let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
        if pid == 0 {
            return Ok(None);
        }
        self.reaped = true;
        Ok(Some(match info.si_code {
            libc::CLD_EXITED => Exit::Code(status),
            _ => Exit::Signal(status),
        }))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.reaped {
            self.kill();
            // It ends in a moment, unless it hangs in the kernel; before that it cannot be reaped.
            let until = Instant::now() + LAST_MOMENT;
            while let Ok(false) = wait_readable(self.pidfd.as_fd(), Some(LAST_MOMENT)) {
                if Instant::now() >= until {
                    break;
                }
            }
            let _ = self.try_wait();
        }
    }
}

/// How long a killed process is waited for.
const LAST_MOMENT: Duration = Duration::from_secs(1);

impl AsRawFd for Process {
    fn as_raw_fd(&self) -> RawFd {
        self.pidfd.as_raw_fd()
    }
}

/// How a process ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Exit {
    /// By itself, with this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exited with code {code}"),
            Self::Signal(number) => write!(f, "was ended by {}", signal::name(*number)),
        }
    }
}

/// The user whose rights this process has.
pub fn effective_user() -> u32 {
    // SAFETY: no pointers; cannot fail.
    unsafe { libc::geteuid() }
}

/// Whether a process has been stopped, by a signal or by who debugs it, and not been let go on.
pub fn is_stopped(pid: u32) -> bool {
    let Ok(line) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else {
        return false;
    };
    // The name before may hold anything.
    let rest = line.rsplit_once(") ").map_or("", |(_, rest)| rest);
    rest.starts_with(['T', 't'])
}

/// Ends this process without anything that is due at its end: it may be stuck there. `line` goes to
/// standard error, unless nobody makes room for it.
pub(crate) fn end_at_once(line: &str, code: i32) -> ! {
    stderr::write("", line);
    // SAFETY: no pointers; it does not return.
    unsafe { libc::_exit(code) }
}

/// Makes sure that descriptors 0 to 2 are open, if only on `/dev/null`: else the next thing that is
/// opened would become somebody's standard output.
pub fn fill_standard_descriptors() -> io::Result<()> {
    loop {
        // SAFETY: the path is NUL-terminated; the result is checked. Children inherit it.
        let fd = unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_RDWR) };
        check(fd)?;
        if fd > 2 {
            // SAFETY: the descriptor is ours and nobody has seen it.
            unsafe { libc::close(fd) };
            return Ok(());
        }
    }
}

/// Raises the soft limit of open descriptors to the hard one; returns what it was.
pub fn raise_open_files() -> io::Result<u64> {
    let mut limit = open_files()?;
    let before = limit.rlim_cur;
    if before < limit.rlim_max {
        limit.rlim_cur = limit.rlim_max;
        // SAFETY: a valid limit.
        check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) })?;
    }
    Ok(before)
}

/// The soft limit of open descriptors.
pub fn open_files_limit() -> io::Result<u64> {
    open_files().map(|limit| limit.rlim_cur)
}

/// The soft limit of the size of files, shared memory among them.
pub(super) fn largest_file() -> io::Result<u64> {
    soft_and_hard(libc::RLIMIT_FSIZE).map(|limit| limit.rlim_cur)
}

/// Sets the soft limit of open descriptors. Safe between fork and exec.
fn set_open_files(soft: u64) -> io::Result<()> {
    let mut limit = open_files()?;
    limit.rlim_cur = soft.min(limit.rlim_max);
    // SAFETY: a valid limit.
    check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) })
}

fn open_files() -> io::Result<libc::rlimit> {
    soft_and_hard(libc::RLIMIT_NOFILE)
}

fn soft_and_hard(what: libc::__rlimit_resource_t) -> io::Result<libc::rlimit> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: room for the answer.
    check(unsafe { libc::getrlimit(what, &mut limit) })?;
    Ok(limit)
}

pub(super) fn pidfd_open(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: no pointers. The descriptor is new; the kernel makes it close-on-exec.
    unsafe { new_fd(libc::syscall(libc::SYS_pidfd_open, pid as libc::pid_t, 0) as RawFd) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::seqpacket::Seqpacket;
    use crate::sys::signal::Signals;

    /// Not `sh`, which may refuse numbers of descriptors above 9.
    fn shell(script: &str, open_files: Option<u64>) -> (Process, Seqpacket) {
        let (ours, theirs) = Seqpacket::pair().unwrap();
        let mut command = Command::new("bash");
        command
            .args(["-c", script])
            .env("BUS", theirs.as_raw_fd().to_string());
        let process = Process::spawn(command, theirs.as_fd(), open_files).unwrap();
        (process, ours)
    }

    fn wait(process: &mut Process) -> Exit {
        assert!(wait_readable(process.pidfd.as_fd(), None).unwrap());
        process.try_wait().unwrap().unwrap()
    }

    fn say(socket: &Seqpacket) -> String {
        let (mut buf, mut fds) = ([0; 256], Vec::new());
        let len = socket.recv(&mut buf, &mut fds).unwrap();
        String::from_utf8_lossy(&buf[..len]).trim().to_owned()
    }

    #[test]
    fn exit_codes_and_signals_are_told_apart() {
        let (mut process, _socket) = shell("exit 3", None);
        assert_eq!(wait(&mut process), Exit::Code(3));
        let (mut process, _socket) = shell("kill -SEGV $$", None);
        let exit = wait(&mut process);
        assert_eq!(exit, Exit::Signal(libc::SIGSEGV));
        assert_eq!(exit.to_string(), "was ended by SIGSEGV");
    }

    #[test]
    fn the_socket_is_inherited_and_hangs_up_with_the_child() {
        let (mut process, socket) = shell("echo hello >&$BUS", None);
        assert_eq!(say(&socket), "hello");
        wait(&mut process);
        assert_eq!(say(&socket), "");
    }

    #[test]
    fn the_child_blocks_no_signal_and_has_its_own_limit() {
        let _signals = Signals::block(&[libc::SIGINT, libc::SIGTERM]).unwrap();
        let script = "grep SigBlk /proc/self/status >&$BUS; ulimit -Sn >&$BUS; echo $$ >&$BUS";
        let (process, socket) = shell(script, Some(77));
        assert_eq!(say(&socket), "SigBlk:\t0000000000000000");
        assert_eq!(say(&socket), "77");
        assert_eq!(say(&socket), process.pid().to_string());
    }

    #[test]
    fn kill_takes_the_group_along() {
        let (mut process, socket) = shell("sleep 1000 & echo up >&$BUS; wait", None);
        assert_eq!(say(&socket), "up");
        assert_eq!(process.try_wait().unwrap(), None);
        process.kill();
        assert_eq!(wait(&mut process), Exit::Signal(libc::SIGKILL));
        // The sleeping grandchild held the socket open too.
        assert_eq!(say(&socket), "");
    }

    #[test]
    fn who_was_reaped_by_somebody_else_is_not_killed_by_its_number() {
        let (mut process, _socket) = shell("exit 3", None);
        let pid = process.pid as libc::pid_t;
        // SAFETY: no status is asked for.
        assert_eq!(unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) }, pid);
        assert!(!process.reaped);
        assert!(process.try_wait().is_err());
        assert!(process.reaped, "its number may be another's by now");
    }

    #[test]
    fn whoever_is_dropped_leaves_no_zombie() {
        let (process, socket) = shell("echo up >&$BUS; sleep 1000", None);
        assert_eq!(say(&socket), "up");
        let pid = process.pid as libc::pid_t;
        drop(process);
        // SAFETY: no status is asked for.
        let reaped = unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) };
        let error = io::Error::last_os_error().raw_os_error();
        assert_eq!((reaped, error), (-1, Some(libc::ECHILD)));
    }

    #[test]
    fn a_program_that_does_not_exist_is_an_error() {
        let (_ours, theirs) = Seqpacket::pair().unwrap();
        let command = Command::new("/nonexistent/program");
        let error = Process::spawn(command, theirs.as_fd(), None).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
