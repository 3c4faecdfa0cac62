//! Responses whose body is a file that a consumer has opened.
//!
//! The record and the descriptor come on different ways; whichever is first waits for the other, and
//! nothing else does. The lane's file thread looks at the file and reads its first part; from then on
//! it is read into the output as the client takes it, a part at a time: on the loop what the kernel
//! has in memory, if the file system is one that can tell, and by the thread all else.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use crate::bus::RecordHeader;
use crate::http::BodyLength;
use crate::message::FileHead;

use super::conn::{Phase, Place};
use super::event_loop::Loop;
use super::file_desk::{Handed, Part, ReadPart};
use super::lane::LaneHandle;
use super::lane_end::{LaneEnd, NOBODY};
use super::mailbox::Letter;
use super::reply::Offence;
use super::shared::Toll;

/// So much of a file is read at once, and in memory for one connection.
const PART: u64 = 256 * 1024;

/// An exchange that is answered by a file.
#[derive(Debug)]
pub(super) enum FileAnswer {
    /// The record has come, the file has not. The exchange still counts in the pool.
    Awaited {
        /// The lane's place in the pool, and its number.
        lane: (u16, u64),
        slot: u16,
        generation: u32,
        payload: Vec<u8>,
    },
    /// The file thread looks at the file.
    Checked { file: Handed, payload: Vec<u8> },
    /// The file is being sent.
    Sending {
        file: Handed,
        at: u64,
        left: u64,
        /// The file thread reads a part.
        reading: bool,
        /// The loop may look for itself what is in memory.
        never_waits: bool,
    },
}

/// A file that has come before its record, or a record's connection that has come before its file.
/// By use of a slot. The slot is held meanwhile, so that there are no more than slots.
#[derive(Debug, Default)]
pub(super) struct Meeting {
    files: HashMap<(u16, u32), Handed>,
    waiting: HashMap<(u16, u32), u64>,
}

impl Meeting {
    /// Whether a record of this use of a slot waits for its file.
    pub(super) fn awaits(&self, slot: u16, generation: u32) -> bool {
        self.waiting.contains_key(&(slot, generation))
    }

    /// The use of a slot is over: a file that came for it is not wanted.
    pub(super) fn forget(&mut self, slot: u16, generation: u32) {
        if !self.files.is_empty() {
            self.files.remove(&(slot, generation));
        }
    }
}

impl Loop {
    /// A consumer answers with a file.
    pub(super) fn respond_file(
        &mut self,
        key: u64,
        index: u16,
        record: &RecordHeader,
        payload: &[u8],
    ) -> Result<(), Offence> {
        FileHead::decode(payload)
            .map_err(|error| Offence::Owned(format!("a bad response by file: {error}")))?;
        let (slot, generation) = (record.slot, record.generation);
        let Some(lane) = self.lanes[usize::from(index)].as_deref_mut() else {
            return Ok(());
        };
        let file = lane.meeting.files.remove(&(slot, generation));
        let lane_id = lane.handle.id;
        if key == NOBODY {
            return Ok(());
        }
        let answered = self
            .conns
            .get_mut(key)
            .is_none_or(|conn| conn.raw || conn.has_answered());
        if answered {
            return Err(Offence::Borrowed("a second response head for one exchange"));
        }
        if let Some(file) = file {
            // From here on the exchange is the loop's own: the consumer has said all it has to say.
            self.abandon_place(key);
            self.check_file(key, file, payload.to_vec());
            return Ok(());
        }
        if let Some(held) = lane.held(slot, generation) {
            held.conn = NOBODY;
        }
        lane.meeting.waiting.insert((slot, generation), key);
        let awaited = FileAnswer::Awaited {
            lane: (index, lane_id),
            slot,
            generation,
            payload: payload.to_vec(),
        };
        self.place_file(key, awaited);
        self.set_timer(key);
        Ok(())
    }

    /// A consumer has sent a descriptor.
    pub(super) fn file_arrived(
        &mut self,
        handle: &Arc<LaneHandle>,
        slot: u16,
        generation: u32,
        file: Handed,
    ) {
        let lane = self.lanes.get_mut(usize::from(handle.index));
        let Some(lane) = lane.and_then(|lane| lane.as_deref_mut()) else {
            return;
        };
        if !Arc::ptr_eq(&lane.handle, handle) {
            return;
        }
        if lane.meeting.awaits(slot, generation) {
            if let Some((key, payload)) = self.end_wait(handle.index, slot, generation) {
                self.check_file(key, file, payload);
            }
        } else if lane.held(slot, generation).is_some_and(|held| !held.ended) {
            // Its record may still be on its way. One that nobody waits for is closed.
            lane.meeting.files.insert((slot, generation), file);
        }
    }

