//! Responses whose body is a file that a consumer has opened.
//!
//! The record and the descriptor come on different ways; whichever is first waits for the other, and
//! nothing else does. The file is read into the output as the client takes it, a part at a time: what
//! the kernel has in memory is read on the loop, what it would have to fetch from a disk is read by
//! the file thread, so that no other connection waits for it.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread;

use crate::bus::RecordHeader;
use crate::http::BodyLength;
use crate::log;
use crate::message::FileHead;
use crate::sys::file::{self, Patience};

use super::conn::{Phase, Place};
use super::event_loop::Loop;
use super::lane::{LaneEnd, LaneHandle, NOBODY};
use super::mailbox::{Letter, Mailbox};
use super::reply::Offence;

/// So much of a file is read at once, and in memory for one connection.
const PART: u64 = 256 * 1024;

/// An exchange that is answered by a file.
#[derive(Debug)]
pub(super) enum FileAnswer {
    /// The record has come, the file has not.
    Awaited {
        /// The lane's place in the pool, and its number.
        lane: (u16, u64),
        slot: u16,
        generation: u32,
        payload: Vec<u8>,
    },
    /// The file is being sent.
    Sending {
        file: Arc<OwnedFd>,
        at: u64,
        left: u64,
        /// The file thread reads a part.
        reading: bool,
    },
}

/// A file that has come before its record, or a record's connection that has come before its file.
/// By slot, so that there are no more than slots.
#[derive(Debug, Default)]
pub(super) struct Meeting {
    files: Vec<(u16, u32, OwnedFd)>,
    waiting: Vec<(u16, u32, u64)>,
}

impl Meeting {
    fn leave_file(&mut self, slot: u16, generation: u32, file: OwnedFd) {
        self.forget(slot);
        self.files.push((slot, generation, file));
    }

    fn take_file(&mut self, slot: u16, generation: u32) -> Option<OwnedFd> {
        let is = |(s, g, _): &(u16, u32, OwnedFd)| (*s, *g) == (slot, generation);
        let at = self.files.iter().position(is)?;
        Some(self.files.swap_remove(at).2)
    }

    fn take_waiting(&mut self, slot: u16, generation: u32) -> Option<u64> {
        let is = |(s, g, _): &(u16, u32, u64)| (*s, *g) == (slot, generation);
        let at = self.waiting.iter().position(is)?;
        Some(self.waiting.swap_remove(at).2)
    }

    /// The use of a slot is over: a file that came for it is not wanted.
    pub(super) fn forget(&mut self, slot: u16) {
        if !self.files.is_empty() {
            self.files.retain(|(other, ..)| *other != slot);
        }
    }
}

/// A part of a file that the file thread has read.
#[derive(Debug)]
pub(super) struct ReadPart {
    key: u64,
    at: u64,
    read: io::Result<Vec<u8>>,
}

/// What the file thread is asked for.
pub(super) struct ReadOrder {
    file: Arc<OwnedFd>,
    key: u64,
    at: u64,
    len: usize,
    home: Arc<Mailbox>,
}

