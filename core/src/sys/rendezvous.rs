//! Where processes that do not know each other meet: packet sockets with a name, and the lock that
//! keeps the name to one owner.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

use super::address::unix_address;
use super::call::{check, new_fd};
use super::seqpacket::Seqpacket;
use super::socket::{accept_with, bind};

/// A listening packet socket, non-blocking and closed on exec.
#[derive(Debug)]
pub struct PacketListener(OwnedFd);

/// The process at the other end of a connection, as the kernel knows it.
#[derive(Debug)]
pub struct Peer {
    /// Its process id here; 0 if it lives where processes have other numbers.
    pub pid: u32,
    /// Its effective user when it connected.
    pub uid: u32,
    /// Readable once it has ended. `None` if the kernel cannot tell.
    pub pidfd: Option<OwnedFd>,
}

impl PacketListener {
    /// Binds a socket that only this user can connect to. There must be nothing at `path`.
    pub fn bind(path: &Path, backlog: u32) -> io::Result<Self> {
        let fd = packet_socket(libc::SOCK_NONBLOCK)?;
        let (address, length) = unix_address(path)?;
        // The file takes its permissions from the socket: it is never open to others, not even for
        // a moment, and the umask of the process, which other threads use too, is left alone.
        // SAFETY: no pointers.
        check(unsafe { libc::fchmod(fd.as_raw_fd(), 0o600) })?;
        bind(&fd, &address, length)?;
        let backlog = i32::try_from(backlog).unwrap_or(i32::MAX);
        // SAFETY: no pointers.
        check(unsafe { libc::listen(fd.as_raw_fd(), backlog) })?;
        Ok(Self(fd))
    }

    /// Takes the next connection, non-blocking; `None` when there is none now.
    pub fn accept(&self) -> io::Result<Option<(Seqpacket, Peer)>> {
        let (address, length) = (std::ptr::null_mut(), std::ptr::null_mut());
        let accepted = accept_with(|flags| {
            // SAFETY: no address is asked for.
            unsafe { libc::accept4(self.0.as_raw_fd(), address, length, flags) }
        })?;
        let Some(fd) = accepted else {
            return Ok(None);
        };
        let peer = Peer::of(&fd)?;
        Ok(Some((Seqpacket::from(fd), peer)))
    }
}

impl AsRawFd for PacketListener {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl Peer {
    fn of(socket: &OwnedFd) -> io::Result<Self> {
        let known = credentials(socket)?;
        let mut pidfd: RawFd = -1;
        let pidfd = match option(socket, SO_PEERPIDFD, &mut pidfd) {
            // SAFETY: the kernel has just made this descriptor, for us.
            Ok(()) if pidfd >= 0 => Some(unsafe { OwnedFd::from_raw_fd(pidfd) }),
            // An older kernel: between the connection and now the number can have gone to another
            // process only if the peer has ended, and then the socket says so.
            _ => super::process::pidfd_open(known.pid as u32).ok(),
        };
        Ok(Self {
            pid: known.pid as u32,
            uid: known.uid,
            pidfd,
        })
    }
}

/// Connects to the packet socket at `path`; the result blocks. Waits at most `patience` for room
/// in the listener's backlog.
pub fn connect(path: &Path, patience: Duration) -> io::Result<Seqpacket> {
    let fd = packet_socket(0)?;
    let (address, length) = unix_address(path)?;
    let limit = libc::timeval {
        tv_sec: patience.as_secs().min(i32::MAX as u64) as libc::time_t,
        tv_usec: patience.subsec_micros().max(1) as libc::suseconds_t,
    };
    // SAFETY: the value lives for the call and its size is given.
    check(unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_SNDTIMEO,
            (&raw const limit).cast(),
            size_of::<libc::timeval>() as libc::socklen_t,
        )
    })?;
    loop {
        // SAFETY: `address` is a whole sockaddr_storage of which `length` bytes are meant.
        let result = unsafe { libc::connect(fd.as_raw_fd(), (&raw const address).cast(), length) };
        match check(result) {
            Ok(()) => return Ok(Seqpacket::from(fd)),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                return Err(refused(path, error));
            }
            Err(error) => return Err(error),
        }
    }
}

/// The kernel refuses what is no socket as it refuses a socket that nobody listens at.
fn refused(path: &Path, error: io::Error) -> io::Error {
    match fs::metadata(path) {
        Ok(found) if !found.file_type().is_socket() => io::Error::from_raw_os_error(libc::ENOTSOCK),
        _ => error,
    }
}

/// The user who listens at the other end of a connection.
pub fn listening_user(socket: &Seqpacket) -> io::Result<u32> {
    Ok(credentials(socket)?.uid)
}

/// Which file it is that has a name: the name may go to another one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct FileId {
    device: u64,
    node: u64,
}

impl FileId {
    /// What stands at `path`; a link is not followed.
    pub fn at(path: &Path) -> io::Result<Self> {
        fs::symlink_metadata(path).map(|found| Self::of(&found))
    }

    fn of(found: &fs::Metadata) -> Self {
        Self {
            device: found.dev(),
            node: found.ino(),
        }
    }
}

/// A file that says by its lock that its owner lives. Dropping it removes the file.
#[derive(Debug)]
pub struct LockFile {
    path: std::path::PathBuf,
    file: File,
}

