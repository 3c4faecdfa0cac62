//! The engine's side of what is shared with consumers: the status page and the lanes.
#![forbid(unsafe_code)]

use std::io;
use std::mem::offset_of;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::bus::layout::{
    ABI, ConsumerHeader, ENGINE_MAGIC, EngineHeader, Geometry, LaneState, LoopEntry, MAX_LOOPS,
    RING_TABLE, RingEntry, STATUS_LEN, STATUS_MAGIC, SlotEntry, StatusHeader, pair,
};
use crate::bus::ring::{Producer, Reader};
use crate::bus::slots::EngineSlots;
use crate::bus::sync::{Bell, Memory, Ordering, Word32};
use crate::bus::wake::{Notice, Sleeper, Waker};
use crate::sys::eventfd::EventFd;
use crate::sys::memory::{self, Mapping, Seals};

/// The engine's status page (S): one for all lanes, read by every consumer.
#[derive(Clone, Debug)]
pub struct StatusPage(Arc<Status>);

#[derive(Debug)]
struct Status {
    file: OwnedFd,
    memory: Memory,
    loops: u16,
}

impl StatusPage {
    /// Makes the page of an engine with `loops` loops. `epoch` tells engines apart.
    pub fn create(loops: u16, epoch: u64) -> io::Result<StatusPage> {
        if !(1..=MAX_LOOPS).contains(&loops) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "an engine has 1 to 32 loops",
            ));
        }
        let file = memory::create(c"toolb-status", STATUS_LEN)?;
        let memory = Memory::new(Mapping::writable(file.as_fd(), STATUS_LEN)?);
        memory::seal(file.as_fd(), Seals::ONE_WRITER)?;
        let word = |offset| memory.word32(offset);
        word(offset_of!(StatusHeader, magic)).store(STATUS_MAGIC, Ordering::Relaxed);
        word(offset_of!(StatusHeader, abi)).store(pair(ABI.0, ABI.1), Ordering::Relaxed);
        memory
            .word64(offset_of!(StatusHeader, epoch))
            .store(epoch, Ordering::Relaxed);
        Ok(Self(Arc::new(Status {
            file,
            memory,
            loops,
        })))
    }

    /// The sleeping side of a loop; only that loop may have it.
    ///
    /// # Panics
    /// If the engine has no such loop.
    pub fn sleeper(&self, loop_index: u16) -> Sleeper {
        assert!(loop_index < self.0.loops, "no such loop");
        Sleeper::new(self.0.memory.word32(wake_word(loop_index)))
    }

    /// The memory file, for consumers to map.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.0.file.as_fd()
    }
}

/// The engine's side of a lane: everything shared with one consumer.
#[derive(Debug)]
pub struct EngineLane {
    id: u64,
    geometry: Geometry,
    status: StatusPage,
    engine_file: OwnedFd,
    consumer_file: OwnedFd,
    engine: Memory,
    consumer: Memory,
    state: Word32,
    doorbell: Arc<EventFd>,
    loop_doorbells: Vec<EventFd>,
    taken: Vec<AtomicBool>,
}

/// What one loop has of a lane.
pub struct LoopEnds {
    /// Requests go out here.
    pub requests: Producer,
    /// Responses come in here.
    pub responses: Reader,
    /// Wakes the consumer.
    pub waker: Waker,
    /// The slots of the exchanges that this loop owns.
    pub slots: EngineSlots,
    /// Tells and hears of moved slot words.
    pub notice: Notice,
}

