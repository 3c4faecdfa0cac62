//! Stream sockets: listening, accepting, receiving and sending without blocking.

use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use super::address::{socket_address, tcp_address, unix_address};
use super::call::{check, new_fd};

/// The number of the error for what was given up.
pub const CANCELLED: i32 = libc::ECANCELED;
/// The number of the error for what cannot be meant.
pub const INVALID: i32 = libc::EINVAL;
/// The number of the error for what took too long.
pub const TIMED_OUT: i32 = libc::ETIMEDOUT;

/// A listening socket, non-blocking and closed on exec.
#[derive(Debug)]
pub struct Listener {
    fd: OwnedFd,
    tcp: bool,
}

impl Listener {
    /// Binds `count` sockets to one TCP address, among which the kernel shares out connections.
    ///
    /// The first is bound without `SO_REUSEPORT`, so that a second server on the address is refused
    /// instead of silently taking half of its connections. Port 0 is picked once for all.
    pub fn tcp(address: SocketAddr, count: usize, backlog: u32) -> io::Result<Vec<Self>> {
        let first = Self::bind_tcp(address, false)?;
        let address = match address.port() {
            0 => first.local_tcp()?,
            _ => address,
        };
        // The kernel compares this option of the sockets bound already, so it can follow the bind.
        set_option(&first.fd, libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)?;
        let mut listeners = vec![first];
        for _ in 1..count {
            listeners.push(Self::bind_tcp(address, true)?);
        }
        for listener in &listeners {
            listener.listen(backlog)?;
        }
        Ok(listeners)
    }

    /// Binds one Unix stream socket to `path` with the given permissions.
    ///
    /// A socket file that nobody listens on any more is replaced; a live one, or a file of another
    /// kind, is an error.
    pub fn unix(path: &Path, permissions: Option<u32>, backlog: u32) -> io::Result<Self> {
        let fd = new_socket(libc::AF_UNIX)?;
        let (address, length) = unix_address(path)?;
        if let Err(error) = bind(&fd, &address, length) {
            if error.raw_os_error() != Some(libc::EADDRINUSE) || !is_stale(path) {
                return Err(error);
            }
            fs::remove_file(path)?;
            bind(&fd, &address, length)?;
        }
        if let Some(mode) = permissions {
            fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
        }
        let listener = Self { fd, tcp: false };
        listener.listen(backlog)?;
        Ok(listener)
    }

