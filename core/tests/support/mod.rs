//! An engine with consumers in threads of the test.
#![allow(dead_code, reason = "each test uses a part of it")]

pub(crate) mod http;
#[path = "../loopback/mod.rs"]
pub(crate) mod loopback;

use std::collections::HashMap;
use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use toolb_core::config::{EngineConfig, Timeouts};
use toolb_core::consumer::{
    Consumer, ConsumerOptions, ControlEvent, Event, ExchangeId, Sent, StreamEvent,
};
use toolb_core::engine::{Engine, LaneHandle};
use toolb_core::message::{Control, FEATURE_FILES, FEATURE_STREAM_TIME, Request, Welcome};
use toolb_core::sys::epoll::{self, Epoll, Events};
use toolb_core::sys::seqpacket::Seqpacket;
use toolb_core::sys::socket::Listener;

use loopback::{address_of, any_port, to_consumers};

/// An engine that listens on a free port.
pub(crate) struct Server {
    pub(crate) engine: Engine,
    pub(crate) address: String,
}

impl Server {
    pub(crate) fn start(config: EngineConfig) -> Self {
        let mut server = Self::bind(config);
        server.engine.start().unwrap();
        server
    }

    /// One that speaks HTTP at its address and passes raw connections on at another, which is told.
    pub(crate) fn with_streams(config: EngineConfig) -> (Self, String) {
        let mut server = Self::bind(config);
        server.engine.add_stream_pool(&any_port()).unwrap();
        server.engine.start().unwrap();
        let raw = server.engine.addresses().pop().unwrap();
        (server, raw.replace("tcp://", ""))
    }

    pub(crate) fn with_timeouts(timeouts: Timeouts) -> Self {
        Self::start(EngineConfig {
            timeouts,
            ..EngineConfig::default()
        })
    }

    /// One whose loops are still to be started.
    pub(crate) fn bind(config: EngineConfig) -> Self {
        let engine = Engine::bind(config, to_consumers(), &[any_port()]).unwrap();
        let address = address_of(&engine);
        Self { engine, address }
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(60)))
            .unwrap();
        stream
    }

    /// Attaches a consumer that answers by `serve`, on a thread of its own.
    pub(crate) fn attach<H: Handle>(&self, options: ConsumerOptions, handler: H) -> Worker {
        let (ours, theirs) = Seqpacket::pair().unwrap();
        let (slots, concurrency, window) = (options.slots, options.concurrency, options.window);
        let streams = options.streams;
        let thread = std::thread::spawn(move || {
            let consumer = Consumer::attach_to(theirs, &options).unwrap();
            serve(consumer, handler);
        });
        let mut packet = vec![0; 4096];
        ours.wait(None).unwrap();
        let size = ours.recv(&mut packet, &mut Vec::new()).unwrap();
        let hello = Control::decode(&packet[..size]).unwrap();
        assert!(matches!(hello, Control::Hello(_)));
        let lane = self
            .engine
            .new_lane(slots, concurrency, window, streams)
            .unwrap();
        let geometry = lane.geometry();
        let welcome = Control::Welcome(Welcome {
            abi: toolb_core::bus::ABI,
            features: FEATURE_FILES | FEATURE_STREAM_TIME,
            lane_id: lane.lane_id(),
            rings: geometry.rings,
            slots: geometry.slots,
            request_capacity: geometry.request_capacity,
            response_capacity: geometry.response_capacity,
        });
        ours.send(&welcome.encode(), &lane.fds()).unwrap();
        lane.tell_time();
        self.engine.lane_up(&lane);
        Worker {
            lane,
            socket: Some(ours),
            thread: Some(thread),
        }
    }
}

/// A client of a raw address.
pub(crate) fn dial(raw: &str) -> TcpStream {
    let stream = TcpStream::connect(raw).unwrap();
    stream.set_nodelay(true).unwrap();
    // A watchdog: nothing here takes long.
    stream
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    stream
}

/// A consumer thread as its supervisor sees it.
pub(crate) struct Worker {
    pub(crate) lane: Arc<LaneHandle>,
    socket: Option<Seqpacket>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    /// It has died by itself: waits until it has, and lets the engine know.
    pub(crate) fn bury(&mut self, engine: &Engine) {
        self.thread.take().unwrap().join().unwrap();
        engine.lane_down(&self.lane);
    }

    /// The next file that it answers with.
    pub(crate) fn take_file(&self) -> (Control, OwnedFd) {
        let socket = self.socket.as_ref().unwrap();
        let (mut packet, mut fds) = (vec![0; 4096], Vec::new());
        socket.wait(None).unwrap();
        let size = socket.recv(&mut packet, &mut fds).unwrap();
        let control = Control::decode(&packet[..size]).unwrap();
        assert_eq!(fds.len(), 1, "{control:?}");
        (control, fds.pop().unwrap())
    }

