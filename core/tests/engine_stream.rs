//! Stream services behind real sockets.
#![forbid(unsafe_code)]

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
fn neighbours_talk_and_so_do_timers_and_requests() {
    type Room = Arc<Mutex<Vec<StreamId>>>;
    let room: Room = Arc::default();
    let say = |context: &mut Context<'_>, room: &Room, text: &[u8]| {
        for member in room.lock().unwrap().iter() {
            context.streams().send(*member, text).unwrap();
        }
    };
    let members = room.clone();
    let probe = Probe::new(move |context, what| match what {
        What::Accept(id) => {
            members.lock().unwrap().push(id);
            say(context, &members, b"+");
        }
        What::Receive(id) => {
            let bytes = context.streams().peek(id).unwrap().to_vec();
            context.streams().consume(id, bytes.len()).unwrap();
            if bytes == b"later" {
                let members = members.clone();
                context.timer(Duration::from_millis(1), move |context| {
                    say(context, &members, b"tick");
                });
            } else {
                say(context, &members, &bytes);
            }
        }
        What::Close(id, _) => {
            members.lock().unwrap().retain(|member| *member != id);
            say(context, &members, b"-");
        }
        _ => {}
    });
    let mut routes = Routes::default();
    let members = room.clone();
    let handler = WithContext(
        move |context: &mut Context<'_>, _: &Request<'_>, response: &mut Response| {
            say(context, &members, b"request");
            response.write(b"said");
            Step::Close
        },
    );
    routes.inline.insert("GET", "/", Arc::new(handler)).unwrap();
    let mut engine = Engine::bind(one_loop(), routes, &[any_port()]).unwrap();
    let options = ServiceOptions::default();
    engine
        .add_service(Some(&any_port()), probe, options)
        .unwrap();
    engine.start().unwrap();
    let addresses = engine.addresses();
    assert!(addresses[0].starts_with("http://"), "{addresses:?}");

    let chat = addresses[1].strip_prefix("tcp://").unwrap();
    let mut first = connect(chat);
    assert_eq!(read(&mut first, 1), b"+");
    let mut second = connect(chat);
    assert_eq!(
        (read(&mut first, 1), read(&mut second, 1)),
        (b"+".into(), b"+".into())
    );
    first.write_all(b"hello").unwrap();
    assert_eq!(read(&mut first, 5), b"hello");
    assert_eq!(read(&mut second, 5), b"hello");
    second.write_all(b"later").unwrap();
    assert_eq!(read(&mut first, 4), b"tick");
    assert_eq!(read(&mut second, 4), b"tick");
    let mut web = connect(&addresses[0].replace("http://", ""));
    web.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    let mut answer = String::new();
    web.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("said"), "{answer}");
    assert_eq!(read(&mut first, 7), b"request");
    assert_eq!(read(&mut second, 7), b"request");
    drop(second);
    assert_eq!(read(&mut first, 1), b"-");
}

