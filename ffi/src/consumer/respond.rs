//! Responses, from what C says to what the bus carries.

use std::ffi::c_void;
use std::os::fd::BorrowedFd;

use toolb_core::consumer::{ExchangeId, FileError, RespondError, Sent};

use super::live::{Head, Live, id_of};
use super::turn::Inner;
use crate::last_error::fail;
use crate::toolb_status;

impl Inner {
    pub(super) fn edit_head(
        &mut self,
        number: u64,
        edit: impl FnOnce(&mut Head),
    ) -> Result<(), toolb_status> {
        let (_, live) = self.open(number)?;
        live.before_head()?;
        edit(&mut live.head);
        Ok(())
    }

    pub(super) fn answer(&mut self, number: u64, data: &[u8]) -> Result<(), toolb_status> {
        let (id, live) = self.held(number)?;
        let answered = match live.before_head() {
            Ok(()) => self.send(id, data, true, true).map(drop),
            Err(toolb_status::TOOLB_GONE) => Err(toolb_status::TOOLB_GONE),
            Err(status) => return Err(status),
        };
        if answered.is_err() {
            self.consumer.abort(id);
        }
        self.forget(id);
        answered
    }

    pub(super) fn answer_file(
        &mut self,
        number: u64,
        file: BorrowedFd<'_>,
        offset: u64,
        length: Option<u64>,
    ) -> Result<(), toolb_status> {
        let (id, live) = self.open(number)?;
        live.before_head()?;
        let live = &self.live[usize::from(id.slot)];
        let (status, fields) = (live.head.status(), live.head.fields());
        let sent = self
            .consumer
            .respond_file(id, status, fields, file, offset, length, true);
        match sent {
            Ok(()) => {
                self.forget(id);
                Ok(())
            }
            Err(FileError::Respond(error)) => Err(refusal(error)),
            Err(FileError::Unsupported) => {
                Err(fail(toolb_status::TOOLB_BAD_STATE, FileError::Unsupported))
            }
            Err(error) => Err(fail(toolb_status::TOOLB_BAD_ARGUMENT, error)),
        }
    }

    pub(super) fn write(&mut self, number: u64, data: &[u8]) -> Result<(), toolb_status> {
        let (id, live) = self.open(number)?;
        live.before_end()?;
        if live.full {
            live.told_full = true;
            return Err(toolb_status::TOOLB_FULL);
        }
        let sent = self.send(id, data, false, false)?;
        if sent == Sent::Above {
            // The next one is refused until there is room: nothing piles up.
            self.live[usize::from(id.slot)].full = true;
        }
        Ok(())
    }

    pub(super) fn end(&mut self, number: u64) -> Result<(), toolb_status> {
        let (id, live) = self.open(number)?;
        live.before_end()?;
        self.send(id, &[], true, false)?;
        self.live[usize::from(id.slot)].ended = true;
        Ok(())
    }

    pub(super) fn done(&mut self, number: u64) -> Result<(), toolb_status> {
        let (id, _) = self.held(number)?;
        self.consumer.done(id);
        self.forget(id);
        Ok(())
    }

    pub(super) fn abort(&mut self, number: u64) -> Result<(), toolb_status> {
        let (id, _) = self.held(number)?;
        self.consumer.abort(id);
        self.forget(id);
        Ok(())
    }

    pub(super) fn pause(&mut self, number: u64) -> Result<(), toolb_status> {
        let (_, live) = self.open(number)?;
        live.paused = true;
        Ok(())
    }

    pub(super) fn resume(&mut self, number: u64) -> Result<(), toolb_status> {
        let (id, live) = self.open(number)?;
        if std::mem::take(&mut live.paused) {
            let bytes = std::mem::take(&mut live.unacknowledged);
            self.acknowledge(id, bytes);
        }
        Ok(())
    }

    /// The client's address, and its port; "" if it has none.
    pub(super) fn peer(&mut self, number: u64) -> Result<(String, u16), toolb_status> {
        let (_, live) = self.held(number)?;
        let (host, port) = live.request.peer().unwrap_or_default();
        Ok((String::from_utf8_lossy(host).into_owned(), port))
    }

    pub(super) fn set_user_data(
        &mut self,
        number: u64,
        user_data: *mut c_void,
    ) -> Result<(), toolb_status> {
        let (_, live) = self.held(number)?;
        live.user_data = user_data;
        Ok(())
    }

    /// Sends a part of a response, behind its head if that is still to be sent.
    pub(super) fn send(
        &mut self,
        id: ExchangeId,
        data: &[u8],
        end: bool,
        done: bool,
    ) -> Result<Sent, toolb_status> {
        let live = &mut self.live[usize::from(id.slot)];
        let sent = if live.head_sent {
            self.consumer.respond_body(id, data, end, done)
        } else {
            let (status, fields) = (live.head.status(), live.head.fields());
            self.consumer
                .respond_head(id, status, -1, fields, data, end, done)
        };
        match sent {
            Ok(sent) => {
                live.head_sent = true;
                Ok(sent)
            }
            Err(error) => Err(refusal(error)),
        }
    }

    /// The exchange with that number, if the program holds it.
    fn held(&mut self, number: u64) -> Result<(ExchangeId, &mut Live), toolb_status> {
        self.check()?;
        let id = id_of(number).ok_or(toolb_status::TOOLB_NOT_FOUND)?;
        let live = self.find(id).ok_or(toolb_status::TOOLB_NOT_FOUND)?;
        Ok((id, live))
    }

    /// The same, if its client has not gone.
    pub(super) fn open(&mut self, number: u64) -> Result<(ExchangeId, &mut Live), toolb_status> {
        let (id, live) = self.held(number)?;
        match live.gone {
            true => Err(toolb_status::TOOLB_GONE),
            false => Ok((id, live)),
        }
    }
}

impl Live {
    fn before_head(&self) -> Result<(), toolb_status> {
        match (self.gone, self.head_sent) {
            (true, _) => Err(toolb_status::TOOLB_GONE),
            (false, true) if self.is_stream => Err(fail(
                toolb_status::TOOLB_BAD_STATE,
                "a stream has no response: use toolb_exchange_write, _end and _done",
            )),
            (false, true) => Err(fail(
                toolb_status::TOOLB_BAD_STATE,
                "the head of the response was sent with its first write",
            )),
            (false, false) => Ok(()),
        }
    }

    fn before_end(&self) -> Result<(), toolb_status> {
        match self.ended {
            true => Err(fail(
                toolb_status::TOOLB_BAD_STATE,
                RespondError::AlreadyEnded,
            )),
            false => Ok(()),
        }
    }
}

fn refusal(error: RespondError) -> toolb_status {
    match error {
        // Known here before the event tells of it.
        RespondError::Disconnected => toolb_status::TOOLB_GONE,
        RespondError::HeadTooLong => fail(toolb_status::TOOLB_BAD_ARGUMENT, error),
        _ => fail(toolb_status::TOOLB_BAD_STATE, error),
    }
}
