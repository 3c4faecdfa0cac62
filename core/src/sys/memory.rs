//! Memory that two processes share: anonymous files, their seals and their mappings.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use memmap2::{Advice, MmapOptions, MmapRaw};

use super::call::{check, new_fd};
use super::process;

/// What can no longer be done to a memory file, by anybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seals(libc::c_int);

impl Seals {
    /// Its size is fixed and only mappings made before may write to it.
    pub const ONE_WRITER: Seals = Seals(
        libc::F_SEAL_GROW | libc::F_SEAL_SHRINK | libc::F_SEAL_FUTURE_WRITE | libc::F_SEAL_SEAL,
    );
    /// Its size is fixed.
    pub const FIXED_SIZE: Seals =
        Seals(libc::F_SEAL_GROW | libc::F_SEAL_SHRINK | libc::F_SEAL_SEAL);

    /// Whether all of `other` is among these.
    pub fn contains(self, other: Seals) -> bool {
        self.0 & other.0 == other.0
    }
}

/// Creates an anonymous file of `len` zero bytes, which can still be sealed.
pub fn create(name: &CStr, len: usize) -> io::Result<OwnedFd> {
    let fd = match memfd(name, libc::MFD_NOEXEC_SEAL) {
        // A kernel before 6.3.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => memfd(name, 0)?,
        other => other?,
    };
    if process::largest_file()? < len as u64 {
        // The kernel would say so by a signal that ends the program around us.
        let why = "shared memory would be larger than a file may be; raise that limit (ulimit -f)";
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, why));
    }
    let len = libc::off_t::try_from(len).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: no pointers are passed.
    check(unsafe { libc::ftruncate(fd.as_raw_fd(), len) })?;
    Ok(fd)
}

/// Adds seals.
pub fn seal(fd: BorrowedFd<'_>, seals: Seals) -> io::Result<()> {
    // SAFETY: no pointers are passed.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_ADD_SEALS, seals.0) })
}

/// The seals it has; an error if it is no memory file at all.
pub fn seals(fd: BorrowedFd<'_>) -> io::Result<Seals> {
    // SAFETY: no pointers are passed.
    let seals = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GET_SEALS) };
    check(seals)?;
    Ok(Seals(seals))
}

/// The file's length in bytes.
pub fn length(fd: BorrowedFd<'_>) -> io::Result<u64> {
    // SAFETY: `stat` is plain data, for which zeros are valid.
    let mut stat: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: a valid `stat` to write to.
    check(unsafe { libc::fstat(fd.as_raw_fd(), &mut stat) })?;
    Ok(u64::try_from(stat.st_size).unwrap_or(0))
}

/// A shared mapping, faulted in when made and reachable by raw pointers only: the other side may
/// write to it at any time.
#[derive(Debug)]
pub struct Mapping {
    raw: MmapRaw,
    writable: bool,
}

impl Mapping {
    /// Maps the first `len` bytes to read and write.
    pub fn writable(fd: BorrowedFd<'_>, len: usize) -> io::Result<Self> {
        let raw = MmapOptions::new()
            .len(len)
            .populate()
            .map_raw(fd.as_raw_fd())?;
        Ok(Self {
            raw,
            writable: true,
        })
    }

    /// Maps the first `len` bytes to read only.
    pub fn read_only(fd: BorrowedFd<'_>, len: usize) -> io::Result<Self> {
        let raw = MmapOptions::new()
            .len(len)
            .populate()
            .map_raw_read_only(fd.as_raw_fd())?;
        Ok(Self {
            raw,
            writable: false,
        })
    }

    /// Keeps it out of children that this process forks.
    pub fn keep_from_children(&self) -> io::Result<()> {
        self.raw.advise(Advice::DontFork)
    }

    /// The first byte; page aligned. Writing through it needs a writable mapping.
    pub fn as_ptr(&self) -> *mut u8 {
        self.raw.as_mut_ptr()
    }

    /// Its length in bytes.
    #[expect(clippy::len_without_is_empty, reason = "a mapping is never empty")]
    pub fn len(&self) -> usize {
        self.raw.len()
    }

