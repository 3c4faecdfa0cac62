//! Packet sockets between processes: whole messages, in order, with descriptors attached.

use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::time::Duration;

use super::call::check;

/// The most descriptors one packet carries.
pub const MAX_FDS: usize = 64;

/// One end of a connected `SOCK_SEQPACKET` Unix socket.
#[derive(Debug)]
pub struct Seqpacket(OwnedFd);

impl Seqpacket {
    /// Two connected ends, blocking and close-on-exec.
    pub fn pair() -> io::Result<(Seqpacket, Seqpacket)> {
        let mut ends = [-1; 2];
        let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC;
        // SAFETY: room for two descriptors.
        check(unsafe { libc::socketpair(libc::AF_UNIX, kind, 0, ends.as_mut_ptr()) })?;
        // SAFETY: socketpair just returned these descriptors; nobody else owns them.
        let own = |fd| Seqpacket(unsafe { OwnedFd::from_raw_fd(fd) });
        Ok((own(ends[0]), own(ends[1])))
    }

    /// Sends one packet, all or nothing. `WouldBlock` if this end does not block and the peer lags.
    pub fn send(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        if fds.len() > MAX_FDS || bytes.is_empty() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut control = ControlBuffer::new();
        let mut vector = libc::iovec {
            iov_base: bytes.as_ptr().cast_mut().cast(),
            iov_len: bytes.len(),
        };
        let mut message = message_of(&mut vector);
        if !fds.is_empty() {
            let payload = size_of_val(fds) as u32;
            message.msg_control = control.0.as_mut_ptr().cast();
            // SAFETY: CMSG_SPACE and CMSG_LEN only compute; the buffer has room for MAX_FDS
            // descriptors and is aligned for a cmsghdr, so the first header lies within it.
            unsafe {
                message.msg_controllen = libc::CMSG_SPACE(payload) as _;
                let header = libc::CMSG_FIRSTHDR(&message);
                (*header).cmsg_level = libc::SOL_SOCKET;
                (*header).cmsg_type = libc::SCM_RIGHTS;
                (*header).cmsg_len = libc::CMSG_LEN(payload) as _;
                let data: *mut RawFd = libc::CMSG_DATA(header).cast();
                for (index, fd) in fds.iter().enumerate() {
                    data.add(index).write_unaligned(fd.as_raw_fd());
                }
            }
        }
        loop {
            // SAFETY: `message` points to live buffers of the lengths it names.
            let sent = unsafe { libc::sendmsg(self.0.as_raw_fd(), &message, libc::MSG_NOSIGNAL) };
            if sent >= 0 {
                return Ok(());
            }
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
    }

    /// Receives one packet into `buf` and appends its descriptors (close-on-exec) to `fds`.
    /// 0 is the hang-up. A packet larger than `buf` is an error and is lost with its descriptors.
    pub fn recv(&self, buf: &mut [u8], fds: &mut Vec<OwnedFd>) -> io::Result<usize> {
        let mut control = ControlBuffer::new();
        let mut vector = libc::iovec {
            iov_base: buf.as_mut_ptr().cast(),
            iov_len: buf.len(),
        };
        let mut message = message_of(&mut vector);
        message.msg_control = control.0.as_mut_ptr().cast();
        message.msg_controllen = size_of_val(&control.0) as _;
        let mut reset = false;
        let received = loop {
            let flags = libc::MSG_CMSG_CLOEXEC;
            // SAFETY: `message` points to live buffers of the lengths it names.
            let received = unsafe { libc::recvmsg(self.0.as_raw_fd(), &mut message, flags) };
            if let Ok(received) = usize::try_from(received) {
                break received;
            }
            match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::Interrupted => {}
                // The peer hung up on something that it had not read. That is told once, before
                // what it had sent until then.
                error if error.kind() == io::ErrorKind::ConnectionReset => {
                    if mem::replace(&mut reset, true) {
                        return Ok(0);
                    }
                }
                error => return Err(error),
            }
        };
        let before = fds.len();
        take_fds(&message, fds);
        if message.msg_flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC) != 0 {
            fds.truncate(before);
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "packet too large",
            ));
        }
        Ok(received)
    }

    /// Waits until there is a packet or a hang-up. False: the time is over, or a signal came.
    pub fn wait(&self, timeout: Option<Duration>) -> io::Result<bool> {
        super::wait_readable(self.0.as_fd(), timeout)
    }

    /// Whether `send` and `recv` of this end return `WouldBlock` instead of waiting.
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        let mut value = libc::c_int::from(nonblocking);
        // SAFETY: FIONBIO reads one int.
        check(unsafe { libc::ioctl(self.0.as_raw_fd(), libc::FIONBIO, &mut value) })
    }
}

