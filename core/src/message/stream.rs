//! What engine and consumer say about the time of a stream.
#![forbid(unsafe_code)]

use std::time::Duration;

use super::DecodeError;

/// How long to wait for the next event of a stream.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Wait {
    /// As long as the options of the service (or those of the engine, for streams that consumers
    /// serve) say, from the last event or the last byte that the peer took.
    Default,
    /// So long, from now.
    For(Duration),
    /// Without an end.
    Forever,
}

impl From<Duration> for Wait {
    fn from(timeout: Duration) -> Self {
        Self::For(timeout)
    }
}

/// The payload of a `Want` record: what a consumer waits for on one of its streams.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Want {
    /// It has come when so many of the client's bytes have been passed on in all.
    pub target: u64,
    /// And if not, the consumer is told after this.
    pub wait: Wait,
    /// Counts the wants of a stream, so that the end of one is not taken for that of another.
    pub serial: u32,
}

impl Want {
    /// Bytes of the payload; later versions may append fields.
    pub const LEN: usize = 20;

    /// The payload.
    pub fn encode(&self) -> [u8; Self::LEN] {
        let wait = match self.wait {
            Wait::Default => 0,
            Wait::For(timeout) => timeout.as_nanos().clamp(1, u128::from(u64::MAX - 1)) as u64,
            Wait::Forever => u64::MAX,
        };
        let mut payload = [0; Self::LEN];
        payload[..8].copy_from_slice(&self.target.to_le_bytes());
        payload[8..16].copy_from_slice(&wait.to_le_bytes());
        payload[16..].copy_from_slice(&self.serial.to_le_bytes());
        payload
    }

    /// What a payload says.
    pub fn decode(payload: &[u8]) -> Result<Self, DecodeError> {
        let Some((fields, _)) = payload.split_first_chunk::<{ Self::LEN }>() else {
            return Err(DecodeError::new("it is shorter than its fields"));
        };
        Ok(Self {
            target: u64::from_le_bytes(part(fields, 0)),
            wait: match u64::from_le_bytes(part(fields, 8)) {
                0 => Wait::Default,
                u64::MAX => Wait::Forever,
                nanoseconds => Wait::For(Duration::from_nanos(nanoseconds)),
            },
            serial: u32::from_le_bytes(part(fields, 16)),
        })
    }
}

/// The payload of a `Timeout` record: nothing has come in time.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TimeUp {
    /// Bytes for the client that the engine had received by then.
    pub received: u64,
    /// The want that was the last one by then; 0 if there was none.
    pub serial: u32,
    /// The time was not that of the want, but the engine's default.
    pub by_default: bool,
}

impl TimeUp {
    /// Bytes of the payload; later versions may append fields.
    pub const LEN: usize = 16;

    /// The payload.
    pub fn encode(&self) -> [u8; Self::LEN] {
        let mut payload = [0; Self::LEN];
        payload[..8].copy_from_slice(&self.received.to_le_bytes());
        payload[8..12].copy_from_slice(&self.serial.to_le_bytes());
        payload[12..].copy_from_slice(&u32::from(self.by_default).to_le_bytes());
        payload
    }

    /// What a payload says.
    pub fn decode(payload: &[u8]) -> Result<Self, DecodeError> {
        let Some((fields, _)) = payload.split_first_chunk::<{ Self::LEN }>() else {
            return Err(DecodeError::new("it is shorter than its fields"));
        };
        Ok(Self {
            received: u64::from_le_bytes(part(fields, 0)),
            serial: u32::from_le_bytes(part(fields, 8)),
            by_default: u32::from_le_bytes(part(fields, 12)) & 1 != 0,
        })
    }
}

/// `N` bytes from `at` on, which the caller knows to be there.
fn part<const N: usize>(fields: &[u8], at: usize) -> [u8; N] {
    let mut part = [0; N];
    part.copy_from_slice(&fields[at..at + N]);
    part
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_want_on_the_wire() {
        let want = Want {
            target: 0x0102_0304_0506_0708,
            wait: Wait::For(Duration::from_nanos(0x1112_1314)),
            serial: 0x2122_2324,
        };
        let payload = want.encode();
        assert_eq!(
            payload,
            [
                8, 7, 6, 5, 4, 3, 2, 1, 0x14, 0x13, 0x12, 0x11, 0, 0, 0, 0, 0x24, 0x23, 0x22, 0x21
            ]
        );
        assert_eq!(Want::decode(&payload), Ok(want));
        // Fields that a later version appends are passed over.
        let longer = [&payload[..], b"more"].concat();
        assert_eq!(Want::decode(&longer), Ok(want));
        assert!(Want::decode(&payload[..19]).is_err());
    }

    #[test]
    fn waits_on_the_wire() {
        let sent = |wait| {
            let want = Want {
                target: 0,
                wait,
                serial: 1,
            };
            Want::decode(&want.encode()).unwrap().wait
        };
        for wait in [
            Wait::Default,
            Wait::Forever,
            Wait::For(Duration::from_nanos(1)),
            Wait::For(Duration::from_nanos(u64::MAX - 1)),
        ] {
            assert_eq!(sent(wait), wait);
        }
        // No time at all is not the default, and very long is not without an end.
        assert_eq!(
            sent(Wait::For(Duration::ZERO)),
            Wait::For(Duration::from_nanos(1))
        );
        assert_eq!(
            sent(Wait::For(Duration::MAX)),
            Wait::For(Duration::from_nanos(u64::MAX - 1))
        );
    }

    #[test]
    fn the_end_of_a_time_on_the_wire() {
        let time_up = TimeUp {
            received: 0x0102_0304_0506_0708,
            serial: 0x1112_1314,
            by_default: true,
        };
        let payload = time_up.encode();
        assert_eq!(
            payload,
            [8, 7, 6, 5, 4, 3, 2, 1, 0x14, 0x13, 0x12, 0x11, 1, 0, 0, 0]
        );
        assert_eq!(TimeUp::decode(&payload), Ok(time_up));
        assert!(TimeUp::decode(&payload[..15]).is_err());
    }
}
