//! The desk for one consumer's files: the only thread that touches the descriptors which that
//! consumer has handed over.
//!
//! With a descriptor a consumer chooses a file system: its own (FUSE) perhaps, or one whose server
//! has gone (NFS). There each call may wait for as long as somebody else likes: fstat, a read, and
//! even close. So no loop makes such a call, and no consumer's files wait for those of another, unless
//! the machine has no more threads.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use crate::log::{self, Level, Throttle};
use crate::sys::file::{self, Patience};
use crate::sys::shortage;

use super::mailbox::{Letter, Mailbox};

/// The desks of all consumers of an engine.
#[derive(Debug, Default)]
pub(super) struct FileDesks {
    /// For desks that cannot have a thread of their own. Started for the first desk.
    spare: Mutex<Option<Sender<Order>>>,
    /// Files that wait to be closed, those of consumers that have gone among them.
    unclosed: Arc<AtomicUsize>,
}

impl FileDesks {
    /// A desk for one more consumer; an error if it may not bring any files.
    pub(super) fn open(&self) -> io::Result<FileDesk> {
        if self.unclosed.load(Ordering::Relaxed) > MOST {
            let why =
                "too many files of other consumers cannot be closed: does a file system hang?";
            return Err(io::Error::other(why));
        }
        let mut spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        let started = match &*spare {
            Some(started) => started.clone(),
            None => spare.insert(start_thread()?).clone(),
        };
        Ok(FileDesk {
            own: Mutex::new(None),
            spare: started,
            unclosed: Arc::new(Unclosed {
                own: AtomicUsize::new(0),
                all: self.unclosed.clone(),
            }),
            start: start_thread,
        })
    }
}

/// The files of a lane. Its thread is started by the first, and ends after the last once the lane
/// is gone.
#[derive(Debug)]
pub(super) struct FileDesk {
    own: Mutex<Option<Sender<Order>>>,
    spare: Sender<Order>,
    unclosed: Arc<Unclosed>,
    start: fn() -> io::Result<Sender<Order>>,
}

impl FileDesk {
    /// Takes a file in.
    pub(super) fn take(&self, file: OwnedFd) -> Handed {
        Handed {
            file: Some(Arc::new(file)),
            number: NEXT.fetch_add(1, Ordering::Relaxed),
            orders: self.orders(),
            unclosed: self.unclosed.clone(),
        }
    }

    /// Whether so many files wait to be closed that their file system seems to hang. If those of
    /// others do, a few are enough.
    pub(super) fn is_clogged(&self) -> bool {
        let Unclosed { own, all } = &*self.unclosed;
        own.load(Ordering::Relaxed) > FEW && all.load(Ordering::Relaxed) > MANY
    }

    /// To its own thread if there can be one: the next file may find one.
    fn orders(&self) -> Sender<Order> {
        let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(orders) = &*own {
            return orders.clone();
        }
        match (self.start)() {
            Ok(orders) => own.insert(orders).clone(),
            Err(error) => {
                static TOLD: Throttle = Throttle::of(1);
                let text = format_args!(
                    "no thread for a consumer's files, which wait for those of others: {}",
                    shortage::explain(&error)
                );
                log::limited(&TOLD, Level::Warning, text);
                self.spare.clone()
            }
        }
    }
}

/// How many files wait to be closed: of one consumer, and of all.
#[derive(Debug)]
struct Unclosed {
    own: AtomicUsize,
    all: Arc<AtomicUsize>,
}

impl Unclosed {
    fn add(&self) {
        self.own.fetch_add(1, Ordering::Relaxed);
        self.all.fetch_add(1, Ordering::Relaxed);
    }

    fn closed(&self) {
        self.own.fetch_sub(1, Ordering::Relaxed);
        self.all.fetch_sub(1, Ordering::Relaxed);
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
        let _ = self.orders.send(Order::Read(order));
    }
}

impl Drop for Handed {
    fn drop(&mut self) {
        if let Some(file) = self.file.take() {
            self.unclosed.add();
            let close = Order::Close(file, self.unclosed.clone());
            // The thread lives as long as anybody can ask it.
            let _ = self.orders.send(close);
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
    Close(Arc<OwnedFd>, Arc<Unclosed>),
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

/// Starts a thread that ends when nobody can ask it any more.
fn start_thread() -> io::Result<Sender<Order>> {
    let (orders, inbox) = channel();
    thread::Builder::new()
        .name("toolb-files".to_owned())
        .stack_size(STACK)
        .spawn(move || work(&inbox))?;
    Ok(orders)
}

fn work(inbox: &Receiver<Order>) {
    for order in inbox {
        match order {
            Order::Read(order) => order.home.post(Letter::FilePart(ReadPart {
                key: order.key,
                number: order.number,
                at: order.at,
                read: order.read(),
            })),
            Order::Close(file, unclosed) => {
                drop(file);
                unclosed.closed();
            }
        }
    }
}

static NEXT: AtomicU64 = AtomicU64::new(0);
/// If so many files cannot be closed, whoever has more than a few of them may bring no more: it, or
/// the same consumer before it was started again, is where they come from.
const MANY: usize = 2048;
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
        (file.into(), peer)
    }

    fn wait_for_close(mut peer: UnixStream) {
        assert_eq!(peer.read(&mut [0]).unwrap(), 0);
    }

    fn has_thread(desk: &FileDesk) -> bool {
        desk.own.lock().unwrap().is_some()
    }

    #[test]
    fn files_without_a_thread_of_their_own_are_read_and_closed_by_the_spare_one() {
        let desks = FileDesks::default();
        let mut desk = desks.open().unwrap();
        desk.start = || Err(ErrorKind::WouldBlock.into());
        let home = Arc::new(Mailbox::new().unwrap());
        let (first, its_peer) = file();
        let handed = desk.take(first);
        handed.order(0, 1, None, 7, home.clone());
        drop(handed);
        wait_for_close(its_peer);
        let letters = home.take();
        assert!(matches!(&letters[0], Letter::FilePart(part) if part.key == 7));
        assert!(!has_thread(&desk));
        desk.start = start_thread;
        let (second, other_peer) = file();
        let handed = desk.take(second);
        assert!(has_thread(&desk));
        drop((desk, desks, handed));
        wait_for_close(other_peer);
    }

    #[test]
    fn whoever_has_more_than_a_few_of_too_many_is_clogged() {
        let desks = FileDesks::default();
        let [one, other] = [(); 2].map(|()| desks.open().unwrap());
        for _ in 0..MANY {
            one.unclosed.add();
        }
        assert!(!one.is_clogged());
        other.unclosed.add();
        assert!(one.is_clogged() && !other.is_clogged());
        for _ in 0..FEW {
            other.unclosed.add();
        }
        assert!(other.is_clogged());
        for _ in 0..MANY {
            one.unclosed.closed();
        }
        assert!(!one.is_clogged() && !other.is_clogged());
        for _ in 0..MOST {
            one.unclosed.add();
        }
        drop(one);
        assert!(desks.open().is_err());
    }
}
