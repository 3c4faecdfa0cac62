//! The consumer's side of a lane.
#![forbid(unsafe_code)]

use std::fmt;
use std::io;
use std::mem::offset_of;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use crate::bus::lane::wake_word;
use crate::bus::layout::{
    ABI, CONSUMER_MAGIC, ConsumerHeader, ENGINE_MAGIC, EngineHeader, Geometry, LaneState,
    RING_TABLE, RingEntry, STATUS_LEN, STATUS_MAGIC, SlotEntry, StatusHeader, halves, pair,
};
use crate::bus::ring::{Producer, Reader};
use crate::bus::slots::ConsumerSlots;
use crate::bus::sync::{Bell, Memory, Ordering, Word32};
use crate::bus::wake::{Notice, Sleeper, Waker};
use crate::sys::eventfd::EventFd;
use crate::sys::memory::{self, Mapping, Seals};

/// Why a lane cannot be opened.
#[derive(Debug)]
pub enum OpenError {
    /// A system call failed.
    Io(io::Error),
    /// The engine speaks another version.
    Version {
        /// The engine's version.
        engine: (u16, u16),
    },
    /// What was passed is not a lane.
    Malformed(&'static str),
}

impl fmt::Display for OpenError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenError::Io(error) => write!(formatter, "cannot map the lane: {error}"),
            OpenError::Version { engine } => write!(
                formatter,
                "the engine speaks bus {}.{}, this consumer {}.{}: install matching versions",
                engine.0, engine.1, ABI.0, ABI.1
            ),
            OpenError::Malformed(what) => formatter.write_str(what),
        }
    }
}

impl std::error::Error for OpenError {}

impl From<io::Error> for OpenError {
    fn from(error: io::Error) -> Self {
        OpenError::Io(error)
    }
}

/// The consumer's side of a lane: everything shared with the engine.
pub struct ConsumerLane {
    geometry: Geometry,
    id: u64,
    state: Word32,
    doorbell: EventFd,
    sleeper: Sleeper,
    tick_word: Word32,
    tick: u32,
    slots: ConsumerSlots,
    rings: Vec<ConsumerRing>,
}

/// What is shared with one loop of the engine.
pub struct ConsumerRing {
    /// Requests come in here.
    pub requests: Reader,
    /// Responses go out here.
    pub responses: Producer,
    /// Wakes the loop.
    pub waker: Waker,
    /// Tells and hears of moved slot words.
    pub notice: Notice,
}

impl ConsumerLane {
    /// Maps what [`EngineLane::fds`](crate::bus::EngineLane::fds) lists, after checking that it is
    /// what it should be. Children that are forked later do not have the memory.
    pub fn open(fds: Vec<OwnedFd>) -> Result<ConsumerLane, OpenError> {
        let mut fds = fds.into_iter();
        let (Some(status), Some(engine), Some(consumer), Some(doorbell)) =
            (fds.next(), fds.next(), fds.next(), fds.next())
        else {
            return Err(OpenError::Malformed("a lane needs more descriptors"));
        };
        let loop_doorbells: Vec<_> = fds.map(|fd| Arc::new(EventFd::from(fd))).collect();

        let (status, _) = map_engine_memory(status.as_fd(), STATUS_LEN)?;
        let magic = status.word32(offset_of!(StatusHeader, magic));
        check(
            magic.load(Ordering::Relaxed) == STATUS_MAGIC,
            "the status page of the lane has another magic number",
        )?;
        let (engine, engine_len) = map_engine_memory(engine.as_fd(), RING_TABLE)?;
        let (id, geometry) = read_header(&engine, engine_len)?;
        check(
            loop_doorbells.len() == usize::from(geometry.rings),
            "a lane needs one doorbell per ring",
        )?;
        let own = map_own_memory(consumer.as_fd(), &engine)?;

        let word = |offset| own.word32(offset);
        word(offset_of!(ConsumerHeader, abi)).store(pair(ABI.0, ABI.1), Ordering::Relaxed);
        word(offset_of!(ConsumerHeader, magic)).store(CONSUMER_MAGIC, Ordering::Relaxed);
        let slots = |memory: &Memory| {
            memory.table(
                geometry.slot_table(),
                size_of::<SlotEntry>(),
                geometry.slots,
            )
        };
        let rings = (0..geometry.rings).zip(loop_doorbells);
        Ok(Self {
            geometry,
            id,
            state: engine.word32(offset_of!(EngineHeader, state)),
            doorbell: EventFd::from(doorbell),
            sleeper: Sleeper::new(word(offset_of!(ConsumerHeader, wake))),
            tick_word: word(offset_of!(ConsumerHeader, tick)),
            tick: 0,
            slots: ConsumerSlots::new(slots(&own), slots(&engine)),
            rings: rings
                .map(|(index, doorbell)| {
                    let waker = Waker::new(status.word32(wake_word(index)), Bell::new(doorbell));
                    ConsumerRing::new(&geometry, index, &own, &engine, waker)
                })
                .collect(),
        })
    }

