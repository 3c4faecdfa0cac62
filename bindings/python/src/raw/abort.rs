//! SIGABRT is how a worker that stands still is made to say where: Python's fault handler writes that,
//! without a word on whose threads these are. What stands here writes the process id first.

use std::{io, mem, ptr, sync::OnceLock};

/// Has each SIGABRT begin with a line on standard error that names this process; then comes whoever
/// handles it now.
pub(crate) fn name_aborts() -> io::Result<()> {
    // SAFETY: all zeros is a valid sigaction, and both pointers are valid or null.
    unsafe {
        let mut before = mem::zeroed::<libc::sigaction>();
        if libc::sigaction(libc::SIGABRT, ptr::null(), &mut before) != 0 {
            return Err(io::Error::last_os_error());
        }
        if BEFORE.set(Action(before)).is_err() {
            // Once is enough.
            return Ok(());
        }
        let mut action = mem::zeroed::<libc::sigaction>();
        action.sa_sigaction = on_abort as extern "C" fn(libc::c_int) as libc::sighandler_t;
        action.sa_flags = libc::SA_ONSTACK;
        if libc::sigaction(libc::SIGABRT, &action, ptr::null_mut()) != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Does only what a signal handler may: nothing is allocated or locked.
extern "C" fn on_abort(signal: libc::c_int) {
    let mut line = [0; LINE.len() + DIGITS];
    // SAFETY: no pointers; cannot fail.
    let len = write_line(&mut line, unsafe { libc::getpid() }.unsigned_abs());
    // SAFETY: the bytes are valid for their length; the action is that of whoever came before, and the
    // signal, which is blocked here, comes to this thread once more when this returns.
    unsafe {
        libc::write(libc::STDERR_FILENO, line.as_ptr().cast(), len);
        if let Some(Action(before)) = BEFORE.get() {
            libc::sigaction(signal, before, ptr::null_mut());
        }
        libc::raise(signal);
    }
}

/// `[pid] CRITICAL ...`, as worker processes begin their lines. Returns its length.
fn write_line(line: &mut [u8; LINE.len() + DIGITS], pid: u32) -> usize {
    let mut digits = [0; DIGITS];
    let mut at = DIGITS;
    let mut rest = pid;
    while at > 0 {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    let digits = &digits[at..];
    line[0] = b'[';
    line[1..=digits.len()].copy_from_slice(digits);
    let len = digits.len() + LINE.len();
    line[digits.len() + 1..len].copy_from_slice(&LINE[1..]);
    len
}

/// A handler, which is plain numbers.
struct Action(libc::sigaction);

// SAFETY: nothing in it refers to a thread.
unsafe impl Send for Action {}
// SAFETY: it is only read.
unsafe impl Sync for Action {}

/// The process id stands behind the bracket.
const LINE: &[u8] = b"[] CRITICAL SIGABRT: where each thread of this process is follows\n";
const DIGITS: usize = 10;

static BEFORE: OnceLock<Action> = OnceLock::new();

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_begins_with_the_process() {
        for (pid, begin) in [
            (0, "[0] C"),
            (7, "[7] C"),
            (4_194_304, "[4194304] C"),
            (u32::MAX, "[4294967295] C"),
        ] {
            let mut line = [0; LINE.len() + DIGITS];
            let len = write_line(&mut line, pid);
            let text = std::str::from_utf8(&line[..len]).unwrap();
            assert!(
                text.starts_with(begin) && text.ends_with("follows\n"),
                "{text}"
            );
        }
    }
}
