//! Random conversations over small rings and windows, checked from the engine's side: whatever the
//! order of things, each exchange ends once, its bytes arrive whole and in order, no window is
//! overrun, and a consumer that sleeps is woken when it has something to do.

use proptest::prelude::*;

use super::*;

const RINGS: u16 = 2;
const SLOTS: u16 = 6;

/// What the engine knows of an exchange in flight.
#[derive(Clone, Default)]
struct Seen {
    id: Option<ExchangeId>,
    owner: u16,
    granted: u64,
    received: Vec<u8>,
    head: bool,
    ended: bool,
    cancelled: bool,
}

/// What the application does with an exchange.
#[derive(Clone)]
struct Task {
    id: ExchangeId,
    sent: Vec<u8>,
    head: bool,
    ended: bool,
    waits: bool,
    gone: bool,
}

struct World {
    engine: Engine,
    consumer: Consumer,
    seen: Vec<Seen>,
    tasks: Vec<Task>,
    /// What the application gave in all, by slot; complete once it ended.
    given: Vec<(ExchangeId, Vec<u8>, bool)>,
    pending: Vec<ExchangeId>,
    asleep: bool,
    seed: u64,
    finished: usize,
    begun: usize,
}

impl World {
    fn new(seed: u64) -> Self {
        let (engine, consumer) = pair_with(Geometry {
            rings: RINGS,
            slots: SLOTS,
            request_capacity: 8192,
            response_capacity: 4096,
        });
        Self {
            engine,
            consumer,
            seen: vec![Seen::default(); usize::from(SLOTS)],
            tasks: Vec::new(),
            given: Vec::new(),
            pending: Vec::new(),
            asleep: false,
            seed: seed | 1,
            finished: 0,
            begun: 0,
        }
    }

    fn below(&mut self, limit: usize) -> usize {
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        (self.seed >> 33) as usize % limit
    }

    fn send_request(&mut self) {
        let slot = self.below(usize::from(SLOTS)) as u16;
        if self.seen[usize::from(slot)].id.is_some() {
            return;
        }
        let window = [0, 10, 3000, 100_000][self.below(4)];
        let owner = self.below(usize::from(RINGS)) as u16;
        let parts = RequestHeadParts {
            response_window: window,
            ..get()
        };
        if !self.engine.loops[usize::from(owner)].requests.has_room(400) {
            return;
        }
        let id = self.engine.request_on(owner, slot, &parts, flags::END);
        self.begun += 1;
        self.seen[usize::from(slot)] = Seen {
            id: Some(id),
            owner,
            granted: u64::from(window),
            ..Seen::default()
        };
    }

    fn drain(&mut self, owner: usize) {
        for got in self.engine.drain_on(owner) {
            let seen = &mut self.seen[usize::from(got.header.slot)];
            let id = seen.id.expect("a record of a finished exchange");
            assert_eq!(got.header.generation, id.generation);
            assert_eq!(usize::from(seen.owner), owner);
            match got.kind() {
                Kind::ResponseHead => assert!(!std::mem::replace(&mut seen.head, true)),
                Kind::ResponseBody => assert!(seen.head),
                Kind::Cancelled => assert!(seen.cancelled && !seen.ended),
                Kind::ResponseAbort => assert!(!seen.ended),
                other => panic!("{other:?}"),
            }
            assert!(!seen.ended || got.body().is_empty());
            seen.received.extend_from_slice(got.body());
            assert!(seen.received.len() as u64 <= seen.granted, "window overrun");
            if got.header.flags & flags::END != 0 {
                assert!(!std::mem::replace(&mut seen.ended, true));
            }
            if got.header.flags & flags::DONE == 0 {
                continue;
            }
            self.finished += 1;
            let seen = std::mem::take(seen);
            let place = self.given.iter().position(|given| given.0 == id);
            let Some(place) = place else {
                assert!(seen.cancelled, "never started");
                continue;
            };
            let (_, given, whole) = self.given.swap_remove(place);
            assert!(given.starts_with(&seen.received));
            assert!(whole || !seen.ended, "ended early");
            if seen.ended {
                assert!(given == seen.received);
            }
        }
    }

    fn grant_or_cancel(&mut self) {
        let slot = self.below(usize::from(SLOTS));
        let cancel = self.below(8) == 0;
        let more = self.below(5000) as u64;
        let seen = &mut self.seen[slot];
        let Some(id) = seen.id else {
            return;
        };
        let ends = &mut self.engine.loops[usize::from(seen.owner)];
        if cancel {
            seen.cancelled = true;
            ends.slots.cancel(id.slot, id.generation);
        } else {
            seen.granted += more;
            ends.slots.grant_response(id.slot, seen.granted);
        }
        ends.notice.bump();
        fence();
        ends.waker.kick().unwrap();
    }

