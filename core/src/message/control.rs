//! The packets of the control socket: one packet each, `"TBCP" | kind u8 | 0 | length u16`, then the
//! fields in order. Numbers are little-endian, texts carry a 16-bit length. Later minor versions
//! append fields; what a decoder does not know it ignores.
#![forbid(unsafe_code)]

use std::time::Duration;

use super::DecodeError;
use crate::bus::ABI;

/// No control packet is longer.
pub const MAX_CONTROL_PACKET: usize = 64 * 1024;
/// Longer texts are cut when a packet is encoded.
pub const MAX_CONTROL_TEXT: usize = 8 * 1024;

const MAGIC: [u8; 4] = *b"TBCP";
const HEADER: usize = 8;

const HELLO: u8 = 1;
const WELCOME: u8 = 2;
const ERROR: u8 = 3;
const READY: u8 = 4;
const FAILED: u8 = 5;
const DRAIN: u8 = 6;
const DRAINING: u8 = 7;
const DRAINED: u8 = 8;
const FILE: u8 = 9;
const ASK: u8 = 10;
const STATE: u8 = 11;

/// A bit of [`Hello::features`]: [`Control::File`] is understood.
pub const FEATURE_FILES: u64 = 1;

/// An ability: the consumer takes streams.
pub const FEATURE_STREAMS: u64 = 2;

/// An ability: the records `Want` and `Timeout` of streams are understood.
pub const FEATURE_STREAM_TIME: u64 = 4;

/// What a consumer says first.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Hello {
    /// The oldest major version of the bus the consumer speaks.
    pub abi_min: u16,
    /// The newest one.
    pub abi_max: u16,
    /// Optional abilities, one bit each: [`FEATURE_FILES`], [`FEATURE_STREAMS`],
    /// [`FEATURE_STREAM_TIME`].
    pub features: u64,
    /// "python", "node", "c", ...
    pub language: String,
    /// What to call the consumer in logs.
    pub name: String,
    /// The pool it belongs to.
    pub pool: String,
    /// Which generation of workers it belongs to (counts reloads).
    pub generation: u32,
    /// What the supervisor gave it to prove who it is; 0 = none.
    pub token: u64,
    /// Exchanges that may exist at once.
    pub slots: u16,
    /// Exchanges the application may hold at once.
    pub concurrency: u16,
    /// Requests that may be sent but not yet started.
    pub window: u16,
    /// Its process id.
    pub pid: u32,
    /// Raw connections that it takes at once, if it has [`FEATURE_STREAMS`].
    pub streams: u16,
}

/// The engine's answer to [`Hello`]. The descriptors of the lane come with it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Welcome {
    /// The chosen major version and the engine's minor version of it.
    pub abi: (u16, u16),
    /// The abilities both sides have.
    pub features: u64,
    /// The lane's number.
    pub lane_id: u64,
    /// One pair of rings per loop.
    pub rings: u16,
    /// Exchanges that may exist at once.
    pub slots: u16,
    /// Bytes of a request ring.
    pub request_capacity: u32,
    /// Bytes of a response ring.
    pub response_capacity: u32,
}

/// A packet of the control socket.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Control {
    /// Consumer: this is who I am.
    Hello(Hello),
    /// Engine: here is your lane.
    Welcome(Welcome),
    /// Either side: why the conversation ends here.
    Error(String),
    /// Consumer: the application has started; dispatch may begin.
    Ready,
    /// Consumer: the application will not start.
    Failed {
        /// What happened, for a person to read.
        reason: String,
        /// Starting it again is of no use.
        permanent: bool,
    },
    /// Engine: no new requests come; finish what there is and leave.
    Drain {
        /// So much time is left for all of that, the end of the application included; `None`: that is
        /// not known. Was appended.
        left: Option<Duration>,
    },
    /// Consumer: understood [`Control::Drain`]; or, unasked: it wants to leave, and no more requests.
    Draining,
    /// Consumer: everything is finished.
    Drained,
    /// Consumer: the one descriptor that comes with this is the body of a response, whose record says
    /// which part of it.
    File {
        /// The loop whose exchange it is.
        owner: u16,
        /// Its slot.
        slot: u16,
        /// Its use of the slot.
        generation: u32,
    },
    /// Supervisor of a worker whose engine is elsewhere: say how you are, now and whenever that
    /// changes.
    Ask,
    /// The worker's answer. Never said before it was asked: supervisors of older releases do not
    /// know it.
    State {
        /// It is with an engine.
        attached: bool,
        /// Why not, for a person to read.
        why: String,
    },
}

