//! Which CPUs a thread may run on.

use std::io;
use std::mem::{self, MaybeUninit};

use super::call::check;

/// The CPUs that the calling thread may run on, in order.
pub fn allowed() -> io::Result<Vec<usize>> {
    let mut set = MaybeUninit::<libc::cpu_set_t>::zeroed();
    // SAFETY: room for a set of that size, in which the kernel writes; 0 is the calling thread.
    let result =
        unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), set.as_mut_ptr()) };
    check(result)?;
    // SAFETY: a set is plain data, zeroed first and then filled.
    let set = unsafe { set.assume_init() };
    let most = libc::CPU_SETSIZE as usize;
    // SAFETY: the number is below the size of the set.
    Ok((0..most)
        .filter(|cpu| unsafe { libc::CPU_ISSET(*cpu, &set) })
        .collect())
}

/// Keeps the calling thread on one CPU.
pub fn pin(cpu: usize) -> io::Result<()> {
    if cpu >= libc::CPU_SETSIZE as usize {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: a set is plain data, for which zeros are valid.
    let mut set: libc::cpu_set_t = unsafe { mem::zeroed() };
    // SAFETY: the number is below the size of the set.
    unsafe { libc::CPU_SET(cpu, &mut set) };
    // SAFETY: a valid set of the size named; 0 is the calling thread.
    let result = unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set) };
    check(result)
}

/// The CPU that the calling thread runs on just now.
pub fn current() -> Option<usize> {
    // SAFETY: no pointers are passed.
    usize::try_from(unsafe { libc::sched_getcpu() }).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pinned_thread_stays_where_it_is() {
        let cpus = allowed().unwrap();
        let last = *cpus.last().unwrap();
        std::thread::spawn(move || {
            pin(last).unwrap();
            assert_eq!((allowed().unwrap(), current()), (vec![last], Some(last)));
        })
        .join()
        .unwrap();
        assert_eq!(allowed().unwrap(), cpus);
        let kind = pin(1 << 20).unwrap_err().kind();
        assert_eq!(kind, io::ErrorKind::InvalidInput);
    }
}