    /// Hands the files that have come to the engine, or loses them.
    pub(crate) fn give_files(&self, engine: &Engine, deliver: bool) {
        let socket = self.socket.as_ref().unwrap();
        let (mut packet, mut fds) = (vec![0; 4096], Vec::new());
        while socket.wait(Some(Duration::ZERO)).unwrap() {
            let size = socket.recv(&mut packet, &mut fds).unwrap();
            let Some(file) = fds.pop() else {
                return;
            };
            if deliver {
                self.give_file(engine, &Control::decode(&packet[..size]).unwrap(), file);
            }
        }
    }

    /// Hands a file to the engine as the one that a packet speaks of, as a supervisor does.
    pub(crate) fn give_file(&self, engine: &Engine, packet: &Control, file: OwnedFd) {
        let &Control::File {
            owner,
            slot,
            generation,
        } = packet
        else {
            panic!("{packet:?} speaks of no file");
        };
        engine
            .lane_file(&self.lane, owner, slot, generation, file)
            .unwrap();
    }

    /// Ends it by a hang-up.
    pub(crate) fn kill(&mut self, engine: &Engine) {
        self.socket = None;
        self.thread.take().unwrap().join().unwrap();
        engine.lane_down(&self.lane);
    }
}

/// What a consumer does with requests. It may answer later.
pub(crate) trait Handle: Send + 'static {
    fn request(&mut self, consumer: &mut Consumer, id: ExchangeId, request: Request, more: bool);
    fn body(&mut self, _: &mut Consumer, _: ExchangeId, _: Vec<u8>, _: bool) {}
    fn timeout(&mut self, _: &mut Consumer, _: ExchangeId) {}
    fn writable(&mut self, _: &mut Consumer, _: ExchangeId) {}
    fn disconnected(&mut self, consumer: &mut Consumer, id: ExchangeId) {
        consumer.done(id);
    }
    /// False: it dies here, without another word.
    fn lives(&self) -> bool {
        true
    }
}

fn serve<H: Handle>(mut consumer: Consumer, mut handler: H) {
    let epoll = Epoll::new().unwrap();
    let mut events = Events::with_capacity(8);
    epoll
        .add(&consumer.fd().as_raw_fd(), 1, epoll::IN | epoll::EDGE)
        .unwrap();
    epoll
        .add(&consumer.control_fd().as_raw_fd(), 2, epoll::IN)
        .unwrap();
    let mut batch = Vec::new();
    loop {
        let timeout = match consumer.arm() {
            true => None,
            false => Some(Duration::ZERO),
        };
        epoll.wait(&mut events, timeout).unwrap();
        consumer.disarm();
        let control = events.iter().any(|(token, _)| token == 2);
        if control && consumer.control().unwrap() == ControlEvent::HangUp {
            return;
        }
        batch.clear();
        consumer.poll(64, &mut batch).unwrap();
        for event in batch.drain(..) {
            match event {
                Event::Request {
                    id,
                    request,
                    more_body,
                } => {
                    if consumer.start(id) {
                        handler.request(&mut consumer, id, request, more_body);
                    }
                    if !handler.lives() {
                        return;
                    }
                }
                Event::Stream { id } => {
                    while let Some(event) = consumer.stream_event(id) {
                        match event {
                            StreamEvent::Data { data, end } => {
                                handler.body(&mut consumer, id, data, end);
                            }
                            StreamEvent::Timeout => handler.timeout(&mut consumer, id),
                        }
                    }
                }
                Event::Body { id, data, end } => handler.body(&mut consumer, id, data, end),
                Event::Writable { id } => handler.writable(&mut consumer, id),
                Event::Disconnected { id } => handler.disconnected(&mut consumer, id),
                Event::RequestAborted { .. } => {}
            }
        }
        consumer.flush(false);
    }
}

/// Stands still in the first request until it is told to go on; then dies, or answers as `Echo`.
pub(crate) struct Stuck {
    pub(crate) begun: Sender<()>,
    pub(crate) go_on: Receiver<Fate>,
    dead: bool,
    echo: Echo,
}

/// What becomes of a stuck consumer.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum Fate {
    Answer,
    Die,
}

impl Stuck {
    /// With the ends by which the test waits for its first request and decides its fate.
    pub(crate) fn new() -> (Self, Receiver<()>, Sender<Fate>) {
        let (begun, has_begun) = channel();
        let (fate, go_on) = channel();
        let stuck = Self {
            begun,
            go_on,
            dead: false,
            echo: Echo::default(),
        };
        (stuck, has_begun, fate)
    }
}

