//! The consumers' side outwards: finding room, sending requests, recalling them, and what is done
//! when a consumer comes or goes.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::bus::{self, Kind};
use crate::dispatch::{Admission, Reservation, Ticket, Work};

use super::conn::Place;
use super::event_loop::Loop;
use super::lane::LaneHandle;
use super::lane_end::{Held, LaneEnd, NOBODY, RECALL_AFTER, Unstarted, Waiting};
use super::shared::{ControlEvent, Toll};
use super::warn::Crowd;

/// A request is sent at most this often to consumers that die, or let go of it, before they start it.
const ATTEMPTS: u8 = 3;

impl Loop {
    /// Asks the pool for room for an encoded request.
    pub(super) fn admit(&mut self, key: u64) {
        let work = self.work(key);
        match self.shared.pool.admit(work, self.index, key) {
            Admission::Granted(reservation) => self.send(key, reservation),
            Admission::Queued(ticket) => self.enqueue(key, ticket),
            Admission::Full => self.turn_away(key, Crowd::Line),
            Admission::Limit => self.turn_away(key, Crowd::Inside),
        }
    }

    #[cold]
    fn turn_away(&mut self, key: u64, crowd: Crowd) {
        self.stats().overloaded.add(1);
        self.warn_of_crowd(key, crowd);
        self.shared.note_desertion();
        self.answer_unserved(key, "the server is busy, try again soon\n");
    }

    /// Sends again what a consumer was sent and has not started. False: it was so too often.
    pub(super) fn try_again(&mut self, key: u64) -> bool {
        let Some(exchange) = self.exchange(key) else {
            return true;
        };
        exchange.attempts += 1;
        if exchange.attempts >= ATTEMPTS {
            self.detach(key);
            self.answer_loss(key);
            return false;
        }
        self.readmit(key);
        true
    }

    /// Finds another lane for what has not been sent, ahead of what waits.
    fn readmit(&mut self, key: u64) {
        let Some(exchange) = self.exchange(key) else {
            return;
        };
        exchange.place = Place::Here;
        self.stats().redispatched.add(1);
        let work = self.work(key);
        match self.shared.pool.readmit(work, self.index, key) {
            Admission::Granted(reservation) => self.send(key, reservation),
            Admission::Queued(ticket) => self.enqueue(key, ticket),
            Admission::Full | Admission::Limit => unreachable!("a return is always taken in"),
        }
    }

    /// What a connection asks consumers for.
    fn work(&mut self, key: u64) -> Work {
        match self.conns.get_mut(key) {
            Some(conn) if conn.raw => Work::Stream,
            _ => Work::Request,
        }
    }

    /// Waits for room, for no longer than the application would have for its answer.
    fn enqueue(&mut self, key: u64, ticket: Arc<Ticket>) {
        let until = self.now + self.shared.config.queue_timeout.as_nanos() as u64;
        if let Some(exchange) = self.conns.exchange(key) {
            exchange.place = Place::Queued(ticket, until.min(exchange.deadline));
        }
        if self.conns.get_mut(key).is_some_and(|conn| conn.hung_up) {
            // The client of a stream may have left while it was a consumer's.
            self.mark_ready(key);
        }
        if self.shared.forgone.load(Ordering::SeqCst) {
            return self.forgo(key);
        }
        self.set_timer(key);
        self.shared.note_desertion();
        self.shared.ask_for_starts(self.index);
    }

    /// A ticket of this loop has got room.
    pub(super) fn granted(&mut self, ticket: &Ticket, reservation: Reservation) {
        let key = ticket.exchange();
        let waits = self
            .conns
            .exchange(key)
            .is_some_and(|exchange| {
                matches!(&exchange.place, Place::Queued(own, _) if std::ptr::eq(&**own, ticket))
            });
        match waits {
            // The lane may have gone while the letter was on its way.
            true if !self.shared.pool.holds(reservation) => self.readmit(key),
            true => self.send(key, reservation),
            // The client has left meanwhile.
            false => self.shared.pool.release(reservation),
        }
    }