/// The version both sides speak, chosen by the engine, or the text of the refusal.
pub fn choose_abi(hello: &Hello) -> Result<(u16, u16), String> {
    let ours = ABI.0;
    if hello.abi_min <= ours && ours <= hello.abi_max {
        return Ok(ABI);
    }
    let theirs = if hello.abi_min == hello.abi_max {
        format!("{}", hello.abi_min)
    } else {
        format!("{} to {}", hello.abi_min, hello.abi_max)
    };
    let remedy = if hello.abi_max < ours {
        "upgrade toolb in the worker's environment"
    } else {
        "upgrade toolb on the engine's side"
    };
    let release = env!("CARGO_PKG_VERSION");
    Err(format!(
        "the engine (toolb {release}) speaks bus ABI {ours}, the {} worker \"{}\" speaks bus ABI {theirs}: \
         {remedy} and start it again",
        hello.language, hello.name,
    ))
}

impl Control {
    /// The packet to send.
    pub fn encode(&self) -> Vec<u8> {
        let mut packet = Vec::with_capacity(128);
        packet.extend_from_slice(&MAGIC);
        packet.extend_from_slice(&[self.kind(), 0, 0, 0]);
        match self {
            Self::Hello(hello) => encode_hello(&mut packet, hello),
            Self::Welcome(welcome) => encode_welcome(&mut packet, welcome),
            Self::Error(text) => put_text(&mut packet, text),
            Self::Failed { reason, permanent } => {
                packet.push(u8::from(*permanent));
                put_text(&mut packet, reason);
            }
            Self::File {
                owner,
                slot,
                generation,
            } => {
                packet.extend_from_slice(&owner.to_le_bytes());
                packet.extend_from_slice(&slot.to_le_bytes());
                packet.extend_from_slice(&generation.to_le_bytes());
            }
            Self::State { attached, why } => {
                packet.push(u8::from(*attached));
                put_text(&mut packet, why);
            }
            Self::Drain { left: Some(left) } => {
                let millis = u32::try_from(left.as_millis()).unwrap_or(u32::MAX);
                packet.extend_from_slice(&millis.to_le_bytes());
            }
            Self::Drain { left: None }
            | Self::Ready
            | Self::Draining
            | Self::Drained
            | Self::Ask => {}
        }
        // Five texts of at most 8 KiB and a few numbers: always below 64 KiB.
        let len = (packet.len() - HEADER) as u16;
        packet[6..8].copy_from_slice(&len.to_le_bytes());
        packet
    }

    /// Decodes one received packet.
    pub fn decode(packet: &[u8]) -> Result<Self, DecodeError> {
        let Some((header, body)) = packet.split_first_chunk::<HEADER>() else {
            return Err(DecodeError::new(format!(
                "a control packet of {} bytes is shorter than its header",
                packet.len()
            )));
        };
        if header[..4] != MAGIC {
            return Err(DecodeError::new(
                "a packet on the control socket is not toolB's: is another program using this descriptor?",
            ));
        }
        let len = usize::from(u16::from_le_bytes([header[6], header[7]]));
        if len != body.len() {
            return Err(DecodeError::new(format!(
                "a control packet announces {len} bytes and carries {}",
                body.len()
            )));
        }
        let mut cursor = Cursor { rest: body };
        match header[4] {
            HELLO => Ok(Self::Hello(decode_hello(&mut cursor)?)),
            WELCOME => Ok(Self::Welcome(decode_welcome(&mut cursor)?)),
            ERROR => Ok(Self::Error(cursor.text("text")?)),
            READY => Ok(Self::Ready),
            FAILED => Ok(Self::Failed {
                permanent: cursor.number::<1>("permanence")? != [0],
                reason: cursor.text("reason")?,
            }),
            DRAIN => Ok(Self::Drain {
                left: match cursor.rest.is_empty() {
                    true => None,
                    false => {
                        let millis = u32::from_le_bytes(cursor.number("time")?);
                        Some(Duration::from_millis(millis.into()))
                    }
                },
            }),
            DRAINING => Ok(Self::Draining),
            DRAINED => Ok(Self::Drained),
            FILE => Ok(Self::File {
                owner: u16::from_le_bytes(cursor.number("owner")?),
                slot: u16::from_le_bytes(cursor.number("slot")?),
                generation: u32::from_le_bytes(cursor.number("generation")?),
            }),
            ASK => Ok(Self::Ask),
            STATE => Ok(Self::State {
                attached: cursor.number::<1>("attached")? != [0],
                why: cursor.text("why")?,
            }),
            kind => Err(DecodeError::new(format!(
                "a control packet of the unknown kind {kind}"
            ))),
        }
    }

    fn kind(&self) -> u8 {
        match self {
            Self::Hello(_) => HELLO,
            Self::Welcome(_) => WELCOME,
            Self::Error(_) => ERROR,
            Self::Ready => READY,
            Self::Failed { .. } => FAILED,
            Self::Drain { .. } => DRAIN,
            Self::Draining => DRAINING,
            Self::Drained => DRAINED,
            Self::File { .. } => FILE,
            Self::Ask => ASK,
            Self::State { .. } => STATE,
        }
    }
}

