//! A consumer as of bus 1.0, frozen: its words are recorded bytes, and where things stand in shared
//! memory are numbers, not names of today's code. Whatever becomes of the engine within major
//! version 1, this consumer attaches to it and serves.
//!
//! Never change the numbers here. If this test fails, programs in use fail, too.
#![forbid(unsafe_code)]

mod loopback;

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use toolb_core::config::EngineConfig;
use toolb_core::message::Control;
use toolb_core::server::{Embedded, GateOptions};
use toolb_core::sys::eventfd::EventFd;
use toolb_core::sys::rendezvous::connect;

use loopback::{address_of, any_port, to_consumers};

const PATIENCE: Duration = Duration::from_secs(30);

/// HELLO: ABI 1 to 1, no features, generation 0, no token, 8 slots, concurrency 4, window 2, process
/// 4711, language "c", name "old", pool "main".
const HELLO: &[u8] = b"TBCP\x01\x00\x30\x00\
    \x01\x00\x01\x00\
    \x00\x00\x00\x00\x00\x00\x00\x00\
    \x00\x00\x00\x00\
    \x00\x00\x00\x00\x00\x00\x00\x00\
    \x08\x00\x04\x00\x02\x00\
    \x67\x12\x00\x00\
    \x01\x00c\x03\x00old\x04\x00main";
const READY: &[u8] = b"TBCP\x04\x00\x00\x00";
const DRAINED: &[u8] = b"TBCP\x08\x00\x00\x00";

/// What an engine of 1.0 answered: ABI 1.0, no features, lane 3, 1 ring, 8 slots, 256 KiB both ways.
const WELCOME: &[u8] = b"TBCP\x02\x00\x20\x00\
    \x01\x00\x00\x00\
    \x00\x00\x00\x00\x00\x00\x00\x00\
    \x03\x00\x00\x00\x00\x00\x00\x00\
    \x01\x00\x08\x00\
    \x00\x00\x04\x00\
    \x00\x00\x04\x00";

/// The payload of a ResponseHead record: no length known, status 203, one field `x-old: yes`, body
/// "as ever".
const RESPONSE: &[u8] = b"\xff\xff\xff\xff\xff\xff\xff\xff\
    \xcb\x00\x01\x00\x18\x00\x00\x00\
    \x28\x00\x07\x00\x00\x00\x00\x00\
    \x20\x00\x05\x00\x25\x00\x03\x00\
    x-oldyesas ever";

#[test]
fn it_attaches_and_serves() {
    for features in [0u64, 1 << 40] {
        let mut hello = HELLO.to_vec();
        // Abilities that this engine has never heard of are not an obstacle either.
        hello[12..20].copy_from_slice(&features.to_le_bytes());
        serve_one_request(&hello);
    }
}

#[test]
fn it_may_say_more_than_this_engine_knows() {
    // A consumer of a later minor version: a field is appended to its HELLO.
    let mut hello = HELLO.to_vec();
    hello.extend_from_slice(b"\x05\x00later");
    hello[6] += 7;
    serve_one_request(&hello);
}

#[test]
fn what_an_engine_of_1_0_said_is_still_understood() {
    let Ok(Control::Welcome(welcome)) = Control::decode(WELCOME) else {
        panic!("not understood");
    };
    assert_eq!(
        (welcome.abi, welcome.features, welcome.lane_id),
        ((1, 0), 0, 3)
    );
    assert_eq!((welcome.rings, welcome.slots), (1, 8));
    assert_eq!(welcome.request_capacity, 1 << 18);
    assert_eq!(welcome.response_capacity, 1 << 18);
    let Ok(Control::Hello(hello)) = Control::decode(HELLO) else {
        panic!("not understood");
    };
    assert_eq!((hello.abi_min, hello.abi_max, hello.pid), (1, 1, 4711));
    assert_eq!((hello.slots, hello.concurrency, hello.window), (8, 4, 2));
    assert_eq!(
        (&*hello.language, &*hello.name, &*hello.pool),
        ("c", "old", "main")
    );
}