impl EngineLane {
    /// Makes the memory, the seals and the doorbells. Faults all memory in, so not for a loop.
    pub fn create(
        lane_id: u64,
        geometry: &Geometry,
        status: &StatusPage,
    ) -> io::Result<EngineLane> {
        geometry.check()?;
        if geometry.rings > status.0.loops {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "a lane has at most one ring per loop",
            ));
        }
        let len = geometry.engine_len();
        let engine_file = memory::create(c"toolb-engine", len)?;
        let engine = Memory::new(Mapping::writable(engine_file.as_fd(), len)?);
        memory::seal(engine_file.as_fd(), Seals::ONE_WRITER)?;

        let len = geometry.consumer_len();
        let consumer_file = memory::create(c"toolb-consumer", len)?;
        memory::seal(consumer_file.as_fd(), Seals::FIXED_SIZE)?;
        let consumer = Memory::new(Mapping::read_only(consumer_file.as_fd(), len)?);

        write_header(&engine, lane_id, geometry);
        let state = engine.word32(offset_of!(EngineHeader, state));
        state.store(LaneState::Active as u32, Ordering::Relaxed);
        let loop_doorbells: io::Result<_> = (0..geometry.rings).map(|_| EventFd::new()).collect();
        Ok(Self {
            id: lane_id,
            geometry: *geometry,
            status: status.clone(),
            engine_file,
            consumer_file,
            engine,
            consumer,
            state,
            doorbell: Arc::new(EventFd::new()?),
            loop_doorbells: loop_doorbells?,
            taken: (0..geometry.rings)
                .map(|_| AtomicBool::new(false))
                .collect(),
        })
    }

    /// What the consumer needs, in the order it expects: S, E, C, its doorbell, then the doorbell of
    /// each loop.
    pub fn fds(&self) -> Vec<BorrowedFd<'_>> {
        let mut fds = vec![
            self.status.fd(),
            self.engine_file.as_fd(),
            self.consumer_file.as_fd(),
            self.doorbell.as_fd(),
        ];
        fds.extend(self.loop_doorbells.iter().map(AsFd::as_fd));
        fds
    }

    /// The ends of one loop's rings, for that loop alone.
    ///
    /// # Panics
    /// If the lane has no such ring, or when asked for the same one again: two producers in one ring
    /// would overwrite each other.
    pub fn ends(&self, loop_index: u16) -> LoopEnds {
        let taken = &self.taken[usize::from(loop_index)];
        let again = taken.swap(true, Ordering::Relaxed);
        assert!(!again, "the ends of a ring were taken twice");
        let (geometry, entry) = (&self.geometry, self.geometry.ring(loop_index));
        let (own, peer) = (&self.engine, &self.consumer);
        let slots = |memory: &Memory| {
            memory.table(
                geometry.slot_table(),
                size_of::<SlotEntry>(),
                geometry.slots,
            )
        };
        LoopEnds {
            requests: Producer::new(
                own.bytes(
                    geometry.request_data(loop_index),
                    geometry.request_capacity as usize,
                ),
                own.word64(entry + offset_of!(RingEntry, tail)),
                own.word32(entry + offset_of!(RingEntry, want)),
                peer.word64(entry + offset_of!(RingEntry, head)),
            ),
            responses: Reader::new(
                peer.bytes(
                    geometry.response_data(loop_index),
                    geometry.response_capacity as usize,
                ),
                peer.word64(entry + offset_of!(RingEntry, tail)),
                peer.word32(entry + offset_of!(RingEntry, want)),
                own.word64(entry + offset_of!(RingEntry, head)),
                loop_index,
                geometry.slots,
            ),
            waker: Waker::new(
                peer.word32(offset_of!(ConsumerHeader, wake)),
                Bell::new(Arc::clone(&self.doorbell)),
            ),
            slots: EngineSlots::new(
                slots(own),
                slots(peer),
                peer.word32(offset_of!(ConsumerHeader, tick)),
            ),
            notice: Notice::new(
                own.word32(entry + offset_of!(RingEntry, notice)),
                peer.word32(entry + offset_of!(RingEntry, notice)),
            ),
        }
    }

    /// Says what the lane is up to.
    pub fn set_state(&self, state: LaneState) {
        self.state.store(state as u32, Ordering::Relaxed);
    }

    /// What the consumer rings to wake a loop. The loop watches it edge-triggered and never reads it.
    ///
    /// # Panics
    /// If the lane has no such ring.
    pub fn doorbell_of_loop(&self, loop_index: u16) -> &EventFd {
        &self.loop_doorbells[usize::from(loop_index)]
    }

    /// The number it was created with.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The sizes it was created with.
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }
}

impl LoopEnds {
    /// Whether anything has come since the loop last looked: the recheck between arming and
    /// blocking. A violation counts, so that the loop comes to see it.
    #[inline]
    pub fn has_news(&mut self) -> bool {
        self.responses.refresh() != Ok(false)
            || self.notice.is_pending()
            || self.requests.space_came()
    }
}

/// Where the wake word of a loop stands in S.
pub(super) fn wake_word(loop_index: u16) -> usize {
    size_of::<StatusHeader>()
        + usize::from(loop_index) * size_of::<LoopEntry>()
        + offset_of!(LoopEntry, wake)
}

fn write_header(engine: &Memory, lane_id: u64, geometry: &Geometry) {
    let short = |offset, value| engine.word32(offset).store(value, Ordering::Relaxed);
    let long = |offset, value| engine.word64(offset).store(value, Ordering::Relaxed);
    short(offset_of!(EngineHeader, magic), ENGINE_MAGIC);
    short(offset_of!(EngineHeader, abi), pair(ABI.0, ABI.1));
    long(offset_of!(EngineHeader, lane_id), lane_id);
    long(
        offset_of!(EngineHeader, engine_len),
        geometry.engine_len() as u64,
    );
    long(
        offset_of!(EngineHeader, consumer_len),
        geometry.consumer_len() as u64,
    );
    short(
        offset_of!(EngineHeader, rings_and_slots),
        pair(geometry.rings, geometry.slots),
    );
    short(offset_of!(EngineHeader, ring_table), RING_TABLE as u32);
    short(
        offset_of!(EngineHeader, slot_table),
        geometry.slot_table() as u32,
    );
    short(
        offset_of!(EngineHeader, request_capacity),
        geometry.request_capacity,
    );
    short(
        offset_of!(EngineHeader, response_capacity),
        geometry.response_capacity,
    );
}