fn encode_hello(packet: &mut Vec<u8>, hello: &Hello) {
    packet.extend_from_slice(&hello.abi_min.to_le_bytes());
    packet.extend_from_slice(&hello.abi_max.to_le_bytes());
    packet.extend_from_slice(&hello.features.to_le_bytes());
    packet.extend_from_slice(&hello.generation.to_le_bytes());
    packet.extend_from_slice(&hello.token.to_le_bytes());
    packet.extend_from_slice(&hello.slots.to_le_bytes());
    packet.extend_from_slice(&hello.concurrency.to_le_bytes());
    packet.extend_from_slice(&hello.window.to_le_bytes());
    packet.extend_from_slice(&hello.pid.to_le_bytes());
    put_text(packet, &hello.language);
    put_text(packet, &hello.name);
    put_text(packet, &hello.pool);
    packet.extend_from_slice(&hello.streams.to_le_bytes());
}

fn decode_hello(cursor: &mut Cursor<'_>) -> Result<Hello, DecodeError> {
    Ok(Hello {
        abi_min: u16::from_le_bytes(cursor.number("abi_min")?),
        abi_max: u16::from_le_bytes(cursor.number("abi_max")?),
        features: u64::from_le_bytes(cursor.number("features")?),
        generation: u32::from_le_bytes(cursor.number("generation")?),
        token: u64::from_le_bytes(cursor.number("token")?),
        slots: u16::from_le_bytes(cursor.number("slots")?),
        concurrency: u16::from_le_bytes(cursor.number("concurrency")?),
        window: u16::from_le_bytes(cursor.number("window")?),
        pid: u32::from_le_bytes(cursor.number("pid")?),
        language: cursor.text("language")?,
        name: cursor.text("name")?,
        pool: cursor.text("pool")?,
        // Was appended: who takes no streams may leave it out.
        streams: match cursor.rest.is_empty() {
            true => 0,
            false => u16::from_le_bytes(cursor.number("streams")?),
        },
    })
}

fn encode_welcome(packet: &mut Vec<u8>, welcome: &Welcome) {
    packet.extend_from_slice(&welcome.abi.0.to_le_bytes());
    packet.extend_from_slice(&welcome.abi.1.to_le_bytes());
    packet.extend_from_slice(&welcome.features.to_le_bytes());
    packet.extend_from_slice(&welcome.lane_id.to_le_bytes());
    packet.extend_from_slice(&welcome.rings.to_le_bytes());
    packet.extend_from_slice(&welcome.slots.to_le_bytes());
    packet.extend_from_slice(&welcome.request_capacity.to_le_bytes());
    packet.extend_from_slice(&welcome.response_capacity.to_le_bytes());
}

fn decode_welcome(cursor: &mut Cursor<'_>) -> Result<Welcome, DecodeError> {
    let major = u16::from_le_bytes(cursor.number("abi")?);
    let minor = u16::from_le_bytes(cursor.number("abi")?);
    Ok(Welcome {
        abi: (major, minor),
        features: u64::from_le_bytes(cursor.number("features")?),
        lane_id: u64::from_le_bytes(cursor.number("lane_id")?),
        rings: u16::from_le_bytes(cursor.number("rings")?),
        slots: u16::from_le_bytes(cursor.number("slots")?),
        request_capacity: u32::from_le_bytes(cursor.number("request_capacity")?),
        response_capacity: u32::from_le_bytes(cursor.number("response_capacity")?),
    })
}

fn put_text(packet: &mut Vec<u8>, text: &str) {
    let mut end = text.len().min(MAX_CONTROL_TEXT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    packet.extend_from_slice(&(end as u16).to_le_bytes());
    packet.extend_from_slice(&text.as_bytes()[..end]);
}

struct Cursor<'a> {
    rest: &'a [u8],
}

impl Cursor<'_> {
    fn number<const N: usize>(&mut self, what: &str) -> Result<[u8; N], DecodeError> {
        let Some((head, rest)) = self.rest.split_first_chunk::<N>() else {
            return Err(ends_before(what));
        };
        self.rest = rest;
        Ok(*head)
    }

    fn text(&mut self, what: &str) -> Result<String, DecodeError> {
        let len = usize::from(u16::from_le_bytes(self.number(what)?));
        let Some((head, rest)) = self.rest.split_at_checked(len) else {
            return Err(ends_before(what));
        };
        self.rest = rest;
        match std::str::from_utf8(head) {
            Ok(text) => Ok(text.to_owned()),
            Err(_) => Err(DecodeError::new(format!(
                "\"{what}\" of a control packet is not UTF-8"
            ))),
        }
    }
}

fn ends_before(what: &str) -> DecodeError {
    DecodeError::new(format!("a control packet ends before its \"{what}\""))
}

#[cfg(test)]
mod tests;