    /// Its sizes.
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// The number that the engine gave it.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// What the engine says the lane is up to.
    #[inline]
    pub fn state(&self) -> LaneState {
        LaneState::from_wire(self.state.load(Ordering::Relaxed))
    }

    /// What the engine rings to wake this side.
    pub fn doorbell(&self) -> &EventFd {
        &self.doorbell
    }

    /// Its sleeping side.
    #[inline]
    pub fn sleeper(&mut self) -> &mut Sleeper {
        &mut self.sleeper
    }

    /// Announces that this side is about to block on its doorbell. False: it need not, something
    /// came; it is awake again.
    #[inline]
    pub fn arm(&mut self) -> bool {
        let rings = &mut self.rings;
        self.sleeper
            .arm_unless(|| rings.iter_mut().any(ConsumerRing::has_news))
    }

    /// Says that this side's loop turns. For every turn: the engine may wait for something of a
    /// consumer that has nothing to do, such as a file that is on its way.
    #[inline]
    pub fn tick(&mut self) {
        self.tick = self.tick.wrapping_add(1);
        self.tick_word.store(self.tick, Ordering::Relaxed);
    }

    /// What is shared with one loop.
    ///
    /// # Panics
    /// If the lane has no such ring.
    #[inline]
    pub fn ring(&mut self, loop_index: u16) -> &mut ConsumerRing {
        &mut self.rings[usize::from(loop_index)]
    }

    /// How many rings there are in each direction.
    #[inline]
    pub fn rings(&self) -> u16 {
        self.geometry.rings
    }

    /// Says that the application is about to take the exchange. False: it was cancelled or recalled
    /// and must not run. After starts, if [`Reader::peer_wants_starts`], the caller bumps the notice,
    /// fences and kicks.
    ///
    /// # Panics
    /// If the lane has no such slot, as in all that follow; records that a [`Reader`] hands out name
    /// none such.
    #[inline]
    pub fn start(&self, slot: u16, generation: u32) -> bool {
        self.slots.start(slot, generation)
    }

    /// Whether the engine has cancelled the exchange. What was called back after its start goes on.
    #[inline]
    pub fn cancelled(&self, slot: u16, generation: u32) -> bool {
        self.slots.cancelled(slot, generation)
    }

    /// How many bytes of the response's body the engine takes in all.
    #[inline]
    pub fn response_granted(&self, slot: u16) -> u64 {
        self.slots.response_granted(slot)
    }

    /// Lets the engine send `total` bytes of the request's body in all. The first grant of an
    /// exchange comes before its [`start`](Self::start), later ones are followed by a notice.
    #[inline]
    pub fn grant_request(&self, slot: u16, total: u64) {
        self.slots.grant_request(slot, total);
    }
}

impl fmt::Debug for ConsumerLane {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("ConsumerLane")
            .field("id", &self.id)
            .field("geometry", &self.geometry)
            .finish_non_exhaustive()
    }
}

impl ConsumerRing {
    /// Whether anything has come since this side last looked: the recheck between arming and
    /// blocking. A violation counts, so that the caller comes to see it.
    #[inline]
    pub fn has_news(&mut self) -> bool {
        self.requests.refresh() != Ok(false)
            || self.notice.is_pending()
            || self.responses.space_came()
    }

