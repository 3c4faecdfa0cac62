//! A service that checks, at every callback, what holds for all of them, and then asks the test.
#![allow(dead_code, reason = "each test uses a part of it")]

#[path = "../loopback/mod.rs"]
pub(crate) mod loopback;

use std::collections::HashMap;
use std::io;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::ThreadId;
use std::time::Duration;

use toolb_core::config::EngineConfig;
use toolb_core::engine::{
    Callbacks, CloseReason, Context, Engine, Routes, Service, ServiceId, ServiceOptions, StreamId,
};

use loopback::{address_of, any_port};

/// What a callback is about.
#[derive(Debug)]
pub(crate) enum What {
    Init,
    Accept(StreamId),
    Receive(StreamId),
    Timeout(StreamId),
    Writable(StreamId),
    Close(StreamId, CloseReason),
    Connect(StreamId),
    ConnectFail(StreamId, io::ErrorKind),
    Drain,
    Exit,
}

/// A service that hands every callback to `act`.
pub(crate) struct Probe<F> {
    act: Arc<F>,
    /// By loop: a callback runs.
    busy: Vec<Arc<AtomicBool>>,
    threads: Arc<Mutex<HashMap<u16, ThreadId>>>,
}

impl<F: Fn(&mut Context<'_>, What) + Send + Sync + 'static> Probe<F> {
    pub(crate) fn new(act: F) -> Arc<Self> {
        Arc::new(Self {
            act: Arc::new(act),
            busy: (0..32).map(|_| Arc::default()).collect(),
            threads: Arc::default(),
        })
    }
}

impl<F: Fn(&mut Context<'_>, What) + Send + Sync + 'static> Service for Probe<F> {
    fn init(&self, context: &mut Context<'_>) -> Box<dyn Callbacks> {
        let index = context.loop_index();
        let thread = std::thread::current().id();
        let before = self.threads.lock().unwrap().insert(index, thread);
        assert_eq!(before, None, "init is called once per loop");
        (self.act)(context, What::Init);
        Box::new(OnLoop {
            act: self.act.clone(),
            busy: self.busy[usize::from(index)].clone(),
            index,
            thread,
            streams: HashMap::new(),
            exited: false,
        })
    }
}

struct OnLoop<F> {
    act: Arc<F>,
    busy: Arc<AtomicBool>,
    index: u16,
    thread: ThreadId,
    /// Whether they are connected.
    streams: HashMap<StreamId, ()>,
    exited: bool,
}

impl<F: Fn(&mut Context<'_>, What)> OnLoop<F> {
    fn run(&mut self, context: &mut Context<'_>, what: What) {
        assert_eq!(std::thread::current().id(), self.thread);
        assert_eq!(context.loop_index(), self.index);
        assert!(!self.exited, "{what:?} after the exit");
        let overlaps = self.busy.swap(true, Ordering::SeqCst);
        assert!(!overlaps, "{what:?} overlaps another callback");
        match &what {
            What::Accept(id) | What::Connect(id) => {
                assert_eq!(id.loop_index(), self.index);
                let before = self.streams.insert(*id, ());
                assert!(before.is_none(), "{what:?} twice");
            }
            What::Receive(id) | What::Timeout(id) | What::Writable(id) => {
                assert!(self.streams.contains_key(id), "{what:?} of an unknown one");
            }
            What::Close(id, _) => {
                assert!(self.streams.remove(id).is_some(), "{what:?} twice");
            }
            What::ConnectFail(id, _) => {
                assert!(!self.streams.contains_key(id), "{what:?} after connect");
            }
            What::Exit => {
                assert!(self.streams.is_empty(), "{} unclosed", self.streams.len());
                self.exited = true;
            }
            What::Init | What::Drain => {}
        }
        (self.act)(context, what);
        self.busy.store(false, Ordering::SeqCst);
    }
}

impl<F: Fn(&mut Context<'_>, What)> Callbacks for OnLoop<F> {
    fn accept(&mut self, context: &mut Context<'_>, stream: StreamId) {
        self.run(context, What::Accept(stream));
    }

    fn receive(&mut self, context: &mut Context<'_>, stream: StreamId) {
        self.run(context, What::Receive(stream));
    }

    fn timeout(&mut self, context: &mut Context<'_>, stream: StreamId) {
        self.run(context, What::Timeout(stream));
    }

    fn writable(&mut self, context: &mut Context<'_>, stream: StreamId) {
        self.run(context, What::Writable(stream));
    }

    fn close(&mut self, context: &mut Context<'_>, stream: StreamId, reason: CloseReason) {
        self.run(context, What::Close(stream, reason));
    }

    fn connect(&mut self, context: &mut Context<'_>, stream: StreamId) {
        self.run(context, What::Connect(stream));
    }

    fn connect_fail(&mut self, context: &mut Context<'_>, stream: StreamId, error: io::Error) {
        self.run(context, What::ConnectFail(stream, error.kind()));
    }

    fn drain(&mut self, context: &mut Context<'_>) {
        self.run(context, What::Drain);
    }

    fn exit(&mut self, context: &mut Context<'_>) {
        self.run(context, What::Exit);
    }
}

impl<F> Drop for OnLoop<F> {
    fn drop(&mut self) {
        assert_eq!(std::thread::current().id(), self.thread);
        assert!(self.exited, "dropped without an exit");
    }
}

/// An engine with one service.
pub(crate) struct Server {
    pub(crate) engine: Engine,
    pub(crate) service: ServiceId,
    pub(crate) address: String,
}

impl Server {
    pub(crate) fn start(
        loops: usize,
        act: impl Fn(&mut Context<'_>, What) + Send + Sync + 'static,
    ) -> Self {
        let config = EngineConfig {
            loops: Some(loops),
            ..EngineConfig::default()
        };
        Self::with(config, ServiceOptions::default(), act)
    }

    pub(crate) fn with(
        config: EngineConfig,
        options: ServiceOptions,
        act: impl Fn(&mut Context<'_>, What) + Send + Sync + 'static,
    ) -> Self {
        let mut engine = Engine::bind(config, Routes::default(), &[]).unwrap();
        let probe = Probe::new(act);
        let service = engine
            .add_service(Some(&any_port()), probe, options)
            .unwrap();
        engine.start().unwrap();
        let address = address_of(&engine);
        Self {
            engine,
            service,
            address,
        }
    }

    pub(crate) fn connect(&self) -> TcpStream {
        connect(&self.address)
    }
}

pub(crate) fn connect(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    // A watchdog: nothing here takes long.
    let timeout = Some(Duration::from_secs(60));
    stream.set_read_timeout(timeout).unwrap();
    stream.set_write_timeout(timeout).unwrap();
    stream
}

/// Sends back what came.
pub(crate) fn echo(context: &mut Context<'_>, stream: StreamId) {
    let streams = context.streams();
    let bytes = streams.peek(stream).unwrap().to_vec();
    streams.send(stream, &bytes).unwrap();
    streams.consume(stream, bytes.len()).unwrap();
}

/// Reads exactly `count` bytes.
pub(crate) fn read(stream: &mut TcpStream, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    stream.read_exact(&mut bytes).unwrap();
    bytes
}

/// Says something and reads the echo of it.
pub(crate) fn ping(stream: &mut TcpStream) {
    stream.write_all(b"ping").unwrap();
    assert_eq!(read(stream, 4), b"ping");
}

/// A channel whose sender may be shared by loops.
pub(crate) fn events<T>() -> (Told<T>, Receiver<T>) {
    let (sender, receiver) = channel();
    (Told(Mutex::new(sender)), receiver)
}

/// Where callbacks tell the test what they saw.
pub(crate) struct Told<T>(Mutex<Sender<T>>);

impl<T> Told<T> {
    pub(crate) fn tell(&self, event: T) {
        // The test may be over.
        let _ = self.0.lock().unwrap().send(event);
    }
}
