//! Clients that ask one thing after the other and write down how each ended.

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::application::STREAM;
use super::{checksum, pattern};
use crate::support::Random;
use crate::support::http::{Connection, connect, receive};

/// How a request ended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Outcome {
    /// The response it should have, once.
    Right,
    /// 502.
    BadGateway,
    /// The connection was cut after its response had begun, or while its body was sent.
    Cut,
    /// Its client did not wait.
    Left,
    /// What must not be.
    Wrong(String),
}

/// A request and what became of it.
pub(crate) struct Asked {
    pub(crate) name: String,
    pub(crate) began: Instant,
    pub(crate) ended: Instant,
    pub(crate) outcome: Outcome,
}

/// Asks until it is told to stop.
pub(crate) fn client(number: usize, address: &str, stop: &AtomicBool) -> Vec<Asked> {
    let mut random = Random(number as u64);
    let mut connection = None;
    let mut asked = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let name = format!("c{number}-{}", asked.len());
        let began = Instant::now();
        let on = connection.take().unwrap_or_else(|| connect(address));
        let (outcome, left) = ask(on, &name, &mut random);
        connection = left;
        asked.push(Asked {
            name,
            began,
            ended: Instant::now(),
            outcome,
        });
        // not-sync: clients that think leave the processor to the rest
        std::thread::sleep(Duration::from_micros(random.below(6000)));
    }
    asked
}

/// One request; the connection, if it is good for another.
fn ask(
    mut connection: Connection,
    name: &str,
    random: &mut Random,
) -> (Outcome, Option<Connection>) {
    let kind = ["quick", "slow", "hold", "tail", "stream", "upload", "leave"];
    let kind = kind[random.below(kind.len() as u64) as usize];
    let mut data = match kind {
        "upload" => Vec::new(),
        "leave" => format!("GET /hold?{name} HTTP/1.1\r\nhost: x\r\n\r\n").into_bytes(),
        _ => format!("GET /{kind}?{name} HTTP/1.1\r\nhost: x\r\n\r\n").into_bytes(),
    };
    let expected = match kind {
        "upload" => {
            // Below and above what is sent along with the head, and the window.
            let len = [100, 30_000, 150_000][random.below(3) as usize];
            let body = pattern(name, len);
            data =
                format!("POST /upload?{name} HTTP/1.1\r\nhost: x\r\ncontent-length: {len}\r\n\r\n")
                    .into_bytes();
            data.extend_from_slice(&body);
            format!("{name} {len} {:x}", checksum(&body, 0)).into_bytes()
        }
        "stream" => pattern(name, STREAM),
        _ => name.as_bytes().to_vec(),
    };
    // A server that answers before it has read everything may close; its answer is there all the same.
    let written = connection.get_mut().write_all(&data);
    if kind == "leave" {
        return (Outcome::Left, None);
    }
    match receive(&mut connection) {
        Ok(answer) => {
            let more = connection.buffer().len();
            let outcome = match answer.status {
                _ if more > 0 => Outcome::Wrong(format!("{more} bytes behind its answer")),
                200 if answer.body == expected => Outcome::Right,
                502 => Outcome::BadGateway,
                status => {
                    let body = String::from_utf8_lossy(&answer.body);
                    Outcome::Wrong(format!("{status}: {} bytes: {body:.80}", body.len()))
                }
            };
            (outcome, (!answer.closes).then_some(connection))
        }
        Err(cut) if cut.begun || (kind == "upload" && written.is_err()) => (Outcome::Cut, None),
        Err(cut) => (Outcome::Wrong(format!("no answer: {}", cut.error)), None),
    }
}
