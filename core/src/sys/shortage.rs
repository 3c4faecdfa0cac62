//! Errors that come of a limit, and what a person can do about them.

use std::io;

/// An error as a person is told of it: with what can be done about it, if that is known.
pub fn explain(error: &io::Error) -> String {
    match remedy(error) {
        Some(remedy) => format!("{error}; {remedy}"),
        None => error.to_string(),
    }
}

/// What can be done about an error of a call that makes something; `None` if it comes of no limit.
pub fn remedy(error: &io::Error) -> Option<&'static str> {
    match error.raw_os_error()? {
        libc::EAGAIN => Some("raise the limit on processes (ulimit -u, or the container's)"),
        libc::EMFILE => Some("raise the limit on open files (ulimit -n)"),
        libc::ENFILE => Some("raise this machine's limit on open files (sysctl fs.file-max)"),
        libc::ENOBUFS | libc::ENOMEM => Some("this machine needs more memory, or fewer workers"),
        _ => None,
    }
}

/// Whether this process has too many files open.
pub fn is_of_open_files(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EMFILE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_remedy_belongs_to_a_limit() {
        let told = |number| explain(&io::Error::from_raw_os_error(number));
        assert!(told(libc::EMFILE).ends_with("; raise the limit on open files (ulimit -n)"));
        assert!(told(libc::ENFILE).contains("fs.file-max"));
        assert!(told(libc::EAGAIN).contains("ulimit -u"));
        assert!(told(libc::ENOMEM).contains("memory"));
        for number in [libc::ENOENT, libc::EACCES, libc::ENOEXEC] {
            assert!(!told(number).contains(';'));
        }
        assert_eq!(explain(&io::Error::other("so")), "so");
    }
}
