//! Dispatch under random schedules: `core/tests/shuttle.sh` runs these, with and without mutants.
//!
//! The world keeps books of its own, written after the pool gave and before it is given back. They
//! are never above the truth, so whatever exceeds a limit in them exceeded it in the pool.
#![cfg(shuttle)]

use std::{
    array,
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard},
};

use shuttle::{
    Config, Runner,
    rand::{Rng, thread_rng},
    scheduler::{PctScheduler, RandomScheduler},
    sync::atomic::{AtomicBool, Ordering},
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

/// The second looks of `admit` and `pump`, against room that appears at the same time.
fn lone_waiter(pumps: bool) {
    let world = Arc::new(World::new(1, narrow(1, 1, 1), 1, None));
    assert!(world.admit(0).is_none());
    let newcomer = thread::spawn({
        let world = Arc::clone(&world);
        move || match world.pool.admit(Work::Request, 0, 1) {
            Admission::Queued(_) if pumps => world.pump(),
            Admission::Queued(_) => {}
            Admission::Granted(reservation) => world.hold(reservation, 1),
            refused => panic!("{refused:?}"),
        }
    });
    world.end();
    newcomer.join().unwrap();
    world.assert_nobody_stranded();
}

#[test]
fn a_lone_waiter_is_not_stranded() {
    check(|| lone_waiter(false));
}

#[test]
fn a_lone_waiter_that_pumps_is_not_stranded() {
    check(|| lone_waiter(true));
}

/// Room for two appears while two arrive, one of them leaves, and cancelled tickets fill the line.
#[test]
fn a_cancelled_ticket_strands_nobody() {
    check(|| {
        let world = Arc::new(World::new(2, narrow(1, 1, 1), 2, None));
        assert!(world.admit(0).is_none() && world.admit(1).is_none());
        for exchange in 2..5 {
            let ticket = world.admit(exchange).unwrap();
            world.cancel(&ticket);
        }
        let fickle = thread::spawn({
            let world = Arc::clone(&world);
            move || {
                if let Some(ticket) = world.admit(10) {
                    world.cancel(&ticket);
                }
            }
        });
        let patient = thread::spawn({
            let world = Arc::clone(&world);
            move || drop(world.admit(11))
        });
        let other = thread::spawn({
            let world = Arc::clone(&world);
            move || world.end()
        });
        world.end();
        for thread in [fickle, patient, other] {
            thread.join().unwrap();
        }
        world.wind_up(2);
    });
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

/// A lane closes, is removed with all it has, and comes back, while everybody else carries on.
#[test]
fn lanes_come_and_go() {
    check(|| {
        let mut world = World::new(2, narrow(2, 2, 1), 2, None);
        world.lasting = false;
        let world = Arc::new(world);
        let workers: Vec<_> = (0..2)
            .map(|thread| {
                let world = Arc::clone(&world);
                thread::spawn(move || (0..5).for_each(|step| world.step(thread * 100 + step)))
            })
            .collect();
        let mut gone = false;
        for _ in 0..2 {
            world.pool.close_lane(0);
            if thread_rng().gen_bool(0.8) {
                world.pool.remove_lane(0);
                gone = true;
            }
            if gone {
                // Something that was just being reserved may keep the index from use for now.
                let lane = world.pool.add_lane(world.lane).unwrap();
                assert_ne!(lane, 1, "the index of a lane in use");
                gone = lane != 0;
                if gone {
                    world.pool.remove_lane(lane);
                    continue;
                }
            }
            world.pool.open_lane(0);
            world.pump();
        }
        for worker in workers {
            worker.join().unwrap();
        }
        // What vanished with the lane is given back in vain.
        world.end_all();
        world.pool.remove_lane(0);
        assert_eq!(
            world.pool.add_lane(world.lane),
            Some(0),
            "a counter of a removed lane leaked"
        );
        world.pool.open_lane(0);
        world.assert_all_room_is_back(2);
    });
}

/// What is being reserved while a lane is removed is granted elsewhere, or vanishes with the rest.
#[test]
fn a_removed_lane_holds_nothing() {
    check(|| {
        let world = Arc::new(World::new(2, narrow(2, 2, 2), 2, None));
        let workers: Vec<_> = (0..2)
            .map(|exchange| {
                let world = Arc::clone(&world);
                thread::spawn(move || drop(world.admit(exchange)))
            })
            .collect();
        world.pool.remove_lane(0);
        for worker in workers {
            worker.join().unwrap();
        }
        for held in world.books().held.values() {
            assert_eq!(
                world.pool.holds(held.reservation),
                held.reservation.lane == 1,
                "a reservation on a removed lane"
            );
        }
        assert_eq!(world.pool.in_flight(0), 0);
        world.assert_nobody_stranded();
    });
}

/// Loops as far as they hear of starts.
struct Ears {
    pool: Pool,
    /// A letter has come since the loop last looked: it will look again.
    letters: [AtomicBool; 3],
}

impl Ears {
    fn call_others(&self, own: usize) {
        for (index, letter) in self.letters.iter().enumerate() {
            if index != own {
                letter.store(true, Ordering::SeqCst);
            }
        }
    }

    /// What a loop decides before it sleeps.
    fn look(&self, own: usize) -> bool {
        self.letters[own].store(false, Ordering::SeqCst);
        self.pool.wants_starts(|| self.call_others(own))
    }
}

/// While one loop queues, others find that nobody waits any more.
#[test]
fn a_start_is_heard_of_by_every_loop_while_somebody_waits() {
    check(|| {
        let ears = Arc::new(Ears {
            pool: Pool::new(PoolLimits {
                queue_size: 1,
                limit_concurrency: None,
            }),
            letters: array::from_fn(|_| AtomicBool::new(false)),
        });
        // Somebody waited, and has left.
        ears.pool.ask_for_starts(|| ());
        let others: Vec<_> = (1..3)
            .map(|own| {
                let ears = Arc::clone(&ears);
                thread::spawn(move || (own, ears.look(own)))
            })
            .collect();
        assert!(matches!(
            ears.pool.admit(Work::Request, 0, 0),
            Admission::Queued(_)
        ));
        ears.pool.ask_for_starts(|| ears.call_others(0));
        // Letters are on their way until all have looked.
        let looked: Vec<_> = others.into_iter().map(|one| one.join().unwrap()).collect();
        for (own, hears) in looked {
            assert!(
                hears || ears.letters[own].load(Ordering::SeqCst),
                "stranded: a loop sleeps and does not hear of starts"
            );
        }
    });
}