#[test]
fn a_stream_of_another_loop_or_of_the_past_is_refused() {
    let streams: Arc<Mutex<Vec<StreamId>>> = Arc::default();
    let (told, errors) = events();
    let all = streams.clone();
    let server = Server::start(2, move |context, what| match what {
        What::Accept(id) => all.lock().unwrap().push(id),
        What::Receive(id) => {
            let here = context.loop_index();
            let streams = context.streams();
            let mut byte = [0];
            while streams.recv(id, &mut byte).unwrap() > 0 {}
            for other in all.lock().unwrap().iter().filter(|other| **other != id) {
                let error = streams.send(*other, b"x");
                let results = [
                    streams.want(*other, Wait::Default),
                    streams.recv(*other, &mut byte).map(drop),
                    streams.peek(*other).map(drop),
                    streams.consume(*other, 0),
                    streams.close(*other),
                    streams.abort(*other),
                    streams.set_tag(*other, 1),
                    streams.tag(*other).map(drop),
                    streams.peer(*other).map(drop),
                    streams.unsent(*other).map(drop),
                ];
                assert!(results.iter().all(|result| *result == error), "{results:?}");
                assert_eq!(
                    error == Err(StreamError::WrongLoop),
                    other.loop_index() != here
                );
                told.tell(error);
            }
            streams.send(id, b"done").unwrap();
        }
        _ => {}
    });
    // The kernel shares connections out: go on until both loops have had one.
    let both =
        |streams: &[StreamId]| (0..2).all(|at| streams.iter().any(|id| id.loop_index() == at));
    while !both(&streams.lock().unwrap()) {
        let mut client = server.connect();
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(client.read(&mut [0]).unwrap(), 0);
    }
    let gone = streams.lock().unwrap().len();
    let mut client = server.connect();
    client.write_all(b"go").unwrap();
    assert_eq!(read(&mut client, 4), b"done");
    let told: Vec<_> = (0..gone).map(|_| errors.recv().unwrap()).collect();
    assert!(told.contains(&Err(StreamError::WrongLoop)), "{told:?}");
    assert!(told.contains(&Err(StreamError::Gone)), "{told:?}");
}

#[test]
fn outgoing_connections_are_served_like_those_that_came() {
    let echoes = Server::start(1, |context, what| {
        if let What::Receive(id) = what {
            echo(context, id);
        }
    });
    let target = Target::Tcp(echoes.address.parse().unwrap());
    // What comes from one side goes to the other; a stream's tag is the number of its partner.
    let proxy = Server::start(2, move |context, what| {
        let streams = context.streams();
        match what {
            What::Accept(id) => {
                let tag = id.raw() as usize;
                let other = streams
                    .connect(&target, Duration::from_secs(60), tag)
                    .unwrap();
                streams.set_tag(id, other.raw() as usize).unwrap();
            }
            What::Receive(id) => {
                let other = StreamId::from_raw(streams.tag(id).unwrap() as u64);
                let bytes = streams.peek(id).unwrap().to_vec();
                streams.consume(id, bytes.len()).unwrap();
                streams.send(other, &bytes).unwrap();
            }
            What::Close(id, _) => {
                let other = StreamId::from_raw(streams.tag(id).unwrap() as u64);
                let _ = streams.close(other);
            }
            _ => {}
        }
    });
    let mut clients: Vec<_> = (0..20).map(|_| proxy.connect()).collect();
    clients.iter_mut().for_each(ping);
    clients.iter_mut().for_each(ping);
    drop(clients);
    assert_eq!(proxy.engine.stats().streams_connected, 20);
}

#[test]
fn a_connection_that_cannot_be_made_is_told_once() {
    let closed = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    // A queue that is full: whoever comes now is left waiting.
    let full = &Listener::tcp(([127, 0, 0, 1], 0).into(), 1, 0).unwrap()[0];
    let full_address = full.local_tcp().unwrap();
    let _waiting: Vec<_> = (0..8)
        .map(|_| Socket::connect_tcp(full_address).unwrap())
        .collect();
    let (told, failures) = events();
    let server = Server::start(1, move |context, what| {
        let streams = context.streams();
        match what {
            What::Receive(id) => {
                let mut order = [0; 16];
                let len = streams.recv(id, &mut order).unwrap();
                let (target, timeout) = match &order[..len] {
                    b"refused" => (Target::Tcp(closed), 60_000),
                    b"missing" => (Target::Unix("/nonexistent/socket".into()), 60_000),
                    b"long" => (Target::Unix("x".repeat(200).into()), 60_000),
                    b"late" => (Target::Tcp(full_address), 20),
                    _ => (Target::Tcp(full_address), 60_000),
                };
                let timeout = Duration::from_millis(timeout);
                let new = streams.connect(&target, timeout, 7).unwrap();
                streams.send(new, b"queued").unwrap_or_default();
                if order.starts_with(b"given up") {
                    streams.close(new).unwrap();
                    streams.close(new).unwrap();
                }
            }
            What::ConnectFail(id, error) => {
                assert_eq!(streams.tag(id), Ok(7));
                told.tell(error);
            }
            What::Connect(id) => unreachable!("{id:?} is connected"),
            _ => {}
        }
    });
    let order = |order: &[u8]| {
        server.connect().write_all(order).unwrap();
        failures.recv().unwrap()
    };
    assert_eq!(order(b"refused"), io::ErrorKind::ConnectionRefused);
    assert_eq!(order(b"missing"), io::ErrorKind::NotFound);
    assert_eq!(order(b"late"), io::ErrorKind::TimedOut);
    let given_up = io::Error::from_raw_os_error(toolb_core::sys::socket::CANCELLED).kind();
    assert_eq!(order(b"given up"), given_up);
    assert_eq!(order(b"long"), io::ErrorKind::InvalidInput);
    let mut client = server.connect();
    client.write_all(b"stop").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
    server.engine.stop();
    assert_eq!(failures.recv().unwrap(), given_up);
    assert!(failures.try_recv().is_err());
    assert_eq!(server.engine.stats().streams_connected, 0);
}

