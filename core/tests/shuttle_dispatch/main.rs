//! Dispatch under random schedules: `core/tests/shuttle.sh` runs these, with and without mutants.
//!
//! The world keeps books of its own, written after the pool gave and before it is given back. They
//! are never above the truth, so whatever exceeds a limit in them exceeded it in the pool.
#![cfg(shuttle)]

mod lanes;
mod starts;
mod waiting;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard},
};

use shuttle::{
    Config, Runner,
    rand::{Rng, thread_rng},
    scheduler::{PctScheduler, RandomScheduler},
    thread,
};
use toolb_core::dispatch::{Admission, LaneLimits, Pool, PoolLimits, Reservation, Ticket, Work};

const ITERATIONS: usize = 40_000;
const ANY: u16 = u16::MAX;

/// Runs a scenario under uniformly random schedules and under few, far-reaching preemptions.
fn check(scenario: fn()) {
    let mut config = Config::new();
    config.silence_warnings = true;
    Runner::new(RandomScheduler::new(ITERATIONS), config.clone()).run(scenario);
    for depth in [2, 4] {
        let scheduler = PctScheduler::new(depth, ITERATIONS / 2);
        Runner::new(scheduler, config.clone()).run(scenario);
    }
}

#[derive(Clone, Copy)]
struct Held {
    reservation: Reservation,
    exchange: u64,
    started: bool,
}

#[derive(Default)]
struct Books {
    /// Who holds a slot, by lane and slot.
    held: HashMap<(u16, u16), Held>,
    admitted: Vec<u64>,
    settled: Vec<u64>,
    /// Below zero while an exchange ends before its owner has noted that it was queued.
    inside: isize,
}

struct World {
    pool: Pool,
    lane: LaneLimits,
    limit: Option<usize>,
    /// Whether lanes stay: if not, a slot may change hands before its last holder learns of it.
    lasting: bool,
    books: Mutex<Books>,
}

impl World {
    fn new(lanes: usize, lane: LaneLimits, queue_size: usize, limit: Option<usize>) -> Self {
        let pool = Pool::new(PoolLimits {
            queue_size,
            limit_concurrency: limit,
        });
        for _ in 0..lanes {
            pool.open_lane(pool.add_lane(lane).unwrap());
        }
        Self {
            pool,
            lane,
            limit,
            lasting: true,
            books: Mutex::default(),
        }
    }