    fn new(geometry: &Geometry, index: u16, own: &Memory, peer: &Memory, waker: Waker) -> Self {
        let entry = geometry.ring(index);
        let requests = peer.bytes(
            geometry.request_data(index),
            geometry.request_capacity as usize,
        );
        let responses = own.bytes(
            geometry.response_data(index),
            geometry.response_capacity as usize,
        );
        Self {
            requests: Reader::new(
                requests,
                peer.word64(entry + offset_of!(RingEntry, tail)),
                peer.word32(entry + offset_of!(RingEntry, want)),
                own.word64(entry + offset_of!(RingEntry, head)),
                index,
                geometry.slots,
            ),
            responses: Producer::new(
                responses,
                own.word64(entry + offset_of!(RingEntry, tail)),
                own.word32(entry + offset_of!(RingEntry, want)),
                peer.word64(entry + offset_of!(RingEntry, head)),
            ),
            waker,
            notice: Notice::new(
                own.word32(entry + offset_of!(RingEntry, notice)),
                peer.word32(entry + offset_of!(RingEntry, notice)),
            ),
        }
    }
}

fn check(holds: bool, otherwise: &'static str) -> Result<(), OpenError> {
    if holds {
        return Ok(());
    }
    Err(OpenError::Malformed(otherwise))
}

/// Maps memory that the engine writes, all of it: at least `least` bytes.
fn map_engine_memory(file: BorrowedFd<'_>, least: usize) -> Result<(Memory, usize), OpenError> {
    check(
        memory::seals(file)?.contains(Seals::ONE_WRITER),
        "the engine's memory is not sealed",
    )?;
    let len = usize::try_from(memory::length(file)?).unwrap_or(0);
    check(len >= least, "the engine's memory is too short")?;
    let mapping = Mapping::read_only(file, len)?;
    mapping.keep_from_children()?;
    Ok((Memory::new(mapping), len))
}

/// Maps memory that this side writes, as long as the engine says.
fn map_own_memory(file: BorrowedFd<'_>, engine: &Memory) -> Result<Memory, OpenError> {
    let seals = memory::seals(file)?;
    check(
        seals.contains(Seals::FIXED_SIZE) && !seals.contains(Seals::ONE_WRITER),
        "the consumer's memory is not sealed as it should be",
    )?;
    let len = engine.word64(offset_of!(EngineHeader, consumer_len));
    let len = len.load(Ordering::Relaxed);
    check(
        memory::length(file)? == len,
        "the consumer's memory has another length than announced",
    )?;
    let mapping = Mapping::writable(file, usize::try_from(len).unwrap_or(0))?;
    mapping.keep_from_children()?;
    Ok(Memory::new(mapping))
}

fn read_header(engine: &Memory, engine_len: usize) -> Result<(u64, Geometry), OpenError> {
    let short = |offset| engine.word32(offset).load(Ordering::Relaxed);
    let long = |offset| engine.word64(offset).load(Ordering::Relaxed);
    check(
        short(offset_of!(EngineHeader, magic)) == ENGINE_MAGIC,
        "the engine's memory has another magic number",
    )?;
    let engine_abi = halves(short(offset_of!(EngineHeader, abi)));
    if engine_abi.0 != ABI.0 {
        return Err(OpenError::Version { engine: engine_abi });
    }
    let (rings, slots) = halves(short(offset_of!(EngineHeader, rings_and_slots)));
    let geometry = Geometry {
        rings,
        slots,
        request_capacity: short(offset_of!(EngineHeader, request_capacity)),
        response_capacity: short(offset_of!(EngineHeader, response_capacity)),
    };
    let consistent = geometry.check().is_ok()
        && short(offset_of!(EngineHeader, ring_table)) as usize == RING_TABLE
        && short(offset_of!(EngineHeader, slot_table)) as usize == geometry.slot_table()
        // Later minor versions may append to both.
        && engine_len >= geometry.engine_len()
        && long(offset_of!(EngineHeader, engine_len)) == engine_len as u64
        && long(offset_of!(EngineHeader, consumer_len)) >= geometry.consumer_len() as u64;
    check(
        consistent,
        "the sizes in the lane's header do not fit each other",
    )?;
    Ok((long(offset_of!(EngineHeader, lane_id)), geometry))
}