/// A handler whose state on each loop begins with a connection to a queue that is full.
struct Early(SocketAddr);

impl Handler for Early {
    fn handle(&self, _: &mut Context<'_>, _: &Request<'_>, _: &mut Response) -> Step {
        Step::Done
    }

    fn make_state(&self, context: &mut Context<'_>) -> Option<Box<dyn Any>> {
        let timeout = Duration::from_secs(60);
        let to = Target::Tcp(self.0);
        context.streams().connect(&to, timeout, 0).unwrap();
        None
    }
}

#[test]
fn a_connection_that_the_state_of_a_route_begins_has_its_time_too() {
    let full = &Listener::tcp(([127, 0, 0, 1], 0).into(), 1, 0).unwrap()[0];
    let address = full.local_tcp().unwrap();
    let waiting: Vec<_> = (0..8)
        .map(|_| Socket::connect_tcp(address).unwrap())
        .collect();
    let (told, seen) = events();
    let mut routes = Routes::default();
    let early = Arc::new(Early(address));
    routes.inline.insert("GET", "/", early).unwrap();
    let mut engine = Engine::bind(one_loop(), routes, &[]).unwrap();
    let service = Probe::new(move |_: &mut Context<'_>, what| match what {
        What::Init => told.tell(None),
        What::Connect(_) => told.tell(Some(None)),
        What::ConnectFail(_, error) => told.tell(Some(Some(error))),
        _ => {}
    });
    engine
        .add_service(None, service, ServiceOptions::default())
        .unwrap();
    engine.start().unwrap();
    assert_eq!(seen.recv().unwrap(), None);
    // There is room, and the kernel tries again.
    drop(waiting);
    let told = loop {
        while full.accept().unwrap().is_some() {}
        match seen.try_recv() {
            Ok(told) => break told,
            Err(_) => std::thread::yield_now(),
        }
    };
    assert_eq!(told, Some(None));
}

#[test]
fn a_service_begins_and_ends_once_on_each_loop() {
    let (told, seen) = events();
    let server = Server::start(3, move |context, what| {
        let (name, streams) = match what {
            What::Init => ("init", context.streams().len()),
            What::Drain => ("drain", 0),
            What::Exit => ("exit", 0),
            _ => return,
        };
        told.tell((name, context.loop_index()));
        assert_eq!(streams, 0);
        let to = Target::Unix("/nonexistent".into());
        if name == "exit" {
            let refused = context.streams().connect(&to, Duration::ZERO, 0);
            assert_eq!(refused, Err(StreamError::Gone));
        }
    });
    let all = |expected: &str| {
        let mut loops: Vec<_> = (0..3)
            .map(|_| seen.recv().unwrap())
            .map(|(name, index)| {
                assert_eq!(name, expected);
                index
            })
            .collect();
        loops.sort_unstable();
        assert_eq!(loops, [0, 1, 2]);
    };
    all("init");
    server.engine.drain();
    all("drain");
    server.engine.control_events().wait(None).unwrap();
    assert_eq!(server.engine.next_control_event(), Some(ControlEvent::Idle));
    server.engine.stop();
    all("exit");
    server.engine.stop();
    assert!(seen.try_recv().is_err());
}

