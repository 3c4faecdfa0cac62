//! A client's side of HTTP: reads one response, or how it was cut.

use std::io::{self, BufRead, BufReader, Read};
use std::net::TcpStream;
use std::time::Duration;

/// Nobody waits this long unless something hangs.
const SILENCE: Duration = Duration::from_secs(60);

pub(crate) type Connection = BufReader<TcpStream>;

pub(crate) fn connect(address: &str) -> Connection {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(SILENCE)).unwrap();
    BufReader::new(stream)
}

/// A response that came whole.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
    /// The server says that it closes the connection.
    pub(crate) closes: bool,
}

/// A response that did not come to its end.
#[derive(Debug)]
pub(crate) struct Cut {
    /// Some of it came.
    pub(crate) begun: bool,
    pub(crate) error: io::Error,
}

/// The next response on a connection.
pub(crate) fn receive(connection: &mut Connection) -> Result<Answer, Cut> {
    let before = |error| Cut {
        begun: false,
        error,
    };
    let after = |error| Cut { begun: true, error };
    if connection.fill_buf().map_err(before)?.is_empty() {
        return Err(before(io::ErrorKind::UnexpectedEof.into()));
    }
    let first = line(connection).map_err(after)?;
    let status = first.get(9..12).and_then(|text| text.parse().ok());
    let status = status.ok_or_else(|| after(io::Error::other(format!("what is {first:?}?"))))?;
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
