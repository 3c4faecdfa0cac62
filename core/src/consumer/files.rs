//! Answering with an open file: the descriptor goes over the control socket, what is to be done with
//! it through the ring. Which of them comes first does not matter to the engine.
#![forbid(unsafe_code)]

use std::{
    collections::VecDeque,
    error::Error,
    fmt, io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use super::{
    Consumer, ExchangeId, RespondError,
    exchange::{Backlog, bit},
    respond::closing_bits,
};
use crate::{
    message::{Control, encode_file_head},
    sys::file,
};

/// Why a file was not taken as an answer. The exchange is as it was before.
#[derive(Debug)]
pub enum FileError {
    /// The exchange or its response does not allow it.
    Respond(RespondError),
    /// It is no regular file, or not open for reading.
    Unusable(io::Error),
    /// The part is not in the file, which is this long.
    Beyond(u64),
    /// The engine is older than this way of answering.
    Unsupported,
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Respond(error) => error.fmt(f),
            Self::Unusable(error) => write!(f, "the file cannot be sent: {error}"),
            Self::Beyond(len) => write!(f, "the file is shorter: it has {len} bytes"),
            Self::Unsupported => {
                f.write_str("the engine takes no files: upgrade toolb on the engine's side")
            }
        }
    }
}

impl Error for FileError {}

impl From<RespondError> for FileError {
    fn from(error: RespondError) -> Self {
        Self::Respond(error)
    }
}

/// Descriptors that the control socket had no room for.
pub(super) type Parcels = VecDeque<(Control, OwnedFd)>;

impl Consumer {
    /// Answers with `length` bytes of a file from `offset` on (`None`: all that follow). The file is
    /// the caller's as before; its contents are read by the engine while it sends them. `done` as in
    /// [`respond_head`](Self::respond_head).
    #[expect(clippy::too_many_arguments, reason = "the whole of a response at once")]
    pub fn respond_file<'a>(
        &mut self,
        id: ExchangeId,
        status: u16,
        fields: impl Iterator<Item = (&'a [u8], &'a [u8])> + Clone,
        file: BorrowedFd<'_>,
        offset: u64,
        length: Option<u64>,
        done: bool,
    ) -> Result<(), FileError> {
        let slot = self.started(id).ok_or(RespondError::Unknown)?;
        if self.exchanges[slot].has(bit::GONE | bit::END | bit::HEAD | bit::DONE) {
            return Err(self
                .refuse(slot, done, RespondError::HeadAlreadySent)
                .into());
        }
        if !self.takes_files {
            return Err(FileError::Unsupported);
        }
        let size = file::readable_length(file).map_err(FileError::Unusable)?;
        let rest = size.checked_sub(offset).ok_or(FileError::Beyond(size))?;
        let length = length.unwrap_or(rest);
        if length > rest {
            return Err(FileError::Beyond(size));
        }
        let owner = self.exchanges[slot].owner;
        let mut head = Vec::with_capacity(256);
        encode_file_head(&mut head, status, fields, offset, length)
            .map_err(|_| RespondError::HeadTooLong)?;
        if head.len() > self.lane.ring(owner).responses.max_payload() {
            return Err(RespondError::HeadTooLong.into());
        }
        let packet = Control::File {
            owner,
            slot: id.slot,
            generation: id.generation,
        };
        self.send_parcel(packet, file)
            .map_err(FileError::Unusable)?;
        let exchange = &mut self.exchanges[slot];
        exchange.bits |= bit::HEAD | closing_bits(true, done);
        exchange.backlog = Some(Box::new(Backlog::of_file(head)));
        self.pump(slot);
        self.tell_if_armed();
        Ok(())
    }

    /// Sends what the control socket had no room for. False: it still has none.
    pub(super) fn send_parcels(&mut self) -> bool {
        while let Some((packet, file)) = self.parcels.front() {
            match self.socket.send(&packet.encode(), &[file.as_fd()]) {
                Err(error) if lags(&error) => return false,
                // If it cannot be sent at all the engine has gone, as the hang-up says.
                _ => drop(self.parcels.pop_front()),
            }
        }
        true
    }

    fn send_parcel(&mut self, packet: Control, file: BorrowedFd<'_>) -> io::Result<()> {
        if self.parcels.is_empty() {
            match self.socket.send(&packet.encode(), &[file]) {
                Err(error) if lags(&error) => {}
                // The hang-up tells of it.
                Err(error) if has_gone(&error) => return Ok(()),
                outcome => return outcome,
            }
        }
        // No more than one per slot.
        self.parcels.push_back((packet, file.try_clone_to_owned()?));
        Ok(())
    }
}

/// Whether the engine only has to catch up: with packets, or with descriptors on their way.
fn lags(error: &io::Error) -> bool {
    const TOO_MANY_IN_FLIGHT: i32 = 109;
    error.kind() == io::ErrorKind::WouldBlock || error.raw_os_error() == Some(TOO_MANY_IN_FLIGHT)
}

/// Whether nobody is there any more.
fn has_gone(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, NotConnected};
    matches!(error.kind(), BrokenPipe | ConnectionReset | NotConnected)
}