/// Starts the thread that waits for disks. It ends when nobody can ask it any more.
pub(super) fn start_file_thread() -> io::Result<Sender<ReadOrder>> {
    let (orders, inbox) = channel::<ReadOrder>();
    thread::Builder::new()
        .name("toolb-files".to_owned())
        .spawn(move || {
            for order in inbox {
                let mut bytes = Vec::new();
                let file = order.file.as_fd();
                let read = file::read(file, order.at, order.len, &mut bytes, Patience::Any);
                order.home.post(Letter::FilePart(ReadPart {
                    key: order.key,
                    at: order.at,
                    read: read.map(|_| bytes),
                }));
            }
        })?;
    Ok(orders)
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
        let file = lane.meeting.take_file(slot, generation);
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
        // From here on the exchange is the loop's own: the consumer has said all it has to say.
        self.abandon_place(key);
        if let Some(file) = file {
            self.begin_file(key, file, payload);
            return Ok(());
        }
        let awaited = FileAnswer::Awaited {
            lane: (index, lane_id),
            slot,
            generation,
            payload: payload.to_vec(),
        };
        self.place_file(key, awaited);
        if let Some(lane) = self.lanes[usize::from(index)].as_deref_mut() {
            lane.meeting.waiting.push((slot, generation, key));
        }
        self.set_timer(key);
        Ok(())
    }

    /// A consumer has sent a descriptor.
    pub(super) fn file_arrived(
        &mut self,
        handle: &Arc<LaneHandle>,
        slot: u16,
        generation: u32,
        file: OwnedFd,
    ) {
        let lane = self.lanes.get_mut(usize::from(handle.index));
        let Some(lane) = lane.and_then(|lane| lane.as_deref_mut()) else {
            return;
        };
        if !Arc::ptr_eq(&lane.handle, handle) {
            return;
        }
        let Some(key) = lane.meeting.take_waiting(slot, generation) else {
            // Its record may still be on its way. One that nobody waits for is closed.
            if lane.held(slot, generation).is_some_and(|held| !held.ended) {
                lane.meeting.leave_file(slot, generation, file);
            }
            return;
        };
        let lane_id = lane.handle.id;
        if let Some(payload) = self.take_awaited(key, lane_id, slot, generation) {
            self.begin_file(key, file, &payload);
        }
    }

    /// The lane of a dead consumer: files that have not come will not come any more.
    pub(super) fn settle_files(&mut self, lane: &mut LaneEnd) {
        for (slot, generation, key) in std::mem::take(&mut lane.meeting.waiting) {
            if self
                .take_awaited(key, lane.handle.id, slot, generation)
                .is_some()
            {
                self.stats().worker_died.add(1);
                self.answer_simply(key, 502, "the application's worker died\n", &[]);
            }
        }
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
        let lane = self.lanes.get_mut(usize::from(index));
        if let Some(lane) = lane.and_then(|lane| lane.as_deref_mut())
            && lane.handle.id == lane_id
        {
            lane.meeting.take_waiting(slot, generation);
        }
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
        } = &mut **answer
        else {
            return false;
        };
        let len = PART.min(*left) as usize;
        conn.output.drain(..conn.sent);
        conn.sent = 0;
        match file::read(file.as_fd(), *at, len, &mut conn.output, Patience::None) {
            Ok(got) => self.file_advanced(key, got),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let order = ReadOrder {
                    file: file.clone(),
                    key,
                    at: *at,
                    len,
                    home: self.shared.mailboxes[usize::from(self.index)].clone(),
                };
                *reading = true;
                self.order_part(order);
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
            FileAnswer::Sending { at, reading, .. } if *at == part.at && *reading => {
                *reading = false;
            }
            _ => return,
        }
        match part.read {
            Ok(bytes) => {
                conn.output.extend_from_slice(&bytes);
                self.file_advanced(part.key, bytes.len());
            }
            Err(error) => {
                self.break_file(part.key, &error.to_string());
            }
        }
    }

    /// Record and file are here: the head goes out, and the file after it.
    fn begin_file(&mut self, key: u64, file: OwnedFd, payload: &[u8]) {
        let Ok(FileHead {
            offset,
            length,
            head,
        }) = FileHead::decode(payload)
        else {
            // It was decoded before.
            return;
        };
        let why = match file::readable_length(file.as_fd()) {
            Ok(size) if offset + length <= size => None,
            Ok(size) => Some(format!(
                "it has {size} bytes, and {length} from {offset} on were announced"
            )),
            Err(error) => Some(error.to_string()),
        };
        if let Some(why) = why {
            log::error(format_args!("a file was refused as a response: {why}"));
            return self.answer_simply(key, 500, "Internal Server Error\n", &[]);
        }
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
        if wanted == 0 || length == 0 {
            let ended = self.respond_body(key, &[], true);
            debug_assert!(ended.is_ok(), "its head was written");
            return;
        }
        let sending = FileAnswer::Sending {
            file: Arc::new(file),
            at: offset,
            left: length.min(wanted),
            reading: false,
        };
        self.place_file(key, sending);
        self.mark_dirty(key);
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
        log::error(format_args!("a file could not be sent to its end: {why}"));
        self.reset(key);
        false
    }

    fn order_part(&mut self, order: ReadOrder) {
        let files = self.shared.files.get_or_init(|| start_file_thread().ok());
        let order = match files {
            Some(orders) => match orders.send(order) {
                Ok(()) => return,
                Err(unsent) => unsent.0,
            },
            None => order,
        };
        // Without a thread everybody waits for the disk, but nobody waits for ever.
        let mut bytes = Vec::new();
        let file = order.file.as_fd();
        let read = file::read(file, order.at, order.len, &mut bytes, Patience::Any);
        order.home.post(Letter::FilePart(ReadPart {
            key: order.key,
            at: order.at,
            read: read.map(|_| bytes),
        }));
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
