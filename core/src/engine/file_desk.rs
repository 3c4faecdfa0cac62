//! The desk for one consumer's files: the only thread that touches the descriptors which that
//! consumer has handed over.
//!
//! With a descriptor a consumer chooses a file system: its own (FUSE) perhaps, or one whose server
//! has gone (NFS). There each call may wait for as long as somebody else likes: fstat, a read, and
//! even close. So no loop makes such a call, and no consumer's files wait for those of another.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use crate::sys::file::{self, Patience};

use super::mailbox::{Letter, Mailbox};

/// The files of a lane. Its thread is started by the first, and ends after the last once the lane
/// is gone.
#[derive(Debug, Default)]
pub(super) struct FileDesk {
    orders: Mutex<Option<Sender<Order>>>,
    unclosed: Arc<AtomicUsize>,
}

impl FileDesk {
    /// Takes a file in; an error if there is no thread to read it.
    pub(super) fn take(&self, file: OwnedFd) -> io::Result<Handed> {
        Ok(Handed {
            file: Some(Arc::new(file)),
            number: NEXT.fetch_add(1, Ordering::Relaxed),
            orders: self.orders()?,
            unclosed: self.unclosed.clone(),
        })
    }

    /// Whether so many files wait to be closed that their file system seems to hang.
    pub(super) fn is_clogged(&self) -> bool {
        self.unclosed.load(Ordering::Relaxed) > MOST_UNCLOSED
    }

    fn orders(&self) -> io::Result<Sender<Order>> {
        let mut orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(orders) = &*orders {
            return Ok(orders.clone());
        }
        let (sender, inbox) = channel();
        let unclosed = self.unclosed.clone();
        thread::Builder::new()
            .name("toolb-files".to_owned())
            .stack_size(STACK)
            .spawn(move || work(&inbox, &unclosed))?;
        *orders = Some(sender.clone());
        Ok(sender)
    }
}

/// A file that a consumer has handed over. Dropping it leaves the closing to the thread.
#[derive(Debug)]
pub(super) struct Handed {
    /// `None` once it is being dropped.
    file: Option<Arc<OwnedFd>>,
    /// Tells it from all others.
    number: u64,
    orders: Sender<Order>,
    unclosed: Arc<AtomicUsize>,
}

impl Handed {
    /// Tells it from all others.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// Appends up to `len` bytes from `at` on if they are in memory, else `WouldBlock`. Only of a
    /// file that [`Part::never_waits`] was said of.
    pub(super) fn read_now(&self, at: u64, len: usize, out: &mut Vec<u8>) -> io::Result<usize> {
        match &self.file {
            Some(file) => file::read(file.as_fd(), at, len, out, Patience::None),
            None => Ok(0),
        }
    }

    /// Has the thread read up to `len` bytes from `at` on. With `end` it first makes sure that this
    /// is a file to be read from, and at least so long. The answer comes to `home` for `key`.
    pub(super) fn order(
        &self,
        at: u64,
        len: usize,
        end: Option<u64>,
        key: u64,
        home: Arc<Mailbox>,
    ) {
        let Some(file) = &self.file else {
            return;
        };
        let order = ReadOrder {
            file: file.clone(),
            number: self.number,
            at,
            len,
            end,
            key,
            home,
        };
        // The thread lives as long as anybody can ask it.
        let _ = self.orders.send(Order::Read(order));
    }
}

impl Drop for Handed {
    fn drop(&mut self) {
        if let Some(file) = self.file.take() {
            self.unclosed.fetch_add(1, Ordering::Relaxed);
            let _ = self.orders.send(Order::Close(file));
        }
    }
}

/// What the thread has read.
#[derive(Debug)]
pub(super) struct ReadPart {
    /// For whom.
    pub(super) key: u64,
    /// Of which file.
    pub(super) number: u64,
    pub(super) at: u64,
    pub(super) read: io::Result<Part>,
}

/// Bytes of a file.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) bytes: Vec<u8>,
    /// The file system can tell what is in memory, so that a loop may look for itself.
    pub(super) never_waits: bool,
}

#[derive(Debug)]
enum Order {
    Read(ReadOrder),
    Close(Arc<OwnedFd>),
}

#[derive(Debug)]
struct ReadOrder {
    file: Arc<OwnedFd>,
    number: u64,
    at: u64,
    len: usize,
    end: Option<u64>,
    key: u64,
    home: Arc<Mailbox>,
}

impl ReadOrder {
    fn read(&self) -> io::Result<Part> {
        let file = self.file.as_fd();
        if let Some(end) = self.end {
            let size = file::readable_length(file)?;
            if size < end {
                let why = format!("it has {size} bytes, and was announced to have {end}");
                return Err(io::Error::other(why));
            }
        }
        let mut bytes = Vec::new();
        if self.len > 0 {
            file::read(file, self.at, self.len, &mut bytes, Patience::Any)?;
        }
        Ok(Part {
            bytes,
            never_waits: file::never_waits(file),
        })
    }
}

fn work(inbox: &Receiver<Order>, unclosed: &AtomicUsize) {
    for order in inbox {
        match order {
            Order::Read(order) => order.home.post(Letter::FilePart(ReadPart {
                key: order.key,
                number: order.number,
                at: order.at,
                read: order.read(),
            })),
            Order::Close(file) => {
                drop(file);
                unclosed.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }
}

static NEXT: AtomicU64 = AtomicU64::new(0);
/// A consumer whose files cannot be closed may not hand over more and more of them.
const MOST_UNCLOSED: usize = 4096;
/// Bytes are read to the heap.
const STACK: usize = 128 * 1024;