    /// Whether it may be written to.
    pub fn is_writable(&self) -> bool {
        self.writable
    }
}

fn memfd(name: &CStr, flags: libc::c_uint) -> io::Result<OwnedFd> {
    let flags = flags | libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    // SAFETY: the name ends with a zero byte; the descriptor is new.
    unsafe { new_fd(libc::memfd_create(name.as_ptr(), flags)) }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    fn os_error<T>(result: io::Result<T>) -> Option<i32> {
        result.err().and_then(|error| error.raw_os_error())
    }

    #[test]
    fn a_mapping_made_before_the_seal_still_writes() {
        let fd = create(c"test", 8192).unwrap();
        let ours = Mapping::writable(fd.as_fd(), 8192).unwrap();
        seal(fd.as_fd(), Seals::ONE_WRITER).unwrap();
        let theirs = Mapping::read_only(fd.as_fd(), 8192).unwrap();
        assert!(ours.is_writable() && !theirs.is_writable());
        assert_eq!((ours.len(), length(fd.as_fd()).unwrap()), (8192, 8192));
        // SAFETY: both mappings are 8192 bytes long and no other thread touches them.
        unsafe {
            ours.as_ptr().add(5000).write_volatile(7);
            assert_eq!(theirs.as_ptr().add(5000).read_volatile(), 7);
        }
    }

    #[test]
    fn one_writer_keeps_everybody_else_from_writing() {
        let fd = create(c"test", 8192).unwrap();
        seal(fd.as_fd(), Seals::ONE_WRITER).unwrap();
        assert!(seals(fd.as_fd()).unwrap().contains(Seals::ONE_WRITER));
        assert_eq!(
            os_error(Mapping::writable(fd.as_fd(), 8192)),
            Some(libc::EPERM)
        );
        let map = Mapping::read_only(fd.as_fd(), 8192).unwrap();
        let raw = fd.as_raw_fd();
        // SAFETY: the arguments name the live mapping and a readable byte.
        unsafe {
            let write = libc::PROT_READ | libc::PROT_WRITE;
            let protect = libc::mprotect(map.as_ptr().cast(), 8192, write);
            assert_eq!(os_error(check(protect)), Some(libc::EACCES));
            let wrote = libc::pwrite(raw, c"x".as_ptr().cast(), 1, 0);
            assert_eq!(os_error(check(wrote as i32)), Some(libc::EPERM));
            let hole = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
            let punched = libc::fallocate(raw, hole, 0, 4096);
            assert_eq!(os_error(check(punched)), Some(libc::EPERM));
        }
        size_is_fixed(raw);
        assert_eq!(
            os_error(seal(fd.as_fd(), Seals(libc::F_SEAL_WRITE))),
            Some(libc::EPERM)
        );
    }

    #[test]
    fn fixed_size_can_be_mapped_for_writing_but_not_resized() {
        let fd = create(c"test", 8192).unwrap();
        seal(fd.as_fd(), Seals::FIXED_SIZE).unwrap();
        let found = seals(fd.as_fd()).unwrap();
        assert!(found.contains(Seals::FIXED_SIZE) && !found.contains(Seals::ONE_WRITER));
        Mapping::writable(fd.as_fd(), 8192).unwrap();
        size_is_fixed(fd.as_raw_fd());
        assert_eq!(
            os_error(seal(fd.as_fd(), Seals(libc::F_SEAL_FUTURE_WRITE))),
            Some(libc::EPERM)
        );
    }

    fn size_is_fixed(raw: libc::c_int) {
        for len in [0, 4096, 16384] {
            // SAFETY: no pointers are passed.
            let cut = unsafe { libc::ftruncate(raw, len) };
            assert_eq!(os_error(check(cut)), Some(libc::EPERM));
        }
    }

    #[test]
    fn children_do_not_inherit_what_is_kept_from_them() {
        let fd = create(c"test", 4096).unwrap();
        let map = Mapping::read_only(fd.as_fd(), 4096).unwrap();
        map.keep_from_children().unwrap();
    }
}
