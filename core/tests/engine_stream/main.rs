//! Stream services behind real sockets.
#![forbid(unsafe_code)]

mod loops;
mod outgoing;
#[path = "../streams/mod.rs"]
mod streams;

use std::any::Any;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use toolb_core::config::{EngineConfig, Timeouts};
use toolb_core::engine::{
    CloseReason, Context, ControlEvent, Engine, Handler, Listen, Request, Response, Routes,
    ServiceOptions, Step, StreamError, StreamId, Target, Wait, WithContext,
};
use toolb_core::sys::affinity;
use toolb_core::sys::socket::{Listener, Socket};

use streams::loopback::any_port;
use streams::{Probe, Server, What, connect, echo, events, ping, read};

fn one_loop() -> EngineConfig {
    EngineConfig {
        loops: Some(1),
        ..EngineConfig::default()
    }
}

/// Ends the connection by a reset.
fn reset(address: &str) {
    let (socket, _) = Socket::connect_tcp(address.parse().unwrap()).unwrap();
    socket.reset_on_close();
}

#[test]
fn what_is_sent_comes_back_and_a_half_closed_client_gets_all_of_it() {
    let server = Server::start(2, |context, what| {
        if let What::Receive(id) = what {
            echo(context, id);
        }
    });
    let mut clients: Vec<_> = (0..20).map(|_| server.connect()).collect();
    for client in &mut clients {
        ping(client);
        client.write_all(b"last words").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
    }
    for mut client in clients {
        let mut rest = String::new();
        client.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "last words");
    }
}

#[test]
fn a_frame_is_told_once_however_it_is_cut() {
    let (told, frames) = events();
    let server = Server::with(
        one_loop(),
        ServiceOptions::default(),
        move |context, what| {
            let streams = context.streams();
            match what {
                What::Accept(id) => streams.want_bytes(id, 4, Wait::Forever).unwrap(),
                What::Receive(id) => {
                    let seen = streams.peek(id).unwrap();
                    let length = usize::from(seen[3]);
                    if seen.len() < 4 + length {
                        return streams.want_bytes(id, 4 + length, Wait::Forever).unwrap();
                    }
                    told.tell(seen[4..4 + length].to_vec());
                    streams.consume(id, 4 + length).unwrap();
                    streams.want_bytes(id, 4, Wait::Forever).unwrap();
                }
                _ => {}
            }
        },
    );
    let mut client = server.connect();
    for byte in b"\0\0\0\x05hello\0\0\0\x00\0\0\0\x03abc" {
        client.write_all(&[*byte]).unwrap();
    }
    for expected in [&b"hello"[..], b"", b"abc"] {
        assert_eq!(frames.recv().unwrap(), expected);
    }
    client
        .write_all(b"\0\0\0\x01x\0\0\0\x01y\0\0\0\x02z")
        .unwrap();
    assert_eq!(frames.recv().unwrap(), b"x");
    assert_eq!(frames.recv().unwrap(), b"y");
}

#[test]
fn bytes_left_unread_are_told_again_only_when_they_are_wanted() {
    let (told, seen) = events();
    let reader = Mutex::new(None);
    let again = AtomicUsize::new(0);
    let server = Server::with(
        one_loop(),
        ServiceOptions::default(),
        move |context, what| {
            let What::Receive(id) = what else {
                return;
            };
            let streams = context.streams();
            match streams.peek(id).unwrap() {
                b"lazy" => {
                    reader.lock().unwrap().get_or_insert(id);
                    told.tell(4);
                    if again.fetch_add(1, Ordering::Relaxed) == 1 {
                        streams.consume(id, 4).unwrap();
                        streams.want(id, Wait::Default).unwrap();
                    }
                }
                b"wake" => {
                    // A neighbour may ask in its place.
                    let lazy = reader.lock().unwrap().unwrap();
                    streams.want(lazy, Wait::Default).unwrap();
                    streams.consume(id, 4).unwrap();
                }
                _ => echo(context, id),
            }
        },
    );
    let (mut lazy, mut other) = (server.connect(), server.connect());
    lazy.write_all(b"lazy").unwrap();
    assert_eq!(seen.recv().unwrap(), 4);
    for _ in 0..50 {
        ping(&mut other);
    }
    assert!(seen.try_recv().is_err());
    other.write_all(b"wake").unwrap();
    assert_eq!(seen.recv().unwrap(), 4);
    for _ in 0..50 {
        ping(&mut other);
    }
    assert!(seen.try_recv().is_err());
    ping(&mut lazy);
}