    /// Never held across a call into the pool.
    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap()
    }

    fn admit(&self, exchange: u64) -> Option<Arc<Ticket>> {
        let admission = self.pool.admit(Work::Request, 0, exchange);
        if matches!(admission, Admission::Granted(_) | Admission::Queued(_)) {
            let mut books = self.books();
            books.admitted.push(exchange);
            books.inside += 1;
            assert!(
                self.limit
                    .is_none_or(|limit| books.inside <= limit as isize),
                "limit_concurrency exceeded"
            );
        }
        self.follow(admission, exchange)
    }

    /// Dispatches an exchange that holds a slot again, and gives the slot back afterwards.
    fn recall(&self, held: Held) {
        self.books().admitted.push(held.exchange);
        let admission = self.pool.readmit(Work::Request, 0, held.exchange);
        assert!(matches!(
            admission,
            Admission::Granted(_) | Admission::Queued(_)
        ));
        self.follow(admission, held.exchange);
        self.give_back(held.reservation);
    }

    fn follow(&self, admission: Admission, exchange: u64) -> Option<Arc<Ticket>> {
        match admission {
            Admission::Granted(reservation) => self.hold(reservation, exchange),
            Admission::Queued(ticket) => {
                self.pump();
                return Some(ticket);
            }
            Admission::Full | Admission::Limit => {}
        }
        None
    }

    fn cancel(&self, ticket: &Ticket) {
        if ticket.cancel() {
            let mut books = self.books();
            books.settled.push(ticket.exchange());
            books.inside -= 1;
            drop(books);
            self.pool.leave();
        }
    }

    fn pump(&self) {
        while let Some((ticket, reservation)) = self.pool.pump() {
            assert!(!ticket.cancel(), "a granted ticket was cancelled");
            self.hold(reservation, ticket.exchange());
        }
    }

    fn hold(&self, reservation: Reservation, exchange: u64) {
        let held = Held {
            reservation,
            exchange,
            started: false,
        };
        let mut books = self.books();
        books.settled.push(exchange);
        let earlier = books
            .held
            .insert((reservation.lane, reservation.slot), held);
        if !self.lasting {
            return;
        }
        assert!(earlier.is_none(), "two holders of a slot");
        let on_lane: Vec<_> = books
            .held
            .values()
            .filter(|held| held.reservation.lane == reservation.lane)
            .collect();
        assert!(
            on_lane.len() <= self.lane.concurrency.min(self.lane.slots).into(),
            "concurrency exceeded"
        );
        let unstarted = on_lane.iter().filter(|held| !held.started).count();
        assert!(unstarted <= self.lane.window.into(), "window exceeded");
    }

    /// Picks one that is under way, at random.
    fn pick(&self) -> Option<Reservation> {
        let mut held: Vec<_> = self
            .books()
            .held
            .values()
            .map(|held| held.reservation)
            .collect();
        held.sort_by_key(|reservation| (reservation.lane, reservation.slot));
        (!held.is_empty()).then(|| held[thread_rng().gen_range(0..held.len())])
    }

    /// Takes one that is under way out of the books, so that one thread alone ends it.
    fn take(&self) -> Option<Held> {
        let reservation = self.pick()?;
        let key = (reservation.lane, reservation.slot);
        self.books().held.remove(&key)
    }

    fn start(&self) {
        let Some(reservation) = self.pick() else {
            return;
        };
        let key = (reservation.lane, reservation.slot);
        match self.books().held.get_mut(&key) {
            Some(held) if held.reservation == reservation => held.started = true,
            _ => {}
        }
        // By now it may have ended, its slot be somebody else's, or another thread start it too.
        self.pool
            .started(reservation.lane, reservation.slot, reservation.generation);
        self.pump();
    }

    fn end(&self) {
        if let Some(held) = self.take() {
            self.books().inside -= 1;
            self.pool.leave();
            self.give_back(held.reservation);
        }
    }

    fn give_back(&self, reservation: Reservation) {
        let Reservation {
            lane,
            slot,
            generation,
        } = reservation;
        if thread_rng().gen_bool(0.5) {
            self.pool.finished(lane, slot, generation);
        } else {
            self.pool.release(reservation);
        }
        // Late and repeated news change nothing.
        self.pool.started(lane, slot, generation);
        self.pool.finished(lane, slot, generation);
        self.pump();
    }

    /// Something a loop does.
    fn step(&self, exchange: u64) {
        match thread_rng().gen_range(0..6) {
            0 | 1 => {
                let ticket = self.admit(exchange);
                if let Some(ticket) = ticket
                    && thread_rng().gen_bool(0.5)
                {
                    self.cancel(&ticket);
                }
            }
            2 => self.start(),
            3 => {
                if let Some(held) = self.take() {
                    self.recall(held);
                }
            }
            _ => self.end(),
        }
    }

    /// With all threads at rest: nobody waits while there is room.
    fn assert_nobody_stranded(&self) {
        assert!(
            self.pool.waiting() == 0 || !self.pool.has_room_beside(ANY),
            "stranded: a ticket waits while a lane has room"
        );
    }

    /// Ends all that is under way, and all that waits behind it.
    fn end_all(&self) {
        self.assert_nobody_stranded();
        while self.pick().is_some() {
            self.end();
            self.assert_nobody_stranded();
        }
        assert_eq!(self.pool.waiting(), 0, "stranded: a ticket waits for ever");
    }

    /// Ends all there is: every exchange had its turn or was cancelled, and all counters are 0.
    fn wind_up(&self, lanes: u16) {
        self.end_all();
        let mut books = self.books();
        books.admitted.sort_unstable();
        books.settled.sort_unstable();
        assert_eq!(books.admitted, books.settled, "settled other than once");
        assert_eq!(books.inside, 0);
        drop(books);
        self.assert_all_room_is_back(lanes);
    }

    /// Takes everything once more: as much is granted as on the first day.
    fn assert_all_room_is_back(&self, lanes: u16) {
        for lane in 0..lanes {
            assert_eq!(self.pool.in_flight(lane), 0, "a counter leaked");
        }
        let LaneLimits {
            slots,
            concurrency,
            window,
            ..
        } = self.lane;
        let room = usize::from(slots.min(concurrency).min(window) * lanes);
        let expected = self.limit.map_or(room, |limit| limit.min(room));
        let granted = (0..=room)
            .filter(|_| matches!(self.pool.admit(Work::Request, 0, 0), Admission::Granted(_)))
            .count();
        assert_eq!(granted, expected, "a counter leaked");
    }
}

fn run(world: World, lanes: u16, threads: u64, steps: u64) {
    let world = Arc::new(world);
    let workers: Vec<_> = (0..threads)
        .map(|thread| {
            let world = Arc::clone(&world);
            thread::spawn(move || (0..steps).for_each(|step| world.step(thread * 100 + step)))
        })
        .collect();
    for worker in workers {
        worker.join().unwrap();
    }
    world.wind_up(lanes);
}

fn narrow(slots: u16, concurrency: u16, window: u16) -> LaneLimits {
    LaneLimits {
        slots,
        concurrency,
        window,
        streams: 0,
    }
}

#[test]
fn nobody_strands_and_no_limit_is_exceeded() {
    check(|| run(World::new(2, narrow(2, 2, 1), 2, None), 2, 3, 6));
}

#[test]
fn slots_have_one_holder() {
    check(|| run(World::new(1, narrow(3, 9, 9), 1, None), 1, 3, 6));
}

#[test]
fn limit_concurrency_is_kept_and_returns() {
    check(|| run(World::new(1, narrow(2, 2, 2), 2, Some(3)), 1, 3, 6));
}

#[test]
fn without_a_queue_what_finds_no_room_is_refused() {
    check(|| run(World::new(1, narrow(1, 1, 1), 0, Some(2)), 1, 3, 5));
}
