//! Open files that are sent to clients.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, PoisonError};
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

/// Closes descriptors that came from somebody else on a thread, the same for all: closing a file may
/// wait for its file system.
pub fn close_elsewhere(fds: Vec<OwnedFd>) {
    static CLOSER: Mutex<Option<Sender<Vec<OwnedFd>>>> = Mutex::new(None);
    if fds.is_empty() {
        return;
    }
    let mut closer = CLOSER.lock().unwrap_or_else(PoisonError::into_inner);
    if closer.is_none() {
        let (sender, inbox) = channel();
        let thread = thread::Builder::new().name("toolb-close".to_owned());
        if thread
            .spawn(move || inbox.into_iter().for_each(drop))
            .is_ok()
        {
            *closer = Some(sender);
        }
    }
    // Where there is no thread they are closed here.
    if let Some(closer) = &*closer {
        // It goes on for ever.
        let _ = closer.send(fds);
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::io::Read;
    use std::net::TcpStream;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    use super::*;
    use crate::sys::socket::Listener;
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
        fs::remove_file(&name).unwrap();
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

    /// A socket whose last descriptor cannot be closed before its peer is.
    fn hanging() -> (OwnedFd, TcpStream) {
        let any = ([127, 0, 0, 1], 0).into();
        let listener = Listener::tcp(any, 1, 1).unwrap().remove(0);
        let peer = TcpStream::connect(listener.local_tcp().unwrap()).unwrap();
        let (socket, _) = loop {
            if let Some(accepted) = listener.accept().unwrap() {
                break accepted;
            }
        };
        while socket.send(&[0; 65536]).is_ok() {}
        socket.linger_on_close(Duration::from_secs(3600));
        (socket.into(), peer)
    }

    fn closing_threads() -> usize {
        let tasks = fs::read_dir("/proc/self/task").unwrap();
        let names =
            tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("comm")).ok());
        names.filter(|name| name == "toolb-close\n").count()
    }

    #[test]
    fn one_thread_closes_what_comes_in_its_turn() {
        let (hanging, peers): (Vec<_>, Vec<_>) = (0..5).map(|_| hanging()).unzip();
        for file in hanging {
            close_elsewhere(vec![file]);
        }
        let (other, mut its_peer) = UnixStream::pair().unwrap();
        close_elsewhere(vec![other.into()]);
        while closing_threads() == 0 {
            thread::yield_now();
        }
        its_peer.set_nonblocking(true).unwrap();
        let error = its_peer.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        assert_eq!(closing_threads(), 1);
        drop(peers);
        its_peer.set_nonblocking(false).unwrap();
        assert_eq!(its_peer.read(&mut [0]).unwrap(), 0);
    }
}
