//! One lane as dispatch sees it: how much of it is used, and by what.
#![forbid(unsafe_code)]

use super::sync::{AtomicU64, Ordering};

/// What a consumer can take, announced when it attaches. Dispatch needs room in all of it; a zero
/// is taken for a one, but for streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneLimits {
    /// Exchanges that may have an id on the lane.
    pub slots: u16,
    /// Exchanges the application may hold at once.
    pub concurrency: u16,
    /// Records sent but not yet started.
    pub window: u16,
    /// Raw connections among the exchanges; 0: it takes none.
    pub streams: u16,
}

/// What asks for room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// A request, which every consumer takes.
    Request,
    /// A raw connection, for consumers that take those.
    Stream,
}

/// A lane's gate as it was read: three counters, each below 2^16, and what the lane is up to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Gate(u64);

const STREAM: u64 = 1;
const IN_FLIGHT: u64 = 1 << 16;
const UNSTARTED: u64 = 1 << 32;
const COUNTERS: u64 = (1 << 48) - 1;
const OPEN: u64 = 1 << 48;
const STALLED: u64 = 1 << 49;
const VACANT: u64 = 1 << 50;
/// The rest of the word numbers the lanes that had this index, so that a gate read from an earlier
/// one is not taken for the present one.
const INCARNATION: u64 = 1 << 51;

impl Gate {
    pub(super) fn in_flight(self) -> u16 {
        (self.0 >> 16) as u16
    }

    /// What dispatch compares: fewest in flight first, stalled lanes last.
    pub(super) fn load(self) -> u64 {
        u64::from(self.in_flight()) | (self.0 & STALLED)
    }

    pub(super) fn is_stalled(self) -> bool {
        self.0 & STALLED != 0
    }

    fn has_room(self, limits: u64, work: Work) -> bool {
        let below = |shift: u32| ((self.0 >> shift) as u16) < (limits >> shift) as u16;
        let room = self.0 & OPEN != 0 && below(16) && below(32);
        room && (work == Work::Request || below(0))
    }
}

/// A slot's state: the generation above, one of these below.
const FREE: u64 = 0;
const SENT: u64 = 1;
const STARTED: u64 = 2;
/// Beside them: it is a stream.
const OF_STREAM: u64 = 4;

/// Aligned so that lanes do not share a cache line.
#[repr(align(128))]
pub(super) struct Lane {
    gate: AtomicU64,
    /// Packed as the counters are; changes only while the lane is vacant.
    limits: AtomicU64,
    /// Bit set: the slot may be taken. A gate's credit comes back after the bit, hence whoever has
    /// one finds a bit.
    free: Box<[AtomicU64]>,
    states: Box<[AtomicU64]>,
}

impl Lane {
    /// A vacant lane with room for that many slots at least.
    pub(super) fn new(slots: u16) -> Self {
        let words = usize::from(slots.max(1)).next_power_of_two().div_ceil(64);
        Self {
            gate: AtomicU64::new(VACANT),
            limits: AtomicU64::new(0),
            free: (0..words).map(|_| AtomicU64::new(0)).collect(),
            states: (0..words * 64).map(|_| AtomicU64::new(FREE)).collect(),
        }
    }

    pub(super) fn gate(&self) -> Gate {
        Gate(self.gate.load(Ordering::SeqCst))
    }

    /// The gate, if the lane can take one more.
    pub(super) fn gate_with_room(&self, work: Work) -> Option<Gate> {
        let gate = self.gate();
        // Relaxed: the gate's load orders it, the gate's incarnation vouches for it.
        gate.has_room(self.limits.load(Ordering::Relaxed), work)
            .then_some(gate)
    }

    /// Takes a slot. `None` if the gate is no longer the one seen, which had room, or if the lane was
    /// vacated meanwhile.
    pub(super) fn take(&self, seen: Gate, work: Work) -> Option<(u16, u32)> {
        let (stream, kind) = match work {
            Work::Request => (0, 0),
            Work::Stream => (STREAM, OF_STREAM),
        };
        self.gate
            .compare_exchange(
                seen.0,
                seen.0 + stream + IN_FLIGHT + UNSTARTED,
                Ordering::SeqCst,
                Ordering::Relaxed,
            )
            .ok()?;
        let slot = self.take_lowest_bit();
        let generation = self.begin(slot, SENT | kind);
        if self.gate().0 & VACANT != 0 {
            self.finish(slot, generation);
            return None;
        }
        Some((slot, generation))
    }

    /// Whether that exchange still has its slot.
    pub(super) fn holds(&self, slot: u16, generation: u32) -> bool {
        self.states.get(usize::from(slot)).is_some_and(|state| {
            let state = state.load(Ordering::Acquire);
            generation_of(state) == generation && phase_of(state) != FREE
        })
    }

    /// Gives the window back, once per generation.
    pub(super) fn start(&self, slot: u16, generation: u32) {
        let Some(state) = self.states.get(usize::from(slot)) else {
            return;
        };
        // Looking first spares the exchange when records of an exchange keep coming.
        let sent = state.load(Ordering::Acquire);
        let kind = phase_of(sent) & OF_STREAM;
        if sent != pack(generation, SENT | kind) {
            return;
        }
        if state
            .compare_exchange(
                sent,
                pack(generation, STARTED | kind),
                Ordering::AcqRel,
                Ordering::Relaxed,
            )
            .is_ok()
        {
            self.gate.fetch_sub(UNSTARTED, Ordering::SeqCst);
        }
    }

