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
use std::{mem, thread};

use crate::sys::file::{self, Patience};

use super::mailbox::{Letter, Mailbox};

/// How many files of all consumers of an engine, those that have gone among them, wait to be closed.
#[derive(Clone, Debug, Default)]
pub(super) struct AllUnclosed(Arc<AtomicUsize>);

impl AllUnclosed {
    /// Whether so many do that nobody may come and bring more.
    pub(super) fn is_full(&self) -> bool {
        self.count() > MOST
    }

    fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// The files of a lane. Its thread is started by the first, and ends after the last once the lane
/// is gone.
#[derive(Debug)]
pub(super) struct FileDesk {
    orders: Sender<Order>,
    /// Its thread has it, once there is one.
    inbox: Arc<Mutex<Receiver<Order>>>,
    has_thread: Mutex<bool>,
    unclosed: Arc<Unclosed>,
    spawn: Spawn,
}

type Spawn = fn(Box<dyn FnOnce() + Send>) -> io::Result<()>;

impl FileDesk {
    pub(super) fn new(all: &AllUnclosed) -> Self {
        let (orders, inbox) = channel();
        Self {
            orders,
            inbox: Arc::new(Mutex::new(inbox)),
            has_thread: Mutex::new(false),
            unclosed: Arc::new(Unclosed {
                own: AtomicUsize::new(0),
                all: all.clone(),
            }),
            spawn: spawn_thread,
        }
    }

    /// Takes a file in; an error if there is no thread to read it. Then it waits, open, for the next
    /// file that finds one.
    pub(super) fn take(&self, file: OwnedFd) -> io::Result<Handed> {
        let handed = Handed {
            file: Some(Arc::new(file)),
            number: NEXT.fetch_add(1, Ordering::Relaxed),
            orders: self.orders.clone(),
            unclosed: self.unclosed.clone(),
        };
        self.ensure_thread()?;
        Ok(handed)
    }

    /// Whether so many files wait to be closed that their file system seems to hang. Where those of
    /// others do, a few are enough.
    pub(super) fn is_clogged(&self) -> bool {
        let own = self.unclosed.own.load(Ordering::Relaxed);
        own > MOST_OF_ONE || (own > FEW && self.unclosed.all.count() > MANY)
    }

    fn ensure_thread(&self) -> io::Result<()> {
        let mut has_thread = self
            .has_thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if !*has_thread {
            let (inbox, unclosed) = (self.inbox.clone(), self.unclosed.clone());
            (self.spawn)(Box::new(move || work(&inbox, &unclosed)))?;
            *has_thread = true;
        }
        Ok(())
    }
}

impl Drop for FileDesk {
    fn drop(&mut self) {
        // Whose thread this is must not wait. Without another the files stay open, and are counted.
        let waits = self.unclosed.own.load(Ordering::Relaxed) > 0;
        if waits && self.ensure_thread().is_err() {
            mem::forget(self.inbox.clone());
        }
    }
}

fn spawn_thread(life: Box<dyn FnOnce() + Send>) -> io::Result<()> {
    let builder = thread::Builder::new().name("toolb-files".to_owned());
    builder.stack_size(STACK).spawn(life).map(drop)
}

/// How many files wait to be closed.
#[derive(Debug)]
struct Unclosed {
    own: AtomicUsize,
    all: AllUnclosed,
}

impl Unclosed {
    fn add(&self) {
        self.own.fetch_add(1, Ordering::Relaxed);
        self.all.0.fetch_add(1, Ordering::Relaxed);
    }

    fn closed(&self) {
        self.own.fetch_sub(1, Ordering::Relaxed);
        self.all.0.fetch_sub(1, Ordering::Relaxed);
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
    unclosed: Arc<Unclosed>,
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
            self.unclosed.add();
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

fn work(inbox: &Mutex<Receiver<Order>>, unclosed: &Unclosed) {
    let inbox = inbox.lock().unwrap_or_else(PoisonError::into_inner);
    for order in &*inbox {
        match order {
            Order::Read(order) => order.home.post(Letter::FilePart(ReadPart {
                key: order.key,
                number: order.number,
                at: order.at,
                read: order.read(),
            })),
            Order::Close(file) => {
                drop(file);
                unclosed.closed();
            }
        }
    }
}

static NEXT: AtomicU64 = AtomicU64::new(0);
/// A consumer whose files cannot be closed may not hand over more and more of them.
const MOST_OF_ONE: usize = 2048;
/// And no more than a few, if so many of all consumers cannot be closed: of several, or of one that
/// has come again.
const MANY: usize = 3072;
const FEW: usize = 16;
/// Beyond this no more consumers are taken in.
const MOST: usize = 4096;
/// Bytes are read to the heap.
const STACK: usize = 128 * 1024;

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read};
    use std::os::unix::net::UnixStream;

    use super::*;

    /// A file, and what sees it closed.
    fn file() -> (OwnedFd, UnixStream) {
        let (file, peer) = UnixStream::pair().unwrap();
        peer.set_nonblocking(true).unwrap();
        (file.into(), peer)
    }

    fn is_open(mut peer: &UnixStream) -> bool {
        match peer.read(&mut [0]) {
            Ok(_) => false,
            Err(error) => error.kind() == ErrorKind::WouldBlock,
        }
    }

    fn wait_for_close(mut peer: &UnixStream) {
        peer.set_nonblocking(false).unwrap();
        assert_eq!(peer.read(&mut [0]).unwrap(), 0);
    }

    fn no_thread(_: Box<dyn FnOnce() + Send>) -> io::Result<()> {
        Err(ErrorKind::WouldBlock.into())
    }

    #[test]
    fn without_a_thread_a_file_waits_for_one() {
        let all = AllUnclosed::default();
        let mut desk = FileDesk::new(&all);
        desk.spawn = no_thread;
        let (first, its_peer) = file();
        assert!(desk.take(first).is_err());
        assert!(is_open(&its_peer));
        assert_eq!(all.count(), 1);
        desk.spawn = spawn_thread;
        let (second, other_peer) = file();
        let handed = desk.take(second).unwrap();
        wait_for_close(&its_peer);
        assert!(is_open(&other_peer));
        drop((desk, handed));
        wait_for_close(&other_peer);
    }

    #[test]
    fn what_waits_for_a_thread_gets_one_when_its_desk_goes_or_stays_open() {
        let all = AllUnclosed::default();
        let [mut lucky, mut unlucky] = [FileDesk::new(&all), FileDesk::new(&all)];
        (lucky.spawn, unlucky.spawn) = (no_thread, no_thread);
        let ((first, its_peer), (second, other_peer)) = (file(), file());
        assert!(lucky.take(first).is_err() && unlucky.take(second).is_err());
        lucky.spawn = spawn_thread;
        drop((lucky, unlucky));
        wait_for_close(&its_peer);
        assert!(is_open(&other_peer));
        assert!(all.count() > 0, "the engine still has it");
    }
}
