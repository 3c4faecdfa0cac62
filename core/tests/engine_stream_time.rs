//! The time of raw connections that consumers serve: kept by the engine, told to who asked.
#![forbid(unsafe_code)]

mod hostile;
mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use toolb_core::bus::Kind;
use toolb_core::config::{EngineConfig, Timeouts};
use toolb_core::consumer::{Consumer, ConsumerOptions, ExchangeId, Wait, WantError};
use toolb_core::engine::{Engine, Listen, Routes};
use toolb_core::message::Request;

use hostile::Peer;
use support::{Handle, Server, Worker, dial};

const SOON: Duration = Duration::from_millis(30);
/// Nothing in here takes so long.
const LATE: Duration = Duration::from_secs(3600);

/// What a consumer has seen of a stream.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Seen {
    Open,
    Data(Vec<u8>, bool),
    Timeout,
    Gone,
}

/// Tells what comes, and does what the test says.
struct Script<F>(F);

impl<F: FnMut(&mut Consumer, ExchangeId, Seen) + Send + 'static> Handle for Script<F> {
    fn request(&mut self, consumer: &mut Consumer, id: ExchangeId, request: Request, _: bool) {
        assert!(request.is_stream());
        (self.0)(consumer, id, Seen::Open);
    }

    fn body(&mut self, consumer: &mut Consumer, id: ExchangeId, data: Vec<u8>, end: bool) {
        consumer.consumed(id, data.len());
        (self.0)(consumer, id, Seen::Data(data, end));
    }

    fn timeout(&mut self, consumer: &mut Consumer, id: ExchangeId) {
        (self.0)(consumer, id, Seen::Timeout);
    }

    fn disconnected(&mut self, consumer: &mut Consumer, id: ExchangeId) {
        (self.0)(consumer, id, Seen::Gone);
        consumer.done(id);
    }
}

fn idle(stream_idle: Duration) -> EngineConfig {
    EngineConfig {
        loops: Some(1),
        timeouts: Timeouts {
            stream_idle,
            ..Timeouts::default()
        },
        ..EngineConfig::default()
    }
}

/// A consumer that does what `act` says, and what it sees.
fn attach(
    server: &Server,
    mut act: impl FnMut(&mut Consumer, ExchangeId, &Seen) + Send + 'static,
) -> (Worker, Receiver<(ExchangeId, Seen)>) {
    let (events, told) = channel();
    let script = Script(move |consumer: &mut Consumer, id, seen: Seen| {
        act(consumer, id, &seen);
        // The test may be over.
        let _ = events.send((id, seen));
    });
    let options = ConsumerOptions {
        streams: 100,
        ..ConsumerOptions::default()
    };
    (server.attach(options, script), told)
}

fn data(bytes: &[u8]) -> Seen {
    Seen::Data(bytes.to_vec(), false)
}

fn end(consumer: &mut Consumer, id: ExchangeId, last: &[u8]) {
    consumer.respond_body(id, last, true, true).unwrap();
}

#[test]
fn a_want_that_nothing_comes_for_ends_once_and_wakes_a_sleeper() {
    let (server, raw) = Server::with_streams(idle(Duration::ZERO));
    let mut opened = 0;
    let (mut worker, told) = attach(&server, move |consumer, id, seen| {
        if *seen == Seen::Open {
            opened += 1;
            let wait = [SOON, SOON * 5][opened - 1];
            consumer.want(id, 1, wait).unwrap();
        }
    });
    let mut first = dial(&raw);
    let (id, open) = told.recv().unwrap();
    assert_eq!(open, Seen::Open);
    let since = Instant::now();
    assert_eq!(told.recv().unwrap(), (id, Seen::Timeout));
    let second = dial(&raw);
    let (later, _) = told.recv().unwrap();
    // Long after the first one's time nothing of it has come, but the time of the other.
    assert_eq!(told.recv().unwrap(), (later, Seen::Timeout));
    assert!(since.elapsed() >= SOON * 5);
    // It is not over for that.
    first.write_all(b"hello").unwrap();
    assert_eq!(told.recv().unwrap(), (id, data(b"hello")));
    drop((first, second));
    worker.kill(&server.engine);
}

#[test]
fn who_does_not_say_waits_for_as_long_as_the_engine_says_again_and_again() {
    let (server, raw) = Server::with_streams(idle(SOON));
    let mut times = 0;
    let (mut worker, told) = attach(&server, move |consumer, id, seen| match seen {
        Seen::Timeout => {
            times += 1;
            if times == 3 {
                end(consumer, id, b"enough");
            }
        }
        _ => assert_eq!(*seen, Seen::Open),
    });
    let mut rest = Vec::new();
    dial(&raw).read_to_end(&mut rest).unwrap();
    assert_eq!(rest, b"enough");
    let told: Vec<_> = told.iter().map(|(_, seen)| seen).take(4).collect();
    assert_eq!(told, [vec![Seen::Open], vec![Seen::Timeout; 3]].concat());
    worker.kill(&server.engine);
}