    /// Another descriptor of the same socket, for another loop.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self {
            fd: self.fd.try_clone()?,
            tcp: self.tcp,
        })
    }

    /// Takes the next connection, `None` when there is none now. An error means that the process or
    /// the system is out of descriptors or memory.
    pub fn accept(&self) -> io::Result<Option<(Socket, Option<SocketAddr>)>> {
        let mut storage = MaybeUninit::<libc::sockaddr_storage>::zeroed();
        let accepted = accept_with(|flags| {
            let mut length = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
            let address = storage.as_mut_ptr().cast();
            // SAFETY: the storage is large enough for any address and its length is given.
            unsafe { libc::accept4(self.fd.as_raw_fd(), address, &mut length, flags) }
        })?;
        let Some(socket) = accepted.map(Socket) else {
            return Ok(None);
        };
        if !self.tcp {
            return Ok(Some((socket, None)));
        }
        // SAFETY: zeroed first, then filled by the kernel: always initialised.
        let peer = socket_address(unsafe { storage.assume_init_ref() });
        Ok(Some((socket, peer)))
    }

    /// The address a TCP listener is bound to.
    pub fn local_tcp(&self) -> io::Result<SocketAddr> {
        let mut storage = MaybeUninit::<libc::sockaddr_storage>::zeroed();
        let mut length = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
        // SAFETY: the storage is large enough for any address and its length is given.
        let result = unsafe {
            libc::getsockname(
                self.fd.as_raw_fd(),
                storage.as_mut_ptr().cast(),
                &mut length,
            )
        };
        check(result)?;
        // SAFETY: zeroed first, then filled by the kernel: always initialised.
        socket_address(unsafe { storage.assume_init_ref() })
            .ok_or_else(|| io::Error::other("not a TCP address"))
    }

    fn bind_tcp(address: SocketAddr, shared: bool) -> io::Result<Self> {
        let family = match address {
            SocketAddr::V4(_) => libc::AF_INET,
            SocketAddr::V6(_) => libc::AF_INET6,
        };
        let fd = new_socket(family)?;
        // Restarting while old connections linger in TIME_WAIT must work.
        set_option(&fd, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
        // Those that are accepted have it from their listener.
        let _ = set_option(&fd, libc::IPPROTO_TCP, libc::TCP_NODELAY, 1);
        if shared {
            set_option(&fd, libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)?;
        }
        let (storage, length) = tcp_address(address);
        bind(&fd, &storage, length)?;
        Ok(Self { fd, tcp: true })
    }

    fn listen(&self, backlog: u32) -> io::Result<()> {
        let backlog = i32::try_from(backlog).unwrap_or(i32::MAX);
        // SAFETY: no pointers.
        check(unsafe { libc::listen(self.fd.as_raw_fd(), backlog) })
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for Listener {
    fn as_raw_fd(&self) -> i32 {
        self.fd.as_raw_fd()
    }
}

/// A connected stream socket, non-blocking and closed on exec.
#[derive(Debug)]
pub struct Socket(OwnedFd);

impl Socket {
    /// Begins to connect to a TCP address. True: the connection is there already; else the socket
    /// becomes writable when it is, or when it has failed (see `take_error`).
    pub fn connect_tcp(address: SocketAddr) -> io::Result<(Self, bool)> {
        let family = match address {
            SocketAddr::V4(_) => libc::AF_INET,
            SocketAddr::V6(_) => libc::AF_INET6,
        };
        let fd = new_socket(family)?;
        let _ = set_option(&fd, libc::IPPROTO_TCP, libc::TCP_NODELAY, 1);
        let (storage, length) = tcp_address(address);
        connect(fd, &storage, length)
    }

    /// Begins to connect to a Unix stream socket, as `connect_tcp`.
    pub fn connect_unix(path: &Path) -> io::Result<(Self, bool)> {
        let (storage, length) = unix_address(path)?;
        connect(new_socket(libc::AF_UNIX)?, &storage, length)
    }

    /// The number of the error that the socket has met, if any; it is then forgotten.
    pub fn take_error(&self) -> Option<i32> {
        let mut number: libc::c_int = 0;
        let mut length = size_of::<libc::c_int>() as libc::socklen_t;
        // SAFETY: the number lives for the call and its size is given.
        let result = unsafe {
            libc::getsockopt(
                self.0.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_ERROR,
                (&raw mut number).cast(),
                &mut length,
            )
        };
        (result == 0 && number != 0).then_some(number)
    }

    /// Receives what is there into the spare capacity of `buffer`; 0 is the end of the stream.
    #[inline]
    pub fn recv(&self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        self.recv_at_most(buffer, usize::MAX)
    }

    /// As `recv`, but at most `most` bytes.
    #[inline]
    pub fn recv_at_most(&self, buffer: &mut Vec<u8>, most: usize) -> io::Result<usize> {
        let spare = buffer.spare_capacity_mut();
        let most = most.min(spare.len());
        // SAFETY: the kernel writes at most `most` bytes into memory that we own.
        let count = unsafe { libc::recv(self.0.as_raw_fd(), spare.as_mut_ptr().cast(), most, 0) };
        if count < 0 {
            return Err(io::Error::last_os_error());
        }
        let count = count as usize;
        // SAFETY: the kernel has initialised `count` bytes after the old length.
        unsafe { buffer.set_len(buffer.len() + count) };
        Ok(count)
    }

    /// Sends as much of `bytes` as the socket takes now; a closed peer is an error, not a signal.
    #[inline]
    pub fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        // SAFETY: the slice is valid for the call.
        let count = unsafe {
            libc::send(
                self.0.as_raw_fd(),
                bytes.as_ptr().cast(),
                bytes.len(),
                libc::MSG_NOSIGNAL,
            )
        };
        if count < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(count as usize)
    }

    /// Ends our direction: the peer reads the end of the stream after what was sent.
    pub fn shutdown_write(&self) {
        // SAFETY: no pointers. A peer that has gone makes this fail, which is as good.
        unsafe { libc::shutdown(self.0.as_raw_fd(), libc::SHUT_WR) };
    }

    /// Makes closing the socket reset the connection, so that the peer cannot mistake a cut
    /// response for a whole one.
    pub fn reset_on_close(&self) {
        self.linger_on_close(Duration::ZERO);
    }

    /// Makes closing the socket wait for the peer to take what was sent, up to so many whole
    /// seconds, after which the connection is reset.
    pub fn linger_on_close(&self, patience: Duration) {
        let linger = libc::linger {
            l_onoff: 1,
            l_linger: patience.as_secs().min(i32::MAX as u64) as libc::c_int,
        };
        // SAFETY: the option value lives for the call and its size is given.
        unsafe {
            libc::setsockopt(
                self.0.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_LINGER,
                (&raw const linger).cast(),
                size_of::<libc::linger>() as libc::socklen_t,
            )
        };
    }
}

impl From<Socket> for OwnedFd {
    fn from(socket: Socket) -> Self {
        socket.0
    }
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> i32 {
        self.0.as_raw_fd()
    }
}

/// Takes the next connection by `accept`, which gets the flags and gives what the system call did.
/// Connections that have failed before they were taken are passed over: these are not our errors.
pub(super) fn accept_with(mut accept: impl FnMut(i32) -> i32) -> io::Result<Option<OwnedFd>> {
    for _ in 0..MOST_FAILED {
        let fd = accept(libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC);
        if fd >= 0 {
            // SAFETY: the descriptor is new and nobody else's.
            return Ok(Some(unsafe { OwnedFd::from_raw_fd(fd) }));
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::EAGAIN) => break,
            Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => return Err(error),
            _ => {}
        }
    }
    Ok(None)
}