    /// The lane of a dead consumer: files that have not come will not come any more.
    pub(super) fn settle_files(&mut self, lane: &mut LaneEnd) {
        let mut toll = Toll::default();
        for ((slot, generation), key) in std::mem::take(&mut lane.meeting.waiting) {
            if self
                .take_awaited(key, lane.handle.id, slot, generation)
                .is_some()
            {
                self.shared.pool.leave();
                self.answer_loss(key);
                toll.failed += 1;
            }
        }
        lane.handle.add_toll(&toll);
    }

    /// The client has gone, or its deadline: a file that is on its way is not wanted any more.
    pub(super) fn abandon_file(&mut self, answer: &FileAnswer) {
        let &FileAnswer::Awaited {
            lane: (index, lane_id),
            slot,
            generation,
            ..
        } = answer
        else {
            return;
        };
        self.shared.pool.leave();
        let lane = self.lanes.get(usize::from(index));
        if lane.is_some_and(|lane| lane.as_ref().is_some_and(|lane| lane.handle.id == lane_id)) {
            self.end_wait(index, slot, generation);
        }
    }

    /// Nothing waits for the file of this use of a slot any more. Frees the slot if the consumer has
    /// let go of it. Who has waited, if he still does; he has left the pool then.
    fn end_wait(&mut self, index: u16, slot: u16, generation: u32) -> Option<(u64, Vec<u8>)> {
        let lane = self.lanes[usize::from(index)].as_deref_mut()?;
        let key = lane.meeting.waiting.remove(&(slot, generation))?;
        let lane_id = lane.handle.id;
        if lane.held(slot, generation).is_some_and(|held| held.done) {
            lane.free(slot, generation, &self.shared.pool);
            // This may be the end of a turn: those who wait for room have theirs in the next.
            self.mailbox().post(Letter::Pump);
        }
        let payload = self.take_awaited(key, lane_id, slot, generation)?;
        self.shared.pool.leave();
        Some((key, payload))
    }

