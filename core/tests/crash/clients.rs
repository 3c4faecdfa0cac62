//! Clients that ask one thing after the other and write down how each ended.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::application::STREAM;
use super::{Random, checksum, pattern};

/// Nobody waits this long unless something hangs.
const SILENCE: Duration = Duration::from_secs(60);

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

type Connection = BufReader<TcpStream>;

fn connect(address: &str) -> Connection {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(SILENCE)).unwrap();
    BufReader::new(stream)
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

struct Answer {
    status: u16,
    body: Vec<u8>,
    closes: bool,
}

/// A response that did not come to its end.
struct Cut {
    begun: bool,
    error: io::Error,
}

fn receive(connection: &mut Connection) -> Result<Answer, Cut> {
    let before = |error| Cut {
        begun: false,
        error,
    };
    let after = |error| Cut { begun: true, error };
    let first = line(connection).map_err(before)?;
    let status = first.get(9..12).and_then(|text| text.parse().ok());
    let status = status.ok_or_else(|| before(io::Error::other(format!("what is {first:?}?"))))?;
    let (mut length, mut closes) = (None, false);
    loop {
        let field = line(connection).map_err(after)?;
        match field.split_once(": ") {
            _ if field.is_empty() => break,
            Some(("content-length", value)) => length = value.parse().ok(),
            Some(("connection", "close")) => closes = true,
            _ => {}
        }
    }
    let mut body = Vec::new();
    if let Some(length) = length {
        body.resize(length, 0);
        connection.read_exact(&mut body).map_err(after)?;
    } else {
        while chunk(connection, &mut body).map_err(after)? {}
    }
    Ok(Answer {
        status,
        body,
        closes,
    })
}

/// True: it was not the last one.
fn chunk(connection: &mut Connection, body: &mut Vec<u8>) -> io::Result<bool> {
    let size = usize::from_str_radix(&line(connection)?, 16).map_err(io::Error::other)?;
    let at = body.len();
    body.resize(at + size, 0);
    connection.read_exact(&mut body[at..])?;
    match line(connection)?.is_empty() {
        true => Ok(size > 0),
        false => Err(io::Error::other("a chunk does not end where it should")),
    }
}

fn line(connection: &mut Connection) -> io::Result<String> {
    let mut text = String::new();
    connection.read_line(&mut text)?;
    match text.strip_suffix("\r\n") {
        Some(line) => Ok(line.to_owned()),
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}