#[test]
fn parts_of_what_is_wanted_come_after_its_time_only() {
    let (server, raw) = Server::with_streams(idle(Duration::ZERO));
    let (mut worker, told) = attach(&server, move |consumer, id, seen| match seen {
        Seen::Open => consumer.want(id, 10, SOON).unwrap(),
        // What is left of the ten, and what is behind them.
        Seen::Data(bytes, false) if bytes == b"abc" => consumer.want(id, 7, LATE).unwrap(),
        Seen::Data(bytes, false) if bytes.len() >= 7 => {
            consumer.want(id, 2, Wait::Forever).unwrap()
        }
        _ => {}
    });
    let mut stream = dial(&raw);
    stream.write_all(b"abc").unwrap();
    let next = || told.recv().unwrap().1;
    assert_eq!((next(), next()), (Seen::Open, Seen::Timeout));
    assert_eq!(next(), data(b"abc"));
    for byte in b"defghij" {
        stream.write_all(&[*byte]).unwrap();
    }
    assert_eq!(next(), data(b"defghij"));
    // The end brings what there is, though more was wanted.
    stream.write_all(b"!").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(next(), Seen::Data(b"!".to_vec(), true));
    worker.kill(&server.engine);
}

#[test]
fn as_much_as_the_window_holds_comes_at_once() {
    const WINDOW: usize = 64 * 1024;
    let (server, raw) = Server::with_streams(idle(Duration::ZERO));
    let (mut worker, told) = attach(&server, move |consumer, id, seen| match seen {
        Seen::Open => {
            assert_eq!(consumer.want(id, WINDOW + 1, LATE), Err(WantError::TooMuch));
            consumer.want(id, 1, LATE).unwrap();
        }
        Seen::Data(bytes, false) if bytes.len() < WINDOW => {
            consumer.want(id, WINDOW, LATE).unwrap();
        }
        Seen::Data(..) => end(consumer, id, b"all"),
        _ => {}
    });
    let mut stream = dial(&raw);
    stream.write_all(&[7; 30_000]).unwrap();
    assert_eq!(told.recv().unwrap().1, Seen::Open);
    let mut before = 0;
    while before < 30_000 {
        // In one piece or in several: none of them is as large as what is wanted then.
        let (_, Seen::Data(bytes, false)) = told.recv().unwrap() else {
            panic!("something else than data");
        };
        before += bytes.len();
        if before < 30_000 {
            stream
                .write_all(&vec![7; WINDOW - (30_000 - before)])
                .unwrap();
            break;
        }
    }
    let _ = stream.write_all(&[7; WINDOW]);
    let mut answer = [0; 3];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"all");
    worker.kill(&server.engine);
}

#[test]
fn a_client_that_has_ended_its_side_can_still_be_too_late() {
    let (server, raw) = Server::with_streams(idle(Duration::ZERO));
    let (mut worker, told) = attach(&server, move |consumer, id, seen| match seen {
        Seen::Data(_, true) => {
            // It still reads: it may be kept waiting, and be told of it.
            consumer.want(id, 1, SOON).unwrap();
            consumer.respond_body(id, b"wait", false, false).unwrap();
        }
        Seen::Timeout => {
            end(consumer, id, b"over");
            assert_eq!(consumer.want(id, 1, SOON), Err(WantError::Unknown));
        }
        _ => {}
    });
    let mut stream = dial(&raw);
    stream.write_all(b"x").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, b"waitover");
    let before: Vec<_> = told
        .iter()
        .map(|(_, seen)| seen)
        .take_while(|seen| *seen != Seen::Timeout)
        .collect();
    assert!(!before.contains(&Seen::Gone));
    worker.kill(&server.engine);
}

#[test]
fn the_last_want_counts_whichever_stream_it_is_for() {
    let (server, raw) = Server::with_streams(idle(Duration::ZERO));
    let mut ids = Vec::new();
    let (mut worker, told) = attach(&server, move |consumer, id, seen| match seen {
        Seen::Open => {
            ids.push(id);
            consumer.want(id, 1, LATE).unwrap();
            consumer.want(id, 5, Wait::Forever).unwrap();
        }
        // Of all streams but that which it came on.
        Seen::Data(..) => ids.iter().filter(|other| **other != id).for_each(|other| {
            for wait in [LATE, LATE, SOON] {
                consumer.want(*other, 1, wait).unwrap();
            }
        }),
        _ => {}
    });
    let mut streams = [dial(&raw), dial(&raw)];
    let ids: Vec<_> = told.iter().take(2).map(|(id, _)| id).collect();
    streams[0].write_all(b"12345").unwrap();
    let (of, seen) = told.recv().unwrap();
    assert_eq!(seen, data(b"12345"));
    let other = ids.into_iter().find(|id| *id != of).unwrap();
    assert_eq!(told.recv().unwrap(), (other, Seen::Timeout));
    worker.kill(&server.engine);
}