    /// A turn of the consumer's loop, unless it sleeps and nobody rang.
    fn turn(&mut self) {
        if self.asleep {
            let bell = self.consumer.lane.doorbell();
            if !bell.wait(Some(Duration::ZERO)).unwrap() {
                return;
            }
            self.consumer.clear_doorbell();
            self.asleep = false;
        }
        let mut events = Vec::new();
        let budget = 1 + self.below(4);
        self.consumer.poll(budget, &mut events).unwrap();
        for event in events {
            match event {
                Event::Request { id, .. } => self.pending.push(id),
                Event::Disconnected { id } => self.task(id).gone = true,
                Event::Writable { id } => {
                    let task = self.task(id);
                    assert!(std::mem::take(&mut task.waits));
                }
                other => panic!("{other:?}"),
            }
        }
    }

    fn task(&mut self, id: ExchangeId) -> &mut Task {
        self.tasks.iter_mut().find(|task| task.id == id).unwrap()
    }

    fn start(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        let at = self.below(self.pending.len());
        let id = self.pending.swap_remove(at);
        if self.consumer.start(id) {
            self.given.push((id, Vec::new(), false));
            self.tasks.push(Task {
                id,
                sent: Vec::new(),
                head: false,
                ended: false,
                waits: false,
                gone: false,
            });
        } else {
            assert!(self.seen[usize::from(id.slot)].cancelled);
        }
    }

    fn act(&mut self, finish: bool) {
        if self.tasks.is_empty() {
            return;
        }
        let at = self.below(self.tasks.len());
        let mut task = self.tasks.swap_remove(at);
        let wait = task.waits && !finish && self.below(4) != 0;
        if wait {
            self.tasks.push(task);
            return;
        }
        let what = self.below(20);
        if what == 0 || (finish && (task.gone || task.ended)) {
            self.consumer.abort(task.id);
            return;
        }
        if task.ended || task.gone {
            if what < 10 {
                self.consumer.done(task.id);
                return;
            }
            self.tasks.push(task);
            return;
        }
        let end = finish || self.below(4) == 0;
        let done = end && self.below(2) == 0;
        let len = [0, 5, 1000, 3000, 60_000][self.below(5)];
        let first = task.sent.len();
        task.sent
            .extend((first..first + len).map(|at| (at / 3) as u8));
        let data = &task.sent[first..];
        let result = if task.head {
            self.consumer.respond_body(task.id, data, end, done)
        } else {
            let fields = NO_FIELDS.into_iter();
            self.consumer
                .respond_head(task.id, 200, -1, fields, data, end, done)
        };
        match result {
            Ok(sent) => {
                task.waits = sent == Sent::Above && !end;
                let given = self.given.iter_mut().find(|given| given.0 == task.id);
                let given = given.expect("not finished for the engine");
                given.1.extend_from_slice(data);
                given.2 = end;
            }
            Err(error) => assert!(task.gone && error == RespondError::Disconnected),
        }
        task.head = true;
        task.ended = end;
        if !done {
            self.tasks.push(task);
        }
    }

    fn step(&mut self) {
        match self.below(12) {
            0 | 1 => self.send_request(),
            2 => {
                let owner = self.below(usize::from(RINGS));
                self.drain(owner);
            }
            3 => self.grant_or_cancel(),
            4 if self.asleep => {}
            4 => self.asleep = self.consumer.arm(),
            5 | 6 => self.turn(),
            _ if self.asleep => {}
            7 | 8 => self.start(),
            9 => self.consumer.flush(false),
            _ => self.act(false),
        }
    }

    /// Both sides do what they are rung for until nothing moves: then nothing may be left.
    fn settle(&mut self) {
        for _ in 0..10_000 {
            for owner in 0..usize::from(RINGS) {
                self.drain(owner);
            }
            for slot in 0..usize::from(SLOTS) {
                let seen = &mut self.seen[slot];
                let Some(id) = seen.id else { continue };
                if seen.granted < seen.received.len() as u64 + 1000 {
                    seen.granted = seen.received.len() as u64 + 1000;
                    let ends = &mut self.engine.loops[usize::from(seen.owner)];
                    ends.slots.grant_response(id.slot, seen.granted);
                    ends.notice.bump();
                    fence();
                    ends.waker.kick().unwrap();
                }
            }
            self.turn();
            if self.asleep {
                if self.pending.is_empty() && self.tasks.is_empty() && self.begun == self.finished {
                    break;
                }
                // The application goes on by itself, too.
                let idle = self.pending.is_empty() && self.tasks.is_empty();
                if !idle {
                    self.consumer.disarm();
                    self.asleep = false;
                }
            }
            if !self.asleep {
                self.start();
                self.act(true);
                self.asleep = self.consumer.arm();
            }
        }
        assert_eq!(self.begun, self.finished, "something is stuck");
        assert_eq!(self.consumer.in_flight(), 0);
        assert!(self.given.is_empty());
        assert!(
            self.consumer
                .lines
                .iter()
                .all(|line| line.active.is_empty())
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn every_conversation_ends_well(seed: u64, steps in 1usize..600) {
        let mut world = World::new(seed);
        for _ in 0..steps {
            world.step();
        }
        world.settle();
    }
}