    /// Writes the request into the lane that has room for it.
    fn send(&mut self, key: u64, reservation: Reservation) {
        let Reservation {
            lane: index,
            slot,
            generation,
        } = reservation;
        let now = self.now;
        let window = u64::from(self.shared.config.response_window);
        let Some(exchange) = self.conns.exchange(key) else {
            return self.shared.pool.release(reservation);
        };
        let lane = self
            .lanes
            .get_mut(usize::from(index))
            .and_then(|lane| lane.as_deref_mut());
        let Some(lane) = lane.filter(|lane| !lane.poisoned) else {
            // The consumer has died between the grant and now.
            self.shared.pool.release(reservation);
            return self.readmit(key);
        };
        exchange.place = Place::Lane {
            lane: index,
            slot,
            generation,
        };
        exchange.received = 0;
        exchange.granted = window;
        let more_body = !exchange.body_done;
        let held = &mut lane.slots[usize::from(slot)];
        *held = Held::begin(generation, held.listed, key);
        lane.held += 1;
        lane.ends.slots.grant_response(slot, window);
        lane.unstarted.push_back(Unstarted {
            slot,
            generation,
            sent_at: now,
        });
        lane.head_waiters.push_back(Waiting {
            conn: key,
            slot,
            generation,
        });
        if lane.watch.is_none() {
            self.watch_turns(index);
        }
        self.send_heads(index);
        if more_body {
            // It waits for this lane's grants from now on, not for those of one it was on before.
            self.mark_ready(key);
        }
    }

    /// Writes the heads that wait for their lane's ring, in order.
    fn send_heads(&mut self, index: u16) {
        let Some(lane) = self.lanes[usize::from(index)].as_deref_mut() else {
            return;
        };
        while let Some(Waiting {
            conn: key,
            slot,
            generation,
        }) = lane.head_waiters.front().copied()
        {
            let wanted = lane
                .held(slot, generation)
                .is_some_and(|held| held.conn == key);
            let conn = self.conns.get_mut(key);
            let raw = conn.as_ref().is_some_and(|conn| conn.raw);
            let exchange = conn.and_then(|c| c.exchange.as_deref());
            if let Some(exchange) = exchange.filter(|_| wanted) {
                let kind = if raw { Kind::Open } else { Kind::RequestHead };
                if !lane.room_for(exchange.record.len()) {
                    return;
                }
                let flags = exchange.record_flags;
                lane.push(kind, flags, (slot, generation), &exchange.record);
                lane.slots[usize::from(slot)].sent = true;
            } else {
                // The consumer has never heard of it, so it will not say that it is done.
                lane.free(slot, generation, &self.shared.pool);
            }
            lane.head_waiters.pop_front();
        }
    }

    /// Goes on with bodies and heads that waited for a grant or for room on this lane.
    pub(super) fn wake_waiters(&mut self, index: u16) {
        if let Some(lane) = self.lanes[usize::from(index)].as_deref_mut() {
            lane.stop_waiting();
        }
        self.send_heads(index);
        let Some(lane) = self.lanes[usize::from(index)].as_deref_mut() else {
            return;
        };
        for key in lane.take_waiters() {
            if let Some(wants) = self.conns.get_mut(key).and_then(|conn| conn.wants.as_mut()) {
                wants.try_again();
            }
            self.mark_ready(key);
        }
    }

    /// Takes note of which records have started: their window is free, their copies can go.
    pub(super) fn note_starts(&mut self, index: u16) {
        if let Some(lane) = self.lanes[usize::from(index)].as_deref_mut()
            && std::mem::take(&mut lane.look_for_starts)
        {
            for slot in lane.take_started() {
                self.note_start(index, slot);
            }
        }
        // Most start in the order in which they were sent.
        loop {
            let Some(lane) = self.lanes[usize::from(index)].as_deref_mut() else {
                return;
            };
            let Some(&Unstarted {
                slot, generation, ..
            }) = lane.unstarted.front()
            else {
                return lane.caught_up(&self.shared.pool);
            };
            let held = lane.slots[usize::from(slot)];
            let waits = held.in_use && held.generation == generation && !held.started;
            if waits && !lane.has_started(slot, generation) {
                return;
            }
            lane.unstarted.pop_front();
            if waits {
                self.note_start(index, slot);
            }
        }
    }