impl Handle for Stuck {
    fn request(&mut self, consumer: &mut Consumer, id: ExchangeId, request: Request, more: bool) {
        if request.path() == b"/stuck" {
            self.begun.send(()).unwrap();
            self.dead = self.go_on.recv().unwrap() == Fate::Die;
        }
        if !self.dead {
            self.echo.request(consumer, id, request, more);
        }
    }

    fn lives(&self) -> bool {
        !self.dead
    }
}

/// Never answers; tells of requests that came and of clients that left.
pub(crate) struct Silent {
    pub(crate) events: Sender<&'static str>,
}

impl Handle for Silent {
    fn request(&mut self, _: &mut Consumer, _: ExchangeId, _: Request, _: bool) {
        self.events.send("request").unwrap();
    }

    fn disconnected(&mut self, consumer: &mut Consumer, id: ExchangeId) {
        self.events.send("disconnected").unwrap();
        consumer.done(id);
    }
}

/// Answers every request with its own method, path, query and body; `/stream` in parts.
#[derive(Default)]
pub(crate) struct Echo {
    bodies: HashMap<ExchangeId, Vec<u8>>,
    streams: HashMap<ExchangeId, usize>,
}

impl Echo {
    const PART: [u8; 10_000] = [b's'; 10_000];

    fn answer(consumer: &mut Consumer, id: ExchangeId, body: &[u8]) {
        let fields = [(&b"content-type"[..], &b"application/octet-stream"[..])];
        consumer
            .respond_head(id, 200, -1, fields.into_iter(), body, true, true)
            .unwrap();
    }

    fn stream(&mut self, consumer: &mut Consumer, id: ExchangeId) {
        while let Some(left) = self.streams.get_mut(&id) {
            let now = (*left).min(Self::PART.len());
            *left -= now;
            let end = *left == 0;
            if end {
                self.streams.remove(&id);
            }
            let sent = consumer.respond_body(id, &Self::PART[..now], end, end);
            if sent.unwrap() == Sent::Above {
                return;
            }
        }
    }
}

impl Handle for Echo {
    fn request(&mut self, consumer: &mut Consumer, id: ExchangeId, request: Request, more: bool) {
        if request.path() == b"/stream" {
            let len = std::str::from_utf8(request.query()).unwrap().parse();
            self.streams.insert(id, len.unwrap());
            let none = std::iter::empty();
            consumer
                .respond_head(id, 200, -1, none, b"", false, false)
                .unwrap();
            return self.stream(consumer, id);
        }
        let mut answer = request.method().to_vec();
        for part in [&b" "[..], request.path(), b"?", request.query(), b" "] {
            answer.extend_from_slice(part);
        }
        answer.extend_from_slice(request.body());
        match more {
            true => {
                consumer.want_body(id);
                consumer.consumed(id, request.body().len());
                self.bodies.insert(id, answer);
            }
            false => Self::answer(consumer, id, &answer),
        }
    }

    fn body(&mut self, consumer: &mut Consumer, id: ExchangeId, data: Vec<u8>, end: bool) {
        consumer.consumed(id, data.len());
        let body = self.bodies.get_mut(&id).unwrap();
        body.extend_from_slice(&data);
        if end {
            let body = self.bodies.remove(&id).unwrap();
            Self::answer(consumer, id, &body);
        }
    }

    fn writable(&mut self, consumer: &mut Consumer, id: ExchangeId) {
        self.stream(consumer, id);
    }

    fn disconnected(&mut self, consumer: &mut Consumer, id: ExchangeId) {
        self.bodies.remove(&id);
        self.streams.remove(&id);
        consumer.done(id);
    }
}

/// Reads one response with a Content-Length: status and body.
pub(crate) fn read_response(stream: &mut TcpStream) -> (u16, Vec<u8>) {
    let (status, length) = read_head(stream);
    let mut body = vec![0; length];
    stream.read_exact(&mut body).unwrap();
    (status, body)
}

/// Reads the head of one: status and Content-Length.
pub(crate) fn read_head(stream: &mut TcpStream) -> (u16, usize) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))
        .unwrap_or_else(|| panic!("no content-length in {head}"));
    (head[9..12].parse().unwrap(), length.parse().unwrap())
}

/// Random enough to mix things, and the same in every run.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (bits ^ (bits >> 31)) % limit
    }
}

/// A socket whose last descriptor cannot be closed before its peer is.
pub(crate) fn hanging() -> (OwnedFd, TcpStream) {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let listener = Listener::tcp(any, 1, 1).unwrap().remove(0);
    let peer = TcpStream::connect(listener.local_tcp().unwrap()).unwrap();
    let (socket, _) = loop {
        if let Some(accepted) = listener.accept().unwrap() {
            break accepted;
        }
    };
    while socket.send(&[0; 65536]).is_ok() {}
    socket.linger_on_close(Duration::from_secs(3600));
    (socket.into(), peer)
}