#[test]
fn a_consumer_that_dies_takes_its_times_along() {
    let (server, raw) = Server::with_streams(idle(SOON));
    let wait = |consumer: &mut Consumer, id: ExchangeId, seen: &Seen| {
        if *seen == Seen::Open {
            consumer.want(id, 1, LATE).unwrap();
        }
    };
    let (mut worker, told) = attach(&server, wait);
    let mut streams: Vec<_> = (0..20).map(|_| dial(&raw)).collect();
    assert_eq!(told.iter().take(20).count(), 20);
    worker.kill(&server.engine);
    for stream in &mut streams {
        let error = stream.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }
    // The next one is told of its own.
    let (mut worker, told) = attach(&server, |_, _, _| {});
    let _stream = dial(&raw);
    let told: Vec<_> = told.iter().take(3).map(|(_, seen)| seen).collect();
    assert_eq!(told, [Seen::Open, Seen::Timeout, Seen::Timeout]);
    worker.kill(&server.engine);
}

#[test]
fn a_consumer_that_does_not_know_of_times_is_not_told() {
    let (server, raw) = Server::with_streams(idle(SOON));
    let mut peer = Peer::attach(&server);
    let mut old = dial(&raw);
    let (it, _) = peer.next(Kind::Open);
    peer.lane.grant_request(it.slot, 1000);
    assert!(peer.start(it));
    peer.lane.ring(0).notice.bump();
    // What it might say is something that the engine need not understand.
    peer.say(it, Kind::Want, 0, b"");
    // It takes no second stream.
    server.engine.lane_draining(&peer.handle);
    let (mut worker, told) = attach(&server, |_, _, _| {});
    let _new = dial(&raw);
    assert_eq!(told.iter().take(5).count(), 5);
    // What comes first after five times SOON is the client's.
    old.write_all(b"x").unwrap();
    peer.lane.ring(0).requests.refresh().unwrap();
    let (_, payload) = peer.next(Kind::Data);
    assert_eq!(payload, b"x");
    assert_eq!(server.engine.stats().poisoned, 0);
    worker.kill(&server.engine);
    server.engine.lane_down(&peer.handle);
}

#[test]
fn a_time_that_finds_no_room_in_the_ring_is_told_when_there_is_some() {
    let (server, raw) = Server::with_streams(idle(Duration::from_millis(1)));
    let mut peer = Peer::with_time(&server, 15);
    let streams: Vec<_> = (0..15)
        .map(|_| {
            let client = dial(&raw);
            let (it, _) = peer.next(Kind::Open);
            peer.lane.grant_request(it.slot, 1000);
            assert!(peer.start(it));
            peer.lane.ring(0).notice.bump();
            peer.publish();
            (it.slot, client)
        })
        .collect();
    // Nothing is read there until the times of its streams must have filled the ring; those of another
    // consumer go on.
    let (mut clock, ticks) = attach(&server, |_, _, _| {});
    let _its = dial(&raw);
    // 15 of 32 bytes in each round.
    assert_eq!(ticks.iter().take(800).count(), 800);
    let lap = |peer: &mut Peer| {
        for (slot, _) in &streams {
            while peer.next(Kind::Timeout).0.slot != *slot {}
        }
    };
    // What stands in the ring, and what comes behind that.
    (0..600).for_each(|_| lap(&mut peer));
    assert_eq!(server.engine.stats().poisoned, 0);
    clock.kill(&server.engine);
    server.engine.lane_down(&peer.handle);
}

#[test]
fn what_came_before_a_client_closed_is_not_lost() {
    // On a Unix socket a close is seen at once, even if much of what came is still to be read.
    const TOTAL: usize = 200_000;
    let path = std::env::temp_dir().join(format!("toolb-time-{}", std::process::id()));
    let listen = Listen::Uds {
        path: path.clone(),
        permissions: None,
    };
    let routes = Routes {
        pool: true,
        ..Routes::default()
    };
    let mut engine = Engine::bind(idle(Duration::ZERO), routes, &[]).unwrap();
    engine.add_stream_pool(&listen).unwrap();
    engine.start().unwrap();
    let server = Server {
        engine,
        address: String::new(),
    };
    let (hold, held) = channel::<()>();
    let (mut worker, told) = attach(&server, move |consumer, id, seen| match seen {
        // Until the client has gone.
        Seen::Open => held.recv().unwrap(),
        Seen::Data(_, true) => consumer.abort(id),
        _ => {}
    });
    let mut client = UnixStream::connect(&path).unwrap();
    client.set_nonblocking(true).unwrap();
    let mut sent = 0;
    while sent < TOTAL {
        match client.write(&vec![7; TOTAL - sent]) {
            Ok(count) => sent += count,
            Err(_) => break,
        }
    }
    drop(client);
    hold.send(()).unwrap();
    let mut got = 0;
    for (_, seen) in told {
        match seen {
            Seen::Open => {}
            Seen::Data(bytes, end) => {
                got += bytes.len();
                if end {
                    break;
                }
            }
            other => panic!("{other:?} after {got} of {sent} bytes"),
        }
    }
    assert_eq!(got, sent);
    worker.kill(&server.engine);
}