#[test]
fn every_ending_is_told_once_with_its_reason() {
    let (told, endings) = events();
    let config = EngineConfig {
        timeouts: Timeouts {
            send_idle: Duration::from_millis(50),
            ..Timeouts::default()
        },
        ..one_loop()
    };
    let options = ServiceOptions {
        send_limit: 64 << 20,
        ..ServiceOptions::default()
    };
    let server = Server::with(config, options, move |context, what| {
        let streams = context.streams();
        match what {
            What::Receive(id) => {
                let mut order = [0; 16];
                let len = streams.recv(id, &mut order).unwrap();
                match &order[..len] {
                    b"close" => {
                        streams.send(id, b"bye").unwrap();
                        streams.close(id).unwrap();
                        streams.close(id).unwrap();
                        assert_eq!(streams.send(id, b"more"), Err(StreamError::Gone));
                        assert_eq!(streams.want(id, Wait::Default), Err(StreamError::Gone));
                    }
                    b"abort" => {
                        streams.send(id, b"never seen").unwrap();
                        streams.close(id).unwrap();
                        streams.abort(id).unwrap();
                        streams.abort(id).unwrap();
                    }
                    b"idle" => streams.want(id, Duration::from_millis(1)).unwrap(),
                    b"flood" => streams.send(id, &vec![7; 64 << 20]).unwrap(),
                    _ => streams.send(id, b"ok").unwrap(),
                }
            }
            What::Timeout(id) => streams.time_out(id).unwrap(),
            What::Close(id, reason) => {
                // Still there, though nothing can be begun any more.
                assert_eq!(streams.peek(id), Ok(&b""[..]));
                assert_eq!(streams.send(id, b"x"), Err(StreamError::Gone));
                assert_eq!(streams.close(id), Ok(()));
                assert_eq!(streams.abort(id), Ok(()));
                context.timer(Duration::ZERO, move |context| {
                    assert_eq!(context.streams().tag(id), Err(StreamError::Gone));
                });
                told.tell(reason);
            }
            _ => {}
        }
    });
    let order = |order: &[u8]| {
        let mut client = server.connect();
        client.write_all(order).unwrap();
        client
    };
    let mut rest = Vec::new();

    order(b"close").read_to_end(&mut rest).unwrap();
    assert_eq!(rest, b"bye");
    assert_eq!(endings.recv().unwrap(), CloseReason::Closed);

    let error = order(b"abort").read_to_end(&mut rest).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    assert_eq!(endings.recv().unwrap(), CloseReason::Aborted);

    assert_eq!(order(b"idle").read_to_end(&mut rest).unwrap(), 0);
    assert_eq!(endings.recv().unwrap(), CloseReason::Timeout);

    drop(server.connect());
    assert_eq!(endings.recv().unwrap(), CloseReason::PeerClosed);

    reset(&server.address);
    assert_eq!(endings.recv().unwrap(), CloseReason::Reset);

    // It takes nothing, while others are served.
    let slow = order(b"flood");
    let mut other = order(b"ok?");
    assert_eq!(read(&mut other, 2), b"ok");
    assert_eq!(endings.recv().unwrap(), CloseReason::SendTimeout);
    drop(slow);

    server.engine.stop();
    assert_eq!(endings.recv().unwrap(), CloseReason::Stopping);
    assert!(endings.try_recv().is_err());
    let stats = server.engine.stats();
    assert_eq!((stats.streams_accepted, stats.streams_closed), (7, 7));
}

#[test]
fn a_queue_that_is_full_takes_nothing_and_tells_when_it_has_room() {
    const TOTAL: usize = 8 << 20;
    let options = ServiceOptions {
        send_limit: 10_000,
        ..ServiceOptions::default()
    };
    let refused = Arc::new(AtomicUsize::new(0));
    let counter = refused.clone();
    let sent = AtomicUsize::new(0);
    let server = Server::with(one_loop(), options, move |context, what| {
        let streams = context.streams();
        match what {
            What::Receive(id) | What::Writable(id) => {
                assert!(streams.unsent(id).unwrap() <= 5_000);
                assert_eq!(streams.send(id, &[0; 10_001]), Err(StreamError::TooMuch));
                while sent.load(Ordering::Relaxed) < TOTAL {
                    let at = sent.load(Ordering::Relaxed);
                    let bytes: Vec<_> = (at..(at + 999).min(TOTAL)).map(|at| at as u8).collect();
                    match streams.send(id, &bytes) {
                        Ok(()) => sent.store(at + bytes.len(), Ordering::Relaxed),
                        Err(error) => {
                            assert_eq!(error, StreamError::Full);
                            counter.fetch_add(1, Ordering::Relaxed);
                            return;
                        }
                    }
                }
                streams.close(id).unwrap();
            }
            _ => {}
        }
    });
    let mut client = server.connect();
    client.write_all(b"go").unwrap();
    let mut all = Vec::new();
    client.read_to_end(&mut all).unwrap();
    assert_eq!(all.len(), TOTAL);
    assert!(all.iter().enumerate().all(|(at, byte)| *byte == at as u8));
    assert!(refused.load(Ordering::Relaxed) > 100);
}

