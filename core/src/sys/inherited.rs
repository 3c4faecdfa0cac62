//! Descriptors that the parent process left open for this one.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use super::call::check;
use super::seqpacket::Seqpacket;

/// Takes over a packet socket that this process inherited under a number, and sets close-on-exec on
/// it. `InvalidInput`: it is no packet socket, or was taken or opened by this process itself; these
/// are close-on-exec already.
pub fn packet_socket(fd: RawFd) -> io::Result<Seqpacket> {
    // SAFETY: no pointers are passed.
    let flags = unsafe { libc::fcntl(fd, libc::F_GETFD) };
    check(flags)?;
    if flags & libc::FD_CLOEXEC != 0 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut kind: libc::c_int = 0;
    let mut len = size_of_val(&kind) as libc::socklen_t;
    // SAFETY: `kind` and `len` are live, and `len` is the size of `kind`.
    let result = unsafe {
        libc::getsockopt(
            fd,
            libc::SOL_SOCKET,
            libc::SO_TYPE,
            (&raw mut kind).cast(),
            &mut len,
        )
    };
    if result < 0 || kind != libc::SOCK_SEQPACKET {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: no pointers are passed.
    check(unsafe { libc::fcntl(fd, libc::F_SETFD, flags | libc::FD_CLOEXEC) })?;
    // SAFETY: the descriptor is open and was inherited: nothing in this process opened it, for that
    // would have set close-on-exec, as taking it the first time did.
    Ok(Seqpacket::from(unsafe { OwnedFd::from_raw_fd(fd) }))
}

#[cfg(test)]
mod tests {
    use std::os::fd::{AsRawFd, IntoRawFd};

    use super::*;

    #[test]
    fn only_an_inherited_packet_socket_is_taken_and_only_once() {
        let (a, b) = Seqpacket::pair().unwrap();
        let kind = |fd| packet_socket(fd).map(drop).unwrap_err().kind();
        assert_eq!(kind(a.as_raw_fd()), io::ErrorKind::InvalidInput);
        assert_eq!(
            kind(1_000_000),
            io::Error::from_raw_os_error(libc::EBADF).kind()
        );

        let fd = OwnedFd::from(b).into_raw_fd();
        // SAFETY: no pointers are passed.
        assert_eq!(unsafe { libc::fcntl(fd, libc::F_SETFD, 0) }, 0);
        let taken = packet_socket(fd).unwrap();
        assert_eq!(kind(fd), io::ErrorKind::InvalidInput);
        taken.send(b"x", &[]).unwrap();
        let mut buf = [0; 4];
        assert_eq!(a.recv(&mut buf, &mut Vec::new()).unwrap(), 1);
    }
}