/// So many connections that have failed are passed over at once.
const MOST_FAILED: usize = 64;

fn new_socket(family: i32) -> io::Result<OwnedFd> {
    let kind = libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: no pointers; the descriptor is new.
    unsafe { new_fd(libc::socket(family, kind, 0)) }
}

fn set_option(fd: &OwnedFd, level: i32, name: i32, value: i32) -> io::Result<()> {
    // SAFETY: the value lives for the call and its size is given.
    check(unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            size_of::<i32>() as libc::socklen_t,
        )
    })
}

pub(super) fn bind(
    fd: &OwnedFd,
    address: &libc::sockaddr_storage,
    length: libc::socklen_t,
) -> io::Result<()> {
    // SAFETY: `address` is a whole sockaddr_storage of which `length` bytes are meant.
    check(unsafe { libc::bind(fd.as_raw_fd(), (&raw const *address).cast(), length) })
}

fn connect(
    fd: OwnedFd,
    address: &libc::sockaddr_storage,
    length: libc::socklen_t,
) -> io::Result<(Socket, bool)> {
    // SAFETY: `address` is a whole sockaddr_storage of which `length` bytes are meant.
    let result = unsafe { libc::connect(fd.as_raw_fd(), (&raw const *address).cast(), length) };
    match check(result) {
        Ok(()) => Ok((Socket(fd), true)),
        // A signal does not end the attempt: it goes on as if it had been left to itself.
        Err(error) if matches!(error.raw_os_error(), Some(libc::EINPROGRESS | libc::EINTR)) => {
            Ok((Socket(fd), false))
        }
        Err(error) => Err(error),
    }
}

/// Nobody answers on the socket file: its server was killed before it could remove it. One that
/// lives and has a full backlog is not waited for.
fn is_stale(path: &Path) -> bool {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket());
    is_socket
        && Socket::connect_unix(path)
            .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_server_on_the_address_is_refused() {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let first = Listener::tcp(any, 2, 16).unwrap();
        let address = first[0].local_tcp().unwrap();
        assert_eq!(first[1].local_tcp().unwrap(), address);
        let error = Listener::tcp(address, 2, 16).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn small_answers_are_not_held_back() {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        for listener in Listener::tcp(any, 1, 16).unwrap() {
            let address = listener.local_tcp().unwrap();
            let _client = std::net::TcpStream::connect(address).unwrap();
            let accepted = std::iter::repeat_with(|| listener.accept().unwrap()).flatten();
            let (Socket(fd), _) = accepted.take(1).next().unwrap();
            assert!(std::net::TcpStream::from(fd).nodelay().unwrap());
        }
    }

    #[test]
    fn only_want_of_descriptors_or_memory_is_an_error_of_accepting() {
        let fail = |number: i32| {
            // SAFETY: the place of this thread's error number.
            unsafe { *libc::__errno_location() = number };
            -1
        };
        for number in [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM] {
            let error = accept_with(|_| fail(number)).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(number));
        }
        assert!(accept_with(|_| fail(libc::EAGAIN)).unwrap().is_none());
        let others = [
            libc::ECONNABORTED,
            libc::EHOSTUNREACH,
            libc::EINTR,
            libc::ENETDOWN,
            libc::EPERM,
            libc::EPROTO,
        ];
        for number in others {
            // Those behind it are taken all the same.
            let mut outcomes = [Some(number), None].into_iter();
            let accepted = accept_with(|_| match outcomes.next().unwrap() {
                Some(number) => fail(number),
                // SAFETY: no pointers.
                None => unsafe { libc::dup(0) },
            });
            assert!(accepted.unwrap().is_some());
            assert!(accept_with(|_| fail(number)).unwrap().is_none());
        }
    }

    #[test]
    fn a_server_with_a_full_backlog_is_not_taken_for_dead() {
        let name = format!("toolb-backlog-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let _ = fs::remove_file(&path);
        let first = Listener::unix(&path, None, 0).unwrap();
        let mut waiting = Vec::new();
        let error = loop {
            match Socket::connect_unix(&path) {
                Ok(socket) => waiting.push(socket),
                Err(error) => break error,
            }
            assert!(waiting.len() < 100);
        };
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        let error = Listener::unix(&path, None, 0).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        drop(first);
        drop(Listener::unix(&path, None, 0).unwrap());
        fs::remove_file(&path).unwrap();
    }

    #[test]
    fn a_long_unix_path_is_named() {
        let path = "x".repeat(200);
        let error = Listener::unix(Path::new(&path), None, 16).unwrap_err();
        assert!(error.to_string().contains("has 200"), "{error}");
    }
}