    /// Gives the slot and all that goes with it back, once per generation.
    pub(super) fn finish(&self, slot: u16, generation: u32) {
        let Some(state) = self.states.get(usize::from(slot)) else {
            return;
        };
        let mut now = state.load(Ordering::Acquire);
        loop {
            if generation_of(now) != generation || phase_of(now) == FREE {
                return;
            }
            match state.compare_exchange_weak(
                now,
                pack(generation, FREE),
                Ordering::AcqRel,
                Ordering::Acquire,
            ) {
                Ok(_) => break,
                Err(other) => now = other,
            }
        }
        self.give_back(slot, phase_of(now));
    }

    /// Makes a vacant lane one with these limits, not open yet. False if it is in use, still owed
    /// something, or too small.
    pub(super) fn occupy(&self, limits: LaneLimits) -> bool {
        let gate = self.gate().0;
        let slots = usize::from(limits.slots.max(1));
        if gate & VACANT == 0 || gate & COUNTERS != 0 || slots > self.states.len() {
            return false;
        }
        let one_or_more = |limit: u16| u64::from(limit.max(1));
        // An exchange in flight has a slot: one counter serves both limits.
        let in_flight = one_or_more(limits.slots).min(one_or_more(limits.concurrency));
        self.limits.store(
            u64::from(limits.streams) * STREAM
                + in_flight * IN_FLIGHT
                + one_or_more(limits.window) * UNSTARTED,
            Ordering::Relaxed,
        );
        for (index, word) in self.free.iter().enumerate() {
            let bits = slots.saturating_sub(index * 64).min(64);
            let mask = if bits == 64 {
                u64::MAX
            } else {
                (1 << bits) - 1
            };
            word.store(mask, Ordering::Relaxed);
        }
        let incarnation = (gate & !(INCARNATION - 1)).wrapping_add(INCARNATION);
        self.gate.store(incarnation, Ordering::SeqCst);
        true
    }

    /// Ends this incarnation: whatever is outstanding is finished, and later calls for it are stale.
    pub(super) fn vacate(&self) {
        self.change(VACANT, OPEN | STALLED);
        for (slot, state) in (0..).zip(&self.states) {
            // A new generation even for a free slot: a taker that comes later thereby sees VACANT.
            let mut now = state.load(Ordering::Acquire);
            while let Err(other) = state.compare_exchange_weak(
                now,
                pack(next_generation(now), FREE),
                Ordering::AcqRel,
                Ordering::Acquire,
            ) {
                now = other;
            }
            if phase_of(now) != FREE {
                self.give_back(slot, phase_of(now));
            }
        }
    }

    pub(super) fn is_vacant(&self) -> bool {
        self.gate().0 & VACANT != 0
    }

    pub(super) fn open(&self, open: bool) {
        if open {
            self.change(OPEN, 0);
        } else {
            self.change(0, OPEN);
        }
    }

    pub(super) fn stall(&self, stalled: bool) {
        if stalled {
            self.change(STALLED, 0);
        } else {
            self.change(0, STALLED);
        }
    }

    /// Sets and clears flags of a lane that is not vacant.
    fn change(&self, set: u64, clear: u64) {
        let mut gate = self.gate.load(Ordering::SeqCst);
        while gate & VACANT == 0 {
            let changed = (gate | set) & !clear;
            if changed == gate {
                return;
            }
            match self
                .gate
                .compare_exchange_weak(gate, changed, Ordering::SeqCst, Ordering::SeqCst)
            {
                Ok(_) => return,
                Err(now) => gate = now,
            }
        }
    }

    /// Takes the lowest free slot, which stays warmest. The caller holds a credit.
    fn take_lowest_bit(&self) -> u16 {
        // Ends: there are at least as many bits as credits; to miss one, others must move meanwhile.
        loop {
            for (index, word) in (0u16..).zip(&self.free) {
                let mut bits = word.load(Ordering::Relaxed);
                while bits != 0 {
                    let lowest = bits & bits.wrapping_neg();
                    bits = word.fetch_and(!lowest, Ordering::Acquire);
                    if bits & lowest != 0 {
                        return index * 64 + lowest.trailing_zeros() as u16;
                    }
                }
            }
        }
    }

    /// Marks a slot, whose bit the caller took, as used under its next generation.
    fn begin(&self, slot: u16, phase: u64) -> u32 {
        let state = &self.states[usize::from(slot)];
        let mut now = state.load(Ordering::Relaxed);
        loop {
            let generation = next_generation(now);
            // Fails only when the lane is being vacated.
            match state.compare_exchange(
                now,
                pack(generation, phase),
                Ordering::AcqRel,
                Ordering::Relaxed,
            ) {
                Ok(_) => return generation,
                Err(other) => now = other,
            }
        }
    }

    fn give_back(&self, slot: u16, phase: u64) {
        self.free[usize::from(slot / 64)].fetch_or(1 << (slot % 64), Ordering::Release);
        let stream = if phase & OF_STREAM != 0 { STREAM } else { 0 };
        let unstarted = if phase & SENT != 0 { UNSTARTED } else { 0 };
        self.gate
            .fetch_sub(stream + IN_FLIGHT + unstarted, Ordering::SeqCst);
    }
}

fn pack(generation: u32, phase: u64) -> u64 {
    u64::from(generation) << 32 | phase
}

fn generation_of(state: u64) -> u32 {
    (state >> 32) as u32
}

fn phase_of(state: u64) -> u64 {
    state & 0xffff_ffff
}

/// Generations skip zero, the value of words that were never written.
fn next_generation(state: u64) -> u32 {
    generation_of(state).wrapping_add(1).max(1)
}

#[cfg(all(test, not(shuttle)))]
mod tests;