fn serve_one_request(hello: &[u8]) {
    let folder = std::env::temp_dir();
    let name = format!(
        "toolb-old-{}-{:?}",
        std::process::id(),
        std::thread::current().id()
    );
    let bus = folder.join(name);
    let gate = GateOptions::new(Some(bus.clone()));
    let server = Embedded::start(
        EngineConfig::default(),
        to_consumers(),
        &[any_port()],
        &gate,
    )
    .unwrap();
    let address = address_of(server.engine());

    let socket = connect(&bus, PATIENCE).unwrap();
    socket.send(hello, &[]).unwrap();
    let (mut welcome, mut fds) = (vec![0; 4096], Vec::new());
    assert!(socket.wait(Some(PATIENCE)).unwrap());
    let len = socket.recv(&mut welcome, &mut fds).unwrap();
    // Fields may have been appended, and the minor version may be another.
    assert!(len >= 40 && welcome.starts_with(b"TBCP\x02"), "{welcome:?}");
    let short = |at: usize| u16::from_le_bytes([welcome[at], welcome[at + 1]]);
    assert_eq!(short(8), 1, "the major version");
    assert_eq!(welcome[12..20], [0; 8], "no ability that we have");
    assert_eq!((short(28), short(30)), (1, 8), "rings and slots");
    assert_eq!(fds.len(), 5, "S, E, C and two doorbells");
    let mut lane = Lane::new(fds);
    socket.send(READY, &[]).unwrap();

    let mut client = TcpStream::connect(address).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client
        .write_all(b"GET /what?ever HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        .unwrap();
    lane.await_request();
    lane.answer();
    let mut response = String::new();
    client.read_to_string(&mut response).unwrap();
    assert!(response.starts_with("HTTP/1.1 203 "), "{response}");
    assert!(response.contains("\r\nx-old: yes\r\n"), "{response}");
    assert!(response.ends_with("\r\n\r\nas ever"), "{response}");

    drop(client);
    socket.send(DRAINED, &[]).unwrap();
    assert!(server.end(PATIENCE));
    assert!(!bus.exists());
}

/// The lane, by reading and writing its files where 1.0 has its words.
struct Lane {
    engine: File,
    consumer: File,
    bell: EventFd,
    loop_bell: EventFd,
}

impl Lane {
    fn new(fds: Vec<OwnedFd>) -> Self {
        let mut fds = fds.into_iter();
        let mut next = || fds.next().unwrap();
        let status = File::from(next());
        let lane = Self {
            engine: File::from(next()),
            consumer: File::from(next()),
            bell: EventFd::from(next()),
            loop_bell: EventFd::from(next()),
        };
        assert_eq!(&word::<4>(&status, 0), b"BUSS");
        assert_eq!(&word::<4>(&lane.engine, 0), b"BUSE");
        assert_eq!(number32(&lane.engine, 0x20), 1 | 8 << 16, "rings and slots");
        assert_eq!(number32(&lane.engine, 0x24), 0x100, "the ring table");
        assert_eq!(number32(&lane.engine, 0x28), 0x200, "the slot table");
        // The version that this consumer speaks, then the sign that it has opened the lane.
        lane.put(4, &[1, 0, 0, 0]);
        lane.put(0, b"BUSC");
        lane
    }

    /// Sleeps as 1.0 does until there is a record, and checks that it is the request.
    fn await_request(&self) {
        self.put(0x80, &1u32.to_le_bytes());
        while number64(&self.engine, 0x100) == 0 {
            assert!(self.bell.wait(Some(PATIENCE)).unwrap(), "nobody rang");
            self.bell.drain();
        }
        self.put(0x80, &2u32.to_le_bytes());
        let record = 0x1000;
        let first = number64(&self.engine, record);
        let len = (first & 0xFFFF_FFFF) as usize;
        assert_eq!(first >> 32 & 0xFF, 1, "a RequestHead");
        assert_eq!(first >> 40 & 1, 1, "the end of the request");
        let mut payload = vec![0; len - 16];
        self.engine
            .read_exact_at(&mut payload, record + 16)
            .unwrap();
        let short = |at: usize| usize::from(u16::from_le_bytes([payload[at], payload[at + 1]]));
        let span = |at: usize| &payload[short(at)..short(at) + short(at + 2)];
        assert_eq!(span(28), b"GET");
        assert_eq!(span(32), b"/what?ever");
        assert_eq!(span(40), b"/what");
        assert_eq!(span(44), b"ever");
    }

    /// Starts the exchange, answers it in one record, and rings.
    fn answer(&mut self) {
        let second = number64(&self.engine, 0x1000 + 8);
        let slot = second >> 16 & 0xFFFF;
        let generation = (second >> 32) as u32;
        self.put(0x200 + slot * 64, &generation.to_le_bytes());
        // The request has been read.
        let len = number64(&self.engine, 0x1000) & 0xFFFF_FFFF;
        let head = len.next_multiple_of(16);
        self.put(0x100 + 128, &head.to_le_bytes());

        let record = 0x1000;
        let len = 16 + RESPONSE.len() as u64;
        // A ResponseHead with END and DONE.
        let first = len | 3 << 32 | 3 << 40;
        self.put(record, &first.to_le_bytes());
        self.put(record + 8, &second.to_le_bytes());
        self.put(record + 16, RESPONSE);
        self.put(0x100, &len.next_multiple_of(16).to_le_bytes());
        self.loop_bell.signal().unwrap();
    }

    fn put(&self, at: u64, bytes: &[u8]) {
        self.consumer.write_all_at(bytes, at).unwrap();
    }
}

fn word<const N: usize>(file: &File, at: u64) -> [u8; N] {
    let mut bytes = [0; N];
    file.read_exact_at(&mut bytes, at).unwrap();
    bytes
}

fn number32(file: &File, at: u64) -> u32 {
    u32::from_le_bytes(word(file, at))
}

fn number64(file: &File, at: u64) -> u64 {
    u64::from_le_bytes(word(file, at))
}
