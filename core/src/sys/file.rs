//! Open files that are sent to clients.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::thread;

use super::call::check;

/// The length of a regular file that can be read from; an error if it is anything else.
pub fn readable_length(fd: BorrowedFd<'_>) -> io::Result<u64> {
    // SAFETY: no pointers are passed.
    let flags = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) };
    check(flags)?;
    // SAFETY: `stat` is plain data, for which zeros are valid.
    let mut stat: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: a valid `stat` to write to.
    check(unsafe { libc::fstat(fd.as_raw_fd(), &mut stat) })?;
    let not = |what| Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    if stat.st_mode & libc::S_IFMT != libc::S_IFREG {
        return not("it is no regular file");
    }
    if flags & libc::O_ACCMODE == libc::O_WRONLY || flags & libc::O_PATH != 0 {
        return not("it is not open for reading");
    }
    Ok(u64::try_from(stat.st_size).unwrap_or(0))
}

/// Whether a read may wait for a disk.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Patience {
    /// `WouldBlock` instead of waiting.
    None,
    /// As long as it takes.
    Any,
}

/// Appends up to `len` bytes of a file from `offset` on to `out`. Returns how many; 0 is the end of
/// the file.
pub fn read(
    fd: BorrowedFd<'_>,
    offset: u64,
    len: usize,
    out: &mut Vec<u8>,
    patience: Patience,
) -> io::Result<usize> {
    let offset = libc::off_t::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
    out.reserve(len);
    let room = &mut out.spare_capacity_mut()[..len];
    let vector = libc::iovec {
        iov_base: room.as_mut_ptr().cast(),
        iov_len: len,
    };
    let flags = match patience {
        Patience::None => libc::RWF_NOWAIT,
        Patience::Any => 0,
    };
    loop {
        // SAFETY: the vector names `len` writable bytes behind those of `out`.
        let got = unsafe { libc::preadv2(fd.as_raw_fd(), &vector, 1, offset, flags) };
        if let Ok(got) = usize::try_from(got) {
            // SAFETY: the kernel has written the first `got` of the `len` bytes that are reserved.
            unsafe { out.set_len(out.len() + got) };
            return Ok(got);
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::EINTR) => {}
            // A file system that cannot tell might wait.
            Some(libc::EOPNOTSUPP) if patience == Patience::None => {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            _ => return Err(error),
        }
    }
}

/// Whether the file system can tell what is in memory, so that a read with `Patience::None` never
/// waits for anybody. May itself wait once.
pub fn never_waits(fd: BorrowedFd<'_>) -> bool {
    let mut byte = [0u8];
    let vector = libc::iovec {
        iov_base: byte.as_mut_ptr().cast(),
        iov_len: byte.len(),
    };
    // SAFETY: the vector names one writable byte.
    let got = unsafe { libc::preadv2(fd.as_raw_fd(), &vector, 1, 0, libc::RWF_NOWAIT) };
    got >= 0 || io::Error::last_os_error().kind() == io::ErrorKind::WouldBlock
}

/// Closes descriptors that came from somebody else on a thread of their own: closing a file may wait
/// for its file system.
pub fn close_elsewhere(fds: Vec<OwnedFd>) {
    if !fds.is_empty() {
        // Without a thread the closure is dropped here, and the descriptors with it.
        let _ = thread::Builder::new()
            .name("toolb-close".to_owned())
            .spawn(move || drop(fds));
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd;

    use super::*;
    use crate::sys::{eventfd::EventFd, memory};

    fn sample(len: usize) -> OwnedFd {
        memory::create(c"test", len).unwrap()
    }

    #[test]
    fn only_readable_regular_files_have_a_length() {
        assert_eq!(readable_length(sample(5).as_fd()).unwrap(), 5);
        let path = std::env::temp_dir();
        let folder = File::open(&path).unwrap();
        assert!(readable_length(folder.as_fd()).is_err());
        assert!(readable_length(EventFd::new().unwrap().as_fd()).is_err());
        let null = File::open("/dev/null").unwrap();
        assert!(readable_length(null.as_fd()).is_err());
        let own = std::env::current_exe().unwrap();
        assert!(readable_length(File::open(&own).unwrap().as_fd()).unwrap() > 0);
        let name = std::env::temp_dir().join(format!("toolb-write-only-{}", std::process::id()));
        let writable = File::create(&name).unwrap();
        std::fs::remove_file(&name).unwrap();
        let error = readable_length(writable.as_fd()).unwrap_err();
        assert_eq!(error.to_string(), "it is not open for reading");
    }

    #[test]
    fn reads_append_and_stop_at_the_end() {
        let file = sample(10);
        let mut out = vec![9];
        let got = read(file.as_fd(), 4, 100, &mut out, Patience::Any).unwrap();
        assert_eq!((got, &out[..]), (6, &[9, 0, 0, 0, 0, 0, 0][..]));
        assert_eq!(
            read(file.as_fd(), 10, 5, &mut out, Patience::Any).unwrap(),
            0
        );
        assert_eq!(
            read(file.as_fd(), 99, 5, &mut out, Patience::Any).unwrap(),
            0
        );
        match read(file.as_fd(), 0, 10, &mut out, Patience::None) {
            Ok(got) => assert!(got <= 10),
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
        }
        assert!(read(file.as_fd(), u64::MAX, 1, &mut out, Patience::Any).is_err());
    }
}