impl LockFile {
    /// Takes the lock and writes this process's number into the file. `None`: somebody has it.
    pub fn take(path: &Path) -> io::Result<Option<Self>> {
        loop {
            let mut file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .custom_flags(libc::O_NOFOLLOW)
                .open(path)?;
            // SAFETY: no pointers.
            let result =
                check(unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) });
            match result {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(error),
            }
            // Its last owner may have removed it between our opening and locking it.
            let named = match FileId::at(path) {
                Ok(named) => named,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            if FileId::of(&file.metadata()?) != named {
                continue;
            }
            file.set_len(0)?;
            writeln!(file, "{}", std::process::id())?;
            return Ok(Some(Self {
                path: path.to_owned(),
                file,
            }));
        }
    }

    /// The process that has written itself into the file, to name it to a person.
    pub fn holder(path: &Path) -> Option<u32> {
        let mut text = String::new();
        let file = File::open(path).ok()?;
        file.take(32).read_to_string(&mut text).ok()?;
        text.trim().parse().ok()
    }
}

impl Drop for LockFile {
    fn drop(&mut self) {
        // While it is still locked: whoever opened it already finds that it has gone. But if somebody
        // removed it, the one that is there now is locked by another owner.
        let ours = self.file.metadata().map(|found| FileId::of(&found));
        if ours.is_ok_and(|ours| FileId::at(&self.path).is_ok_and(|named| named == ours)) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Since Linux 6.5.
const SO_PEERPIDFD: libc::c_int = 77;

fn packet_socket(flags: libc::c_int) -> io::Result<OwnedFd> {
    let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC | flags;
    // SAFETY: no pointers; the descriptor is new.
    unsafe { new_fd(libc::socket(libc::AF_UNIX, kind, 0)) }
}

fn credentials(socket: &impl AsRawFd) -> io::Result<libc::ucred> {
    let mut known = libc::ucred {
        pid: 0,
        uid: u32::MAX,
        gid: u32::MAX,
    };
    option(socket, libc::SO_PEERCRED, &mut known)?;
    Ok(known)
}

/// Reads a socket option of the type `T`, for which any bytes are valid.
fn option<T: Copy>(socket: &impl AsRawFd, name: libc::c_int, value: &mut T) -> io::Result<()> {
    let mut length = size_of::<T>() as libc::socklen_t;
    // SAFETY: room for a `T`, and its length.
    check(unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            name,
            std::ptr::from_mut(value).cast(),
            &mut length,
        )
    })
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::sys::wait_readable;

    const PATIENCE: Duration = Duration::from_secs(10);

    struct Folder(std::path::PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("toolb-{name}-{}", std::process::id()));
            fs::create_dir(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_peer_is_known_and_packets_pass() {
        let folder = Folder::new("peer");
        let path = folder.0.join("bus");
        let listener = PacketListener::bind(&path, 8).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(listener.accept().unwrap().is_none());
        let client = connect(&path, PATIENCE).unwrap();
        let (server, peer) = listener.accept().unwrap().unwrap();
        assert_eq!(peer.pid, std::process::id());
        assert_eq!(peer.uid, crate::sys::process::effective_user());
        assert_eq!(listening_user(&client).unwrap(), peer.uid);
        let pidfd = peer.pidfd.unwrap();
        assert!(!wait_readable(pidfd.as_fd(), Some(Duration::ZERO)).unwrap());
        client.send(b"hello", &[]).unwrap();
        let mut buffer = [0; 16];
        assert_eq!(server.recv(&mut buffer, &mut Vec::new()).unwrap(), 5);
    }

    #[test]
    fn who_is_not_there_is_told_from_what_is_no_packet_socket() {
        let folder = Folder::new("absent");
        let path = folder.0.join("bus");
        let kind = |path: &Path| connect(path, PATIENCE).unwrap_err().kind();
        assert_eq!(kind(&path), io::ErrorKind::NotFound);
        drop(PacketListener::bind(&path, 8).unwrap());
        assert_eq!(kind(&path), io::ErrorKind::ConnectionRefused);
        let other = folder.0.join("other");
        let _stream = std::os::unix::net::UnixListener::bind(&other).unwrap();
        let error = connect(&other, PATIENCE).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EPROTOTYPE));
    }

    #[test]
    fn a_full_backlog_is_waited_for_but_not_for_ever() {
        let folder = Folder::new("full");
        let path = folder.0.join("bus");
        let _listener = PacketListener::bind(&path, 0).unwrap();
        let mut waiting = Vec::new();
        let error = loop {
            match connect(&path, Duration::from_millis(1)) {
                Ok(socket) => waiting.push(socket),
                Err(error) => break error,
            }
            assert!(waiting.len() < 100);
        };
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn a_lock_has_one_owner_and_goes_with_it() {
        let folder = Folder::new("lock");
        let path = folder.0.join("bus.lock");
        let lock = LockFile::take(&path).unwrap().unwrap();
        assert!(LockFile::take(&path).unwrap().is_none());
        assert_eq!(LockFile::holder(&path), Some(std::process::id()));
        drop(lock);
        assert!(!path.exists());
        // What a process that was killed leaves behind is no obstacle.
        fs::write(&path, "999999999999").unwrap();
        let lock = LockFile::take(&path).unwrap().unwrap();
        assert_eq!(LockFile::holder(&path), Some(std::process::id()));
        drop(lock);
    }

    #[test]
    fn many_takers_of_a_lock_that_comes_and_goes_never_share_it() {
        use std::sync::atomic::{AtomicU32, Ordering};
        let folder = Folder::new("race");
        let path = folder.0.join("bus.lock");
        let (owners, taken) = (AtomicU32::new(0), AtomicU32::new(0));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    while taken.load(Ordering::Relaxed) < 2000 {
                        if let Some(lock) = LockFile::take(&path).unwrap() {
                            assert_eq!(owners.fetch_add(1, Ordering::SeqCst), 0);
                            owners.fetch_sub(1, Ordering::SeqCst);
                            taken.fetch_add(1, Ordering::Relaxed);
                            drop(lock);
                        }
                    }
                });
            }
        });
    }
}
