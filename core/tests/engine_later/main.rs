//! Answers by token, from other threads, behind real sockets.
#![forbid(unsafe_code)]

mod answers;
mod ends;
#[path = "../loopback/mod.rs"]
mod loopback;
mod state;
mod window;

use std::any::Any;
use std::cell::Cell;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::ThreadId;
use std::time::Duration;

use toolb_core::config::EngineConfig;
use toolb_core::engine::{
    Context, ControlEvent, Engine, Handler, Request, Response, Routes, Step, Token, WithContext,
    WriteError,
};

use loopback::{address_of, any_port};

/// A request that waits for its answer.
struct Waiting {
    token: Token,
    body: Vec<u8>,
    /// The thread of its loop.
    thread: ThreadId,
}

/// Tells of a cancel: the path, and the thread it was told on.
type Cancels = Receiver<(String, ThreadId)>;

struct Server {
    engine: Engine,
    address: String,
    waiting: Receiver<Waiting>,
    cancels: Cancels,
}

impl Server {
    fn start(change: impl FnOnce(&mut EngineConfig)) -> Self {
        let (tokens, waiting) = channel();
        let (cancels, cancelled) = channel();
        let mut routes = Routes::default();
        let later = later(tokens, cancels);
        for method in ["GET", "POST"] {
            let pattern = "/later/{*what}";
            routes
                .inline
                .insert(method, pattern, later.clone())
                .unwrap();
        }
        let plain = |_: &Request<'_>, response: &mut Response| {
            response.write(b"plain");
            Step::Done
        };
        routes
            .inline
            .insert("GET", "/plain", Arc::new(plain))
            .unwrap();
        let (engine, address) = start(routes, change);
        Self {
            engine,
            address,
            waiting,
            cancels: cancelled,
        }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(60)))
            .unwrap();
        stream
    }

    /// Sends a request, and gives the connection and the token.
    fn ask(&self, request: &str) -> (TcpStream, Waiting) {
        let mut stream = self.connect();
        stream.write_all(request.as_bytes()).unwrap();
        (stream, self.waiting.recv().unwrap())
    }
}

fn start(routes: Routes, change: impl FnOnce(&mut EngineConfig)) -> (Engine, String) {
    let mut config = EngineConfig {
        loops: Some(2),
        date_header: false,
        server_header: None,
        ..EngineConfig::default()
    };
    change(&mut config);
    let mut engine = Engine::bind(config, routes, &[any_port()]).unwrap();
    engine.start().unwrap();
    let address = address_of(&engine);
    (engine, address)
}

/// Hands the tokens of its requests over.
fn later(tokens: Sender<Waiting>, cancels: Sender<(String, ThreadId)>) -> Arc<dyn Handler> {
    Arc::new(move |request: &Request<'_>, response: &mut Response| {
        let path = String::from_utf8(request.path().to_vec()).unwrap();
        if path == "/later/begun" {
            response.status(202);
            response.field(b"x-begun", b"here");
            response.write(b"begun, ");
        }
        let token = response.later();
        response.write(b"lost");
        let cancels = cancels.clone();
        let on_cancel = move |_: Option<&mut Context<'_>>| {
            cancels.send((path, std::thread::current().id())).unwrap();
        };
        token.on_cancel(on_cancel).unwrap();
        let waiting = Waiting {
            token,
            body: request.body().to_vec(),
            thread: std::thread::current().id(),
        };
        tokens.send(waiting).unwrap();
        Step::Later
    })
}

fn get(what: &str) -> String {
    format!("GET /later/{what} HTTP/1.1\r\nhost: x\r\n\r\n")
}

fn last(what: &str) -> String {
    format!("GET /later/{what} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
}

/// All that comes until the connection ends, and how it ends.
fn rest(mut stream: TcpStream) -> (String, Result<(), ErrorKind>) {
    let mut bytes = Vec::new();
    let end = stream.read_to_end(&mut bytes);
    let end = end.map(|_| ()).map_err(|error| error.kind());
    (String::from_utf8(bytes).unwrap(), end)
}

/// Reads exactly `text`.
fn expect(mut stream: TcpStream, text: &str) -> TcpStream {
    let mut bytes = vec![0; text.len()];
    stream.read_exact(&mut bytes).unwrap();
    assert_eq!(String::from_utf8(bytes).unwrap(), text);
    stream
}

fn wait(token: &Token) -> Result<(), WriteError> {
    token.wait_writable(None).map(|room| assert!(room))
}
