//! The parts of the crash test: the process that falls, whoever watches over it, and its clients.

pub(crate) mod application;
pub(crate) mod clients;
pub(crate) mod fleet;

use std::fs;

/// Bytes that tell by themselves whose they are, and which.
pub(crate) fn pattern(name: &str, len: usize) -> Vec<u8> {
    let unit = format!("{name}|");
    unit.bytes().cycle().take(len).collect()
}

/// A number that tells whether bytes came as they were sent.
pub(crate) fn checksum(bytes: &[u8], seed: u64) -> u64 {
    bytes.iter().fold(seed, |sum, byte| {
        (sum ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01B3)
    })
}

/// State and process group of a process, as the kernel tells them.
pub(crate) fn state_and_group(pid: &str) -> Option<(char, u32)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut words = text[text.rfind(')')? + 2..].split(' ');
    let state = words.next()?.chars().next()?;
    Some((state, words.nth(1)?.parse().ok()?))
}