    /// Puts the next part of a file into the output of a connection that has sent all it had. False:
    /// there is none, now or at all.
    pub(super) fn refill(&mut self, key: u64) -> bool {
        let Some(conn) = self.conns.get_mut(key) else {
            return false;
        };
        let Some(exchange) = conn.exchange.as_deref_mut() else {
            return false;
        };
        let Place::File(answer) = &mut exchange.place else {
            return false;
        };
        let FileAnswer::Sending {
            file,
            at,
            left,
            reading: reading @ false,
            never_waits,
        } = &mut **answer
        else {
            return false;
        };
        let len = PART.min(*left) as usize;
        conn.output.drain(..conn.sent);
        conn.sent = 0;
        let read = match never_waits {
            true => file.read_now(*at, len, &mut conn.output),
            false => Err(io::ErrorKind::WouldBlock.into()),
        };
        match read {
            Ok(got) => self.file_advanced(key, got),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                *reading = true;
                let home = self.shared.mailboxes[usize::from(self.index)].clone();
                file.order(*at, len, None, key, home);
                false
            }
            Err(error) => self.break_file(key, &error.to_string()),
        }
    }

    /// The file thread has read a part.
    pub(super) fn file_part(&mut self, part: ReadPart) {
        let Some(conn) = self.conns.get_mut(part.key) else {
            return;
        };
        let Some(exchange) = conn.exchange.as_deref_mut() else {
            return;
        };
        let Place::File(answer) = &mut exchange.place else {
            return;
        };
        match &mut **answer {
            FileAnswer::Checked { file, .. } if file.number() == part.number => {
                return self.file_checked(part);
            }
            FileAnswer::Sending {
                file, at, reading, ..
            } if file.number() == part.number && *at == part.at && *reading => {
                *reading = false;
            }
            _ => return,
        }
        match part.read {
            Ok(Part { bytes, .. }) => {
                conn.output.extend_from_slice(&bytes);
                self.file_advanced(part.key, bytes.len());
            }
            Err(error) => {
                self.break_file(part.key, &error.to_string());
            }
        }
    }

    /// Record and file are here: the file is looked at, and its first part read.
    fn check_file(&mut self, key: u64, file: Handed, payload: Vec<u8>) {
        let Ok(FileHead { offset, length, .. }) = FileHead::decode(&payload) else {
            // It was decoded before.
            return;
        };
        let len = PART.min(length) as usize;
        let home = self.shared.mailboxes[usize::from(self.index)].clone();
        file.order(offset, len, Some(offset.saturating_add(length)), key, home);
        self.place_file(key, FileAnswer::Checked { file, payload });
        self.set_timer(key);
    }

    /// The file is what it was said to be, or not: the head goes out, and the file after it.
    fn file_checked(&mut self, part: ReadPart) {
        let key = part.key;
        let Some(exchange) = self.exchange(key) else {
            return;
        };
        let Place::File(answer) = std::mem::replace(&mut exchange.place, Place::Here) else {
            return;
        };
        let FileAnswer::Checked { file, payload } = *answer else {
            return;
        };
        let Part { bytes, never_waits } = match part.read {
            Ok(part) => part,
            Err(error) => return self.refuse_file(key, &error.to_string()),
        };
        let Ok(FileHead {
            offset,
            length,
            head,
        }) = FileHead::decode(&payload)
        else {
            // It was decoded before.
            return;
        };
        let known = BodyLength::Known(length);
        let begun = self.begin_response(key, head.status(), head.fields(), known, true);
        if !begun.unwrap_or(false) {
            return;
        }
        let Some(exchange) = self.exchange(key) else {
            return;
        };
        // To HEAD, 204 and 304 belongs no body; a Content-Length of the application counts.
        let wanted = exchange.writer.as_ref().map_or(0, |writer| writer.left());
        let left = length.min(wanted);
        if left == 0 {
            let ended = self.respond_body(key, &[], true);
            debug_assert!(ended.is_ok(), "its head was written");
            return;
        }
        let sending = FileAnswer::Sending {
            file,
            at: offset,
            left,
            reading: false,
            never_waits,
        };
        self.place_file(key, sending);
        let first = &bytes[..bytes.len().min(left as usize)];
        if let Some(conn) = self.conns.get_mut(key) {
            conn.output.extend_from_slice(first);
        }
        self.file_advanced(key, first.len());
    }

    fn refuse_file(&mut self, key: u64, why: &str) {
        self.blame(key, &format!("a file was refused as a response: {why}"));
        self.answer_simply(key, 500, "Internal Server Error\n", &[]);
    }

    /// So many bytes of the file were added to the output. True: there is something to send.
    fn file_advanced(&mut self, key: u64, got: usize) -> bool {
        if got == 0 {
            return self.break_file(key, "it has become shorter");
        }
        let Some(exchange) = self.exchange(key) else {
            return false;
        };
        if let Some(writer) = &mut exchange.writer {
            writer.appended(got as u64);
        }
        let Place::File(answer) = &mut exchange.place else {
            return false;
        };
        if let FileAnswer::Sending { at, left, .. } = &mut **answer {
            *at += got as u64;
            *left -= got as u64;
            if *left == 0 {
                let ended = self.respond_body(key, &[], true);
                debug_assert!(ended.is_ok(), "its head was written");
                return true;
            }
        }
        self.mark_dirty(key);
        true
    }

    /// The file cannot be sent to its end, and the client must not take this for it.
    fn break_file(&mut self, key: u64, why: &str) -> bool {
        self.blame(key, &format!("a file could not be sent to its end: {why}"));
        self.reset(key);
        false
    }

    fn place_file(&mut self, key: u64, answer: FileAnswer) {
        let now = self.now;
        let Some(conn) = self.conns.get_mut(key) else {
            return;
        };
        if conn.phase == Phase::Body {
            // What is left of the request is dealt with after the response.
            conn.enter(Phase::Response, now);
        }
        if let Some(exchange) = conn.exchange.as_deref_mut() {
            exchange.place = Place::File(Box::new(answer));
        }
    }

    /// What an exchange was to answer with a file, if it still waits for this one.
    fn take_awaited(
        &mut self,
        key: u64,
        lane_id: u64,
        slot: u16,
        generation: u32,
    ) -> Option<Vec<u8>> {
        let exchange = self.exchange(key)?;
        let Place::File(answer) = &mut exchange.place else {
            return None;
        };
        let FileAnswer::Awaited {
            lane: (_, awaited_lane),
            slot: awaited_slot,
            generation: awaited_generation,
            payload,
        } = &mut **answer
        else {
            return None;
        };
        let awaited = (*awaited_lane, *awaited_slot, *awaited_generation);
        if awaited != (lane_id, slot, generation) {
            return None;
        }
        let payload = std::mem::take(payload);
        exchange.place = Place::Here;
        Some(payload)
    }
}