    /// One exchange is known to have started.
    pub(super) fn note_start(&mut self, index: u16, slot: u16) {
        let Some(lane) = self.lanes[usize::from(index)].as_deref_mut() else {
            return;
        };
        lane.moved = true;
        let held = &mut lane.slots[usize::from(slot)];
        if std::mem::replace(&mut held.started, true) {
            return;
        }
        let (key, generation) = (held.conn, held.generation);
        self.shared.pool.started(index, slot, generation);
        let tells_time = lane.handle.tells_time();
        if let Some(exchange) = self.conns.exchange(key) {
            let record = std::mem::take(&mut exchange.record);
            self.spare(record);
        }
        if tells_time {
            self.time_stream(key);
        }
    }

    /// Calls back what has waited too long in front of a busy consumer while others have room.
    pub(super) fn recall_overdue(&mut self) {
        if self.lanes.len() < 2 {
            return;
        }
        for index in 0..self.lanes.len() as u16 {
            self.note_starts(index);
            while let Some((slot, generation)) = self.overdue(index) {
                let Some(lane) = self.lanes[usize::from(index)].as_deref() else {
                    break;
                };
                let key = lane.slots[usize::from(slot)].conn;
                let work = self.work(key);
                let Some(reservation) = self.shared.pool.reserve_elsewhere(work, index) else {
                    break;
                };
                self.recall(index, slot, generation, reservation);
            }
        }
    }

    /// The oldest record of a lane that has waited too long to be started.
    fn overdue(&mut self, index: u16) -> Option<(u16, u32)> {
        let lane = self.lanes[usize::from(index)].as_deref_mut()?;
        let oldest = *lane.unstarted.front()?;
        if self.now < oldest.sent_at + RECALL_AFTER {
            return None;
        }
        lane.stall(&self.shared.pool);
        Some((oldest.slot, oldest.generation))
    }

    fn recall(&mut self, index: u16, slot: u16, generation: u32, elsewhere: Reservation) {
        let Some(lane) = self.lanes[usize::from(index)].as_deref_mut() else {
            return self.shared.pool.release(elsewhere);
        };
        lane.unstarted.pop_front();
        let key = match lane.held(slot, generation) {
            // One that has answered has started, whatever its start word says.
            Some(held) if held.conn != NOBODY && !held.started => held.conn,
            _ => return self.shared.pool.release(elsewhere),
        };
        // One whose head still waits for the ring is simply not sent.
        lane.ends.slots.recall(slot, generation);
        bus::fence();
        if lane.has_started(slot, generation) {
            // It was being started meanwhile. Either it runs, or the consumer saw the recall and
            // will say that it did not run: the copy of the record is kept for that.
            if let Some(held) = lane.held(slot, generation) {
                held.started = true;
                held.recalled = true;
            }
            let tells_time = lane.handle.tells_time();
            self.shared.pool.started(index, slot, generation);
            if tells_time {
                self.time_stream(key);
            }
            return self.shared.pool.release(elsewhere);
        }
        if let Some(held) = lane.held(slot, generation) {
            held.conn = NOBODY;
        }
        self.stats().recalled.add(1);
        self.send(key, elsewhere);
    }

    /// A consumer is ready: takes up this loop's ends of its lane.
    pub(super) fn lane_up(&mut self, handle: Arc<LaneHandle>) {
        let index = handle.index;
        let lane = Box::new(LaneEnd::new(handle, self.index));
        if let Err(error) = self.watch_lane(&lane) {
            self.shared.tell(ControlEvent::Poisoned {
                lane_id: lane.handle.id,
                reason: format!("the loop cannot watch it: {error}"),
            });
        }
        let handle = lane.handle.clone();
        let place = usize::from(index);
        if self.lanes.len() <= place {
            self.lanes.resize_with(place + 1, || None);
        }
        self.lanes[place] = Some(lane);
        if handle.arriving.fetch_sub(1, Ordering::AcqRel) == 1 {
            handle.open(&self.shared.pool);
        }
    }