impl From<OwnedFd> for Seqpacket {
    fn from(fd: OwnedFd) -> Self {
        Self(fd)
    }
}

impl From<Seqpacket> for OwnedFd {
    fn from(socket: Seqpacket) -> Self {
        socket.0
    }
}

impl AsFd for Seqpacket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Seqpacket {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// Room for the control messages of `MAX_FDS` descriptors, aligned for a `cmsghdr`.
struct ControlBuffer([u64; 4 + MAX_FDS * size_of::<RawFd>() / 8]);

impl ControlBuffer {
    fn new() -> Self {
        Self([0; _])
    }
}

fn message_of(vector: &mut libc::iovec) -> libc::msghdr {
    // SAFETY: `msghdr` is plain data, for which zeros are valid.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_iov = ptr::from_mut(vector);
    message.msg_iovlen = 1;
    message
}

/// Takes ownership of all descriptors the kernel attached to a received message.
fn take_fds(message: &libc::msghdr, fds: &mut Vec<OwnedFd>) {
    // SAFETY: recvmsg filled the control buffer; the CMSG functions walk it within msg_controllen,
    // and each descriptor in it is new in this process and owned by nobody else.
    unsafe {
        let mut header = libc::CMSG_FIRSTHDR(message);
        while !header.is_null() {
            let rights =
                (*header).cmsg_level == libc::SOL_SOCKET && (*header).cmsg_type == libc::SCM_RIGHTS;
            if rights {
                let len = (*header).cmsg_len as usize - libc::CMSG_LEN(0) as usize;
                let data: *const RawFd = libc::CMSG_DATA(header).cast();
                for index in 0..len / size_of::<RawFd>() {
                    fds.push(OwnedFd::from_raw_fd(data.add(index).read_unaligned()));
                }
            }
            header = libc::CMSG_NXTHDR(message, header);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::eventfd::EventFd;

    #[test]
    fn packets_keep_their_bounds() {
        let (a, b) = Seqpacket::pair().unwrap();
        a.send(b"one", &[]).unwrap();
        a.send(b"three", &[]).unwrap();
        let (mut buf, mut fds) = ([0; 64], Vec::new());
        assert_eq!(b.recv(&mut buf, &mut fds).unwrap(), 3);
        assert_eq!(&buf[..3], b"one");
        assert_eq!(b.recv(&mut buf, &mut fds).unwrap(), 5);
        assert!(fds.is_empty());
        drop(a);
        assert!(b.wait(Some(Duration::ZERO)).unwrap());
        assert_eq!(b.recv(&mut buf, &mut fds).unwrap(), 0);
    }

    #[test]
    fn descriptors_travel() {
        let (a, b) = Seqpacket::pair().unwrap();
        let bells: Vec<_> = (0..36).map(|_| EventFd::new().unwrap()).collect();
        let borrowed: Vec<_> = bells.iter().map(AsFd::as_fd).collect();
        a.send(b"fds", &borrowed).unwrap();
        let (mut buf, mut fds) = ([0; 64], Vec::new());
        assert_eq!(b.recv(&mut buf, &mut fds).unwrap(), 3);
        assert_eq!(fds.len(), 36);
        bells[35].signal().unwrap();
        let last = EventFd::from(fds.pop().unwrap());
        assert!(last.wait(Some(Duration::ZERO)).unwrap());
    }

    #[test]
    fn a_packet_too_large_is_an_error_and_loses_its_descriptors() {
        let (a, b) = Seqpacket::pair().unwrap();
        let bell = EventFd::new().unwrap();
        a.send(b"longer", &[bell.as_fd()]).unwrap();
        let (mut buf, mut fds) = ([0; 2], Vec::new());
        let error = b.recv(&mut buf, &mut fds).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        assert!(fds.is_empty());
    }

    #[test]
    fn the_last_words_of_one_who_hung_up_are_heard() {
        let (a, b) = Seqpacket::pair().unwrap();
        b.send(b"never read", &[]).unwrap();
        a.send(b"go away", &[]).unwrap();
        drop(a);
        let (mut buf, mut fds) = ([0; 64], Vec::new());
        assert_eq!(b.recv(&mut buf, &mut fds).unwrap(), 7);
        assert_eq!(b.recv(&mut buf, &mut fds).unwrap(), 0);
    }

    #[test]
    fn nonblocking_ends_say_so() {
        let (a, b) = Seqpacket::pair().unwrap();
        b.set_nonblocking(true).unwrap();
        let (mut buf, mut fds) = ([0; 2], Vec::new());
        let error = b.recv(&mut buf, &mut fds).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        b.set_nonblocking(false).unwrap();
        a.send(b"x", &[]).unwrap();
        assert_eq!(b.recv(&mut buf, &mut fds).unwrap(), 1);
    }
}