#[test]
fn a_client_that_is_faster_than_its_service_is_held_back() {
    const TOTAL: usize = 8 << 20;
    let options = ServiceOptions {
        receive_limit: 5_000,
        ..ServiceOptions::default()
    };
    let (told, sums) = events();
    let sum = Mutex::new((0, 0u64));
    let server = Server::with(one_loop(), options, move |context, what| {
        let streams = context.streams();
        match what {
            What::Receive(id) => {
                let unread = streams.peek(id).unwrap();
                assert!(unread.len() <= 5_000);
                let count = unread.len().min(777);
                let mut sum = sum.lock().unwrap();
                sum.0 += count;
                sum.1 += unread[..count]
                    .iter()
                    .map(|byte| u64::from(*byte))
                    .sum::<u64>();
                streams.consume(id, count).unwrap();
                assert_eq!(streams.consume(id, 5_001), Err(StreamError::TooMuch));
                let too_much = streams.want_bytes(id, 5_001, Wait::Default);
                assert_eq!(too_much, Err(StreamError::TooMuch));
                streams.want(id, Wait::Default).unwrap();
            }
            What::Close(_, reason) => told.tell((reason, *sum.lock().unwrap())),
            _ => {}
        }
    });
    let bytes: Vec<u8> = (0..TOTAL).map(|at| (at / 7) as u8).collect();
    let mut client = server.connect();
    client.write_all(&bytes).unwrap();
    drop(client);
    let expected = bytes.iter().map(|byte| u64::from(*byte)).sum();
    let (reason, sum) = sums.recv().unwrap();
    assert_eq!((reason, sum), (CloseReason::PeerClosed, (TOTAL, expected)));
}

#[test]
fn timeouts_come_when_they_are_asked_for_and_by_default() {
    let (told, timeouts) = events();
    let options = ServiceOptions {
        default_timeout: Some(Duration::from_millis(20)),
        ..ServiceOptions::default()
    };
    let since = Mutex::new(0);
    let server = Server::with(one_loop(), options, move |context, what| {
        let now = context.now();
        let mut since = since.lock().unwrap();
        let streams = context.streams();
        match what {
            What::Accept(id) => {
                streams.want(id, Duration::from_millis(30)).unwrap();
                *since = now;
            }
            What::Timeout(id) => {
                // Not before its time; how much later is the machine's affair.
                let tag = streams.tag(id).unwrap();
                let least = if tag == 0 { 30 } else { 20 };
                assert!(now >= *since + least * 1_000_000, "{tag}");
                *since = now;
                streams.set_tag(id, tag + 1).unwrap();
                told.tell(tag);
                if tag == 3 {
                    streams.want(id, Wait::Forever).unwrap();
                }
            }
            What::Receive(id) => echo(context, id),
            _ => {}
        }
    });
    let mut client = server.connect();
    for tag in 0..4 {
        assert_eq!(timeouts.recv().unwrap(), tag);
    }
    ping(&mut client);
    assert_eq!(timeouts.recv().unwrap(), 4);
}

#[test]
fn a_half_open_service_answers_behind_the_end() {
    let options = ServiceOptions {
        half_open: true,
        ..ServiceOptions::default()
    };
    let (told, reasons) = events();
    let server = Server::with(one_loop(), options, move |context, what| match what {
        What::Receive(id) if context.streams().ended(id).unwrap() => {
            let question = context.streams().peek(id).unwrap().len();
            context.timer(Duration::from_millis(1), move |context| {
                let streams = context.streams();
                let answer = format!("{question} bytes");
                streams.send(id, answer.as_bytes()).unwrap();
                streams.close(id).unwrap();
            });
        }
        What::Close(_, reason) => told.tell(reason),
        _ => {}
    });
    for question in ["", "what?"] {
        let mut client = server.connect();
        client.write_all(question.as_bytes()).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, format!("{} bytes", question.len()));
        assert_eq!(reasons.recv().unwrap(), CloseReason::Closed);
    }
    reset(&server.address);
    assert_eq!(reasons.recv().unwrap(), CloseReason::Reset);
}

#[test]
fn a_service_on_a_unix_socket_is_told_no_peer() {
    let folder = std::env::temp_dir().join(format!("toolb-stream-{}", std::process::id()));
    std::fs::create_dir(&folder).unwrap();
    let path = folder.join("socket");
    let listen = Listen::Uds {
        path: path.clone(),
        permissions: Some(0o600),
    };
    let mut engine = Engine::bind(one_loop(), Routes::default(), &[]).unwrap();
    let probe = Probe::new(|context, what| {
        if let What::Receive(id) = what {
            assert_eq!(context.streams().peer(id), Ok(None));
            echo(context, id);
        }
    });
    engine
        .add_service(Some(&listen), probe, ServiceOptions::default())
        .unwrap();
    engine.start().unwrap();
    assert_eq!(engine.addresses(), [format!("unix:{}", path.display())]);
    let mut client = std::os::unix::net::UnixStream::connect(&path).unwrap();
    client.write_all(b"all at once").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut all = String::new();
    client.read_to_string(&mut all).unwrap();
    assert_eq!(all, "all at once");
    drop(engine);
    assert!(!path.exists());
    std::fs::remove_dir(&folder).unwrap();
}