    /// A consumer has died or left: drains what it published, then settles what it left undone.
    pub(super) fn lane_down(&mut self, handle: &Arc<LaneHandle>) {
        let index = handle.index;
        let place = usize::from(index);
        let ours = self.lanes.get(place).and_then(|lane| lane.as_deref());
        if ours.is_some_and(|lane| Arc::ptr_eq(&lane.handle, handle)) {
            // All that it can have published, even if a child of it still writes.
            for _ in 0..4 {
                if !self.drain_lane(index) {
                    break;
                }
            }
            if let Some(mut lane) = self.lanes[place].take() {
                self.unwatch_lane(&lane);
                self.settle_files(&mut lane);
                self.settle(&lane);
            }
        }
        if handle.leaving.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.shared.pool.remove_lane(index);
            self.shared.tell(ControlEvent::Released {
                lane_id: handle.id,
                toll: handle.toll(),
            });
            // Who waited before it went has nobody else to say so.
            if self.shared.pool.waiting() > 0 {
                self.shared.note_desertion();
            }
        }
    }

    /// Each exchange a dead consumer held: dispatched again if it never began, else 502, or a reset
    /// if its response had begun.
    ///
    /// Consumers begin requests in order, so if one that had not begun has killed it, it is the
    /// oldest. Only that one comes closer to the limit of attempts: those behind it may meet any
    /// number of dying consumers.
    fn settle(&mut self, lane: &LaneEnd) {
        let suspect = lane.oldest_unstarted();
        let mut toll = Toll::default();
        for (slot, held) in lane.slots.iter().enumerate() {
            if !held.in_use || held.conn == NOBODY {
                continue;
            }
            let key = held.conn;
            let begun = held.started || lane.has_started(slot as u16, held.generation);
            let Some(conn) = self.conns.get_mut(key) else {
                continue;
            };
            if conn.has_answered() || conn.raw && begun {
                self.detach(key);
                self.reset(key);
                toll.cut += 1;
            } else if begun {
                self.detach(key);
                self.answer_loss(key);
                toll.failed += 1;
            } else {
                let is_taken = match held.sent && suspect == Some(slot as u16) {
                    true => self.try_again(key),
                    false => {
                        self.readmit(key);
                        true
                    }
                };
                toll.moved += usize::from(is_taken);
                toll.failed += usize::from(!is_taken);
            }
        }
        lane.handle.add_toll(&toll);
    }

    /// Answers a request that was lost with the consumer that had it.
    pub(super) fn answer_loss(&mut self, key: u64) {
        self.stats().worker_died.add(1);
        self.answer_simply(key, 502, "the application's worker died\n", &[]);
    }

    /// Forgets where an exchange was; its place in the pool is given back.
    fn detach(&mut self, key: u64) {
        if let Some(exchange) = self.conns.exchange(key) {
            exchange.place = Place::Here;
            self.shared.pool.leave();
        }
    }

    /// The client or the clock ended an exchange: whoever works on it is told, and its slot is held
    /// until the consumer has let go of it.
    pub(super) fn abandon(&mut self, key: u64) {
        self.leave_place(key, true);
    }

    /// Whoever worked on an exchange has said the last word. A consumer may still hold the slot, but
    /// nobody waits for what it may say.
    pub(super) fn abandon_place(&mut self, key: u64) {
        self.leave_place(key, false);
    }

    fn leave_place(&mut self, key: u64, tell: bool) {
        let Some(exchange) = self.exchange(key) else {
            return;
        };
        match std::mem::replace(&mut exchange.place, Place::Here) {
            Place::Here => return,
            Place::File(answer) => return self.abandon_file(&answer),
            Place::Token(outbox) if tell => return self.cancel_token(&outbox),
            // Its holder has ended it, so there is nobody to be told.
            Place::Token(outbox) => {
                let callbacks = outbox.cancel();
                return self.context().let_go(callbacks);
            }
            // If it was granted already, the letter will find nobody and give the room back.
            Place::Queued(ticket, _) => {
                ticket.cancel();
            }
            Place::Lane {
                lane,
                slot,
                generation,
            } => {
                // The lanes of this turn may have been flushed already.
                self.lanes_dirty |= tell;
                if let Some(lane) = self.lanes[usize::from(lane)].as_deref_mut() {
                    if tell {
                        lane.cancel(slot, generation);
                    }
                    if let Some(held) = lane.held(slot, generation) {
                        held.conn = NOBODY;
                    }
                }
            }
        }
        self.shared.pool.leave();
    }
}