#[test]
fn a_drain_waits_for_streams_and_lets_them_say_goodbye() {
    let members: Arc<Mutex<Vec<StreamId>>> = Arc::default();
    let server = Server::start(1, move |context, what| match what {
        What::Accept(id) => {
            members.lock().unwrap().push(id);
            context.streams().send(id, b"welcome").unwrap();
        }
        What::Drain => {
            for member in members.lock().unwrap().iter() {
                context.streams().send(*member, b"goodbye").unwrap();
                context.streams().close(*member).unwrap();
            }
        }
        _ => {}
    });
    let mut client = server.connect();
    assert_eq!(read(&mut client, 7), b"welcome");
    server.engine.drain();
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, b"goodbye");
    assert!(TcpStream::connect(&server.address).is_err());
    drop(client);
    server.engine.control_events().wait(None).unwrap();
    assert_eq!(server.engine.next_control_event(), Some(ControlEvent::Idle));
}

#[test]
fn a_callback_that_takes_too_long_is_counted() {
    let config = EngineConfig {
        callback_budget: Duration::from_millis(2),
        ..one_loop()
    };
    let server = Server::with(config, ServiceOptions::default(), |context, what| {
        if let What::Receive(id) = what {
            let begun = Instant::now();
            if context.streams().peek(id) == Ok(b"work") {
                while begun.elapsed() < Duration::from_millis(3) {}
            }
            echo(context, id);
        }
    });
    let mut client = server.connect();
    client.write_all(b"work").unwrap();
    assert_eq!(read(&mut client, 4), b"work");
    // The loop counts after the echo is queued, so one more round tells that it has.
    ping(&mut client);
    assert!(server.engine.stats().stream_overruns >= 1);
}

#[test]
fn pinned_loops_stay_on_their_cpus() {
    let config = EngineConfig {
        loops: Some(2),
        pin_loops: true,
        ..EngineConfig::default()
    };
    let cpus = affinity::allowed().unwrap();
    let (told, seen) = events();
    let server = Server::with(config, ServiceOptions::default(), move |context, what| {
        let index = usize::from(context.loop_index());
        assert_eq!(
            affinity::current(),
            Some(cpus[index % cpus.len()]),
            "{what:?}"
        );
        if let What::Receive(id) = what {
            echo(context, id);
            told.tell(index);
        }
    });
    let mut loops = [false; 2];
    while loops != [true; 2] {
        ping(&mut server.connect());
        loops[seen.recv().unwrap()] = true;
    }
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
fn those_that_wait_when_the_engine_drains_are_told_before_the_drain() {
    let welcome = Arc::new(Mutex::new(0));
    let (told, seen) = events();
    let members = welcome.clone();
    let server = Server::with(
        one_loop(),
        ServiceOptions::default(),
        move |context, what| {
            match what {
                What::Receive(id) => {
                    // Holds the loop until the test has connected more and asked it to drain.
                    told.tell(0);
                    drop(members.lock().unwrap());
                    echo(context, id);
                }
                What::Accept(_) => told.tell(1),
                What::Drain => told.tell(2),
                _ => {}
            }
        },
    );
    let mut first = server.connect();
    assert_eq!(seen.recv().unwrap(), 1);
    let held = welcome.lock().unwrap();
    first.write_all(b"hold").unwrap();
    assert_eq!(seen.recv().unwrap(), 0);
    let _more = [server.connect(), server.connect()];
    server.engine.drain();
    drop(held);
    let order: Vec<_> = (0..3).map(|_| seen.recv().unwrap()).collect();
    assert_eq!(order, [1, 1, 2]);
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
