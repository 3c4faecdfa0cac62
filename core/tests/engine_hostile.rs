//! A consumer that writes what it likes into its rings: its lane is given up, or the record counts for
//! nothing; its client gets exactly one answer all the same, and the lane beside it does not notice.
#![forbid(unsafe_code)]

mod hostile;
mod support;

use std::io::{BufRead, Write};
use std::ops::ControlFlow;
use std::time::Duration;

use hostile::*;
use support::http::{connect, receive};
use support::{Random, Server};
use toolb_core::bus::{self, Kind, RecordHeader, flags::*};
use toolb_core::config::EngineConfig;
use toolb_core::consumer::ConsumerOptions;
use toolb_core::engine::{ControlEvent, Engine};
use toolb_core::message::{Request, encode_response_head};
use toolb_core::sys::memory;

/// How many consumers say whatever they like.
const SEEDS: u64 = 300;
const NOT_CANCELLED: Lane = Lane::Poisoned("nobody called back");
const NOT_IN_FLIGHT: Lane = Lane::Poisoned("not in flight");

// Cancelled.

#[test]
fn cancelled_without_having_been_called_back() {
    let got = act(NOT_CANCELLED, |peer, it| {
        peer.say(it, Kind::Cancelled, DONE, b"");
    });
    assert_eq!(got, Got::Elsewhere);
}

#[test]
fn cancelled_after_its_start() {
    for aux in [0, 1] {
        let got = act(NOT_CANCELLED, |peer, it| {
            assert!(peer.start(it));
            peer.say(RecordHeader { aux, ..it }, Kind::Cancelled, DONE, b"");
        });
        assert_eq!(got, died());
    }
}

#[test]
fn cancelled_in_the_middle_of_its_response() {
    for aux in [0, 1] {
        let got = act(NOT_CANCELLED, |peer, it| {
            assert!(peer.start(it));
            peer.say(it, Kind::ResponseHead, 0, &head(100, &[], b"some"));
            peer.say(RecordHeader { aux, ..it }, Kind::Cancelled, DONE, b"");
        });
        assert_eq!(got, Got::Cut);
    }
}

#[test]
fn cancelled_twice() {
    let server = Server::start(EngineConfig::default());
    let mut peer = Peer::attach(&server);
    let mut leaver = connect(&server.address);
    ask(&mut leaver, "/");
    let it = peer.request();
    drop(leaver);
    while !peer.lane.cancelled(it.slot, it.generation) {
        std::thread::yield_now();
    }
    peer.say(it, Kind::Cancelled, DONE, b"");
    peer.say(it, Kind::Cancelled, DONE, b"");
    until(&server, |event| match event {
        ControlEvent::Poisoned { .. } => ControlFlow::Break(()),
        other => panic!("{other:?}"),
    });
}

/// A server that has called a request back from one lane and had it answered by the other; what the
/// first says to that.
fn act_when_called_back(misbehave: impl FnOnce(&mut Peer, RecordHeader)) {
    let server = Server::start(EngineConfig::default());
    let mut peer = Peer::attach(&server);
    let mut client = connect(&server.address);
    ask(&mut client, CLIENTS_PATH);
    let it = peer.request();
    let mut beside = server.attach(ConsumerOptions::default(), support::Echo::default());
    assert_eq!(receive(&mut client).unwrap().body, b"GET /c? ");
    misbehave(&mut peer, it);
    server.engine.lane_down(&peer.handle);
    until(&server, |event| match event {
        ControlEvent::Released { .. } => ControlFlow::Break(()),
        other => panic!("{other:?}"),
    });
    assert_eq!(server.engine.stats().poisoned, 0);
    ask(&mut client, "/next");
    assert_eq!(receive(&mut client).unwrap().body, b"GET /next? ");
    beside.kill(&server.engine);
}

#[test]
fn called_back_and_answered_all_the_same() {
    act_when_called_back(|peer, it| {
        assert!(!peer.start(it));
        peer.say(it, Kind::ResponseHead, END | DONE, &plain(b"too late"));
    });
    act_when_called_back(|peer, it| {
        peer.say(it, Kind::ResponseHead, 0, &head(-1, &[], b"too"));
        peer.say(it, Kind::ResponseBody, END, b"late");
        peer.say(it, Kind::ResponseBody, DONE, b"");
    });
}

#[test]
fn called_back_and_aborted_or_cancelled_as_if_it_had_run() {
    act_when_called_back(|peer, it| peer.say(it, Kind::ResponseAbort, DONE, b""));
    act_when_called_back(|peer, it| {
        peer.say(RecordHeader { aux: 1, ..it }, Kind::Cancelled, DONE, b"");
    });
}

#[test]
fn what_has_answered_without_a_start_is_not_called_back() {
    let server = Server::start(EngineConfig::default());
    let mut peer = Peer::attach(&server);
    let [mut first, mut second] = [(); 2].map(|()| connect(&server.address));
    ask(&mut first, CLIENTS_PATH);
    peer.request();
    ask(&mut second, CLIENTS_PATH);
    let it = peer.request();
    peer.say(it, Kind::ResponseHead, 0, &head(6, &[], b"one"));
    assert!(!second.fill_buf().unwrap().is_empty());
    // not-sync: by then both have waited long enough to be called back
    std::thread::sleep(Duration::from_millis(10));
    // The first one is overdue in front of a lane that has room, and the second is behind it.
    let mut beside = server.attach(ConsumerOptions::default(), support::Echo::default());
    assert_eq!(receive(&mut first).unwrap().body, b"GET /c? ");
    peer.say(it, Kind::ResponseBody, END | DONE, b"two");
    assert_eq!(receive(&mut second).unwrap().body, b"onetwo");
    beside.kill(&server.engine);
}

// The end.

#[test]
fn a_start_out_of_order_gives_its_window_back() {
    let server = Server::start(EngineConfig::default());
    let mut peer = Peer::with_window(&server, 2);
    let mut clients = [(); 4].map(|()| connect(&server.address));
    for (number, client) in (1..).zip(&mut clients) {
        ask(client, CLIENTS_PATH);
        while server.engine.stats().requests < number {
            std::thread::yield_now();
        }
    }
    peer.request();
    // The first one stays where it is; each of the others lets the next one in.
    for _ in 1..3 {
        let it = peer.request();
        assert!(peer.start(it));
        peer.lane.ring(0).notice.bump();
        peer.publish();
    }
    peer.request();
}

#[test]
fn what_found_no_room_in_a_ring_has_not_been_sent() {
    const LANES: usize = 3;
    let server = Server::start(EngineConfig::default());
    let body = "x".repeat(16 * 1024);
    let length = body.len();
    let request = format!("POST /c HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n{body}");
    let mut peer = Peer::attach(&server);
    // As many as the lane has slots for, and one more than its ring has room for.
    let mut clients: Vec<_> = (0..16).map(|_| connect(&server.address)).collect();
    for (number, client) in (1..).zip(&mut clients) {
        client.get_mut().write_all(request.as_bytes()).unwrap();
        while server.engine.stats().requests < number {
            std::thread::yield_now();
        }
    }
    for lane in 1..=LANES {
        // All that finds room is shown at once.
        while !peer.lane.ring(0).requests.refresh().unwrap() {
            std::thread::yield_now();
        }
        server.engine.lane_down(&peer.handle);
        if lane < LANES {
            peer = Peer::attach(&server);
        }
    }
    let mut last = server.attach(ConsumerOptions::default(), support::Echo::default());
    let answers: Vec<_> = clients
        .iter_mut()
        .map(|it| receive(it).unwrap().status)
        .collect();
    let died = answers.iter().filter(|status| **status == 502).count();
    assert_eq!(died, 15, "{answers:?}");
    last.kill(&server.engine);
}

#[test]
fn done_without_an_end() {
    let got = act(Lane::Kept, |peer, it| {
        assert!(peer.start(it));
        peer.say(it, Kind::Ping, DONE, b"");
    });
    assert_eq!(got, failed());
    let got = act(Lane::Poisoned("without a head"), |peer, it| {
        assert!(peer.start(it));
        peer.say(it, Kind::ResponseBody, DONE, b"");
    });
    assert_eq!(got, died());
}

#[test]
fn done_without_an_end_after_a_head() {
    let got = act(Lane::Kept, |peer, it| {
        assert!(peer.start(it));
        peer.say(it, Kind::ResponseHead, DONE, &head(100, &[], b"some"));
    });
    assert_eq!(got, Got::Cut);
}

#[test]
fn an_end_after_done() {
    let got = act(NOT_IN_FLIGHT, |peer, it| {
        assert!(peer.start(it));
        peer.say(it, Kind::ResponseHead, END | DONE, &plain(b"right"));
        peer.say(it, Kind::ResponseBody, END, b"");
    });
    assert_eq!(got, right("right"));
}

#[test]
fn a_response_after_done() {
    let got = act(NOT_IN_FLIGHT, |peer, it| {
        assert!(peer.start(it));
        peer.say(it, Kind::ResponseHead, END | DONE, &plain(b"right"));
        peer.say(it, Kind::ResponseHead, END | DONE, &plain(b"again"));
    });
    assert_eq!(got, right("right"));
}

#[test]
fn a_body_after_the_end() {
    let got = act(Lane::Poisoned("goes on after its end"), |peer, it| {
        assert!(peer.start(it));
        peer.say(it, Kind::ResponseHead, END, &plain(b"right"));
        peer.say(it, Kind::ResponseBody, 0, b"more");
    });
    assert_eq!(got, right("right"));
}

#[test]
fn an_end_after_the_end() {
    let got = act(Lane::Kept, |peer, it| {
        assert!(peer.start(it));
        peer.say(it, Kind::ResponseHead, END, &plain(b"right"));
        peer.say(it, Kind::ResponseBody, END, b"");
        peer.say(it, Kind::ResponseBody, END | DONE, b"");
    });
    assert_eq!(got, right("right"));
}

#[test]
fn an_end_that_comes_too_soon() {
    let got = act(Lane::Kept, |peer, it| {
        assert!(peer.start(it));
        peer.say(it, Kind::ResponseHead, 0, &head(100, &[], b"some"));
        peer.say(it, Kind::ResponseBody, END | DONE, b"more");
    });
    assert_eq!(got, Got::Cut);
}

// Heads and bodies.

#[test]
fn a_second_head() {
    let got = act(Lane::Poisoned("second response head"), |peer, it| {
        assert!(peer.start(it));
        peer.say(it, Kind::ResponseHead, 0, &head(-1, &[], b"one"));
        peer.say(it, Kind::ResponseHead, END | DONE, &plain(b"two"));
    });
    assert_eq!(got, Got::Cut);
}

#[test]
fn a_body_without_a_head() {
    let got = act(Lane::Poisoned("without a head"), |peer, it| {
        assert!(peer.start(it));
        peer.say(it, Kind::ResponseBody, END | DONE, b"body");
    });
    assert_eq!(got, died());
}

#[test]
fn bytes_of_a_stream_for_a_request() {
    let got = act(Lane::Poisoned("of a stream for a request"), |peer, it| {
        assert!(peer.start(it));
        peer.say(it, Kind::Data, END | DONE, b"body");
    });
    assert_eq!(got, died());
}

#[test]
fn a_body_longer_than_its_content_length() {
    for flags in [0, END, END | DONE] {
        let got = act(Lane::Kept, |peer, it| {
            assert!(peer.start(it));
            peer.say(it, Kind::ResponseHead, 0, &head(5, &[], b"fi"));
            peer.say(it, Kind::ResponseBody, flags, b"ve and more");
            if flags == 0 {
                peer.say(it, Kind::ResponseBody, END | DONE, b"and more");
            }
        });
        assert_eq!(got, right("five "));
    }
}

#[test]
fn a_body_beyond_its_window() {
    let got = act(Lane::Poisoned("window"), |peer, it| {
        assert!(peer.start(it));
        peer.write(it, Kind::ResponseHead as u8, 0, &head(-1, &[], b""));
        for _ in 0..3 {
            peer.write(it, Kind::ResponseBody as u8, 0, &[b'x'; 60_000]);
        }
        peer.publish();
    });
    assert_eq!(got, Got::Cut);
}

#[test]
fn a_head_that_is_none() {
    for payload in [&b""[..], b"HTTP/1.1 200 OK\r\n\r\n", &[0xFF; 300]] {
        let got = act(Lane::Poisoned("a bad response head"), |peer, it| {
            assert!(peer.start(it));
            peer.say(it, Kind::ResponseHead, END | DONE, payload);
        });
        assert_eq!(got, died());
    }
}

#[test]
fn a_head_that_would_be_two_responses() {
    let fields: [(&[u8], &[u8]); 4] = [
        (b"a", b"b\r\nc: d"),
        (b"a\r\n\r\nHTTP/1.1 200 OK", b"b"),
        (b"a: b", b"c"),
        (b"content-length", b"7"),
    ];
    for field in fields {
        let got = act(Lane::Kept, |peer, it| {
            assert!(peer.start(it));
            let payload = head(1, &[field, (b"content-length", b"1")], b"x");
            peer.say(it, Kind::ResponseHead, END | DONE, &payload);
        });
        assert_eq!(got, failed(), "{field:?}");
    }
}

#[test]
fn a_status_that_is_none_or_only_announces_one() {
    for status in [0, 42, 100, 101, 199, 1000, u16::MAX] {
        let got = act(Lane::Kept, |peer, it| {
            assert!(peer.start(it));
            let mut payload = Vec::new();
            let none = std::iter::empty();
            encode_response_head(&mut payload, status, 1, none, b"x").unwrap();
            peer.say(it, Kind::ResponseHead, END | DONE, &payload);
        });
        assert_eq!(got, failed(), "{status}");
    }
}

// Abort.

#[test]
fn records_after_an_abort() {
    let got = act(Lane::Kept, |peer, it| {
        assert!(peer.start(it));
        peer.say(it, Kind::ResponseAbort, 0, b"");
        peer.say(it, Kind::ResponseHead, 0, &head(-1, &[], b"never"));
        peer.say(it, Kind::ResponseBody, END, b"mind");
        peer.say(it, Kind::ResponseBody, DONE, b"");
    });
    assert_eq!(got, failed());
}

#[test]
fn records_after_an_abort_that_was_the_last_word() {
    let got = act(NOT_IN_FLIGHT, |peer, it| {
        assert!(peer.start(it));
        peer.say(it, Kind::ResponseAbort, DONE, b"");
        peer.say(it, Kind::ResponseHead, END | DONE, &plain(b"right"));
    });
    assert_eq!(got, failed());
}

#[test]
fn an_abort_after_the_end() {
    let got = act(Lane::Poisoned("goes on after its end"), |peer, it| {
        assert!(peer.start(it));
        peer.say(it, Kind::ResponseHead, END, &plain(b"right"));
        peer.say(it, Kind::ResponseAbort, DONE, b"");
    });
    assert_eq!(got, right("right"));
}

// Other exchanges.

#[test]
fn a_response_for_a_slot_that_is_free() {
    let got = act(NOT_IN_FLIGHT, |peer, it| {
        let other = RecordHeader {
            slot: (it.slot + 1) % 16,
            ..it
        };
        peer.say(other, Kind::ResponseHead, END | DONE, &plain(b"whose?"));
    });
    assert_eq!(got, Got::Elsewhere);
}

#[test]
fn a_response_for_another_generation() {
    for generation in [0, u32::MAX] {
        let got = act(NOT_IN_FLIGHT, |peer, it| {
            let other = RecordHeader { generation, ..it };
            peer.say(other, Kind::ResponseHead, END | DONE, &plain(b"whose?"));
        });
        assert_eq!(got, Got::Elsewhere);
    }
}

#[test]
fn a_response_for_the_exchange_before() {
    let server = Server::start(EngineConfig::default());
    let mut peer = Peer::attach(&server);
    let mut client = connect(&server.address);
    let mut last: Option<RecordHeader> = None;
    loop {
        ask(&mut client, CLIENTS_PATH);
        let it = peer.request();
        if let Some(last) = last.filter(|last| last.slot == it.slot) {
            assert_ne!(last.generation, it.generation);
            peer.say(last, Kind::ResponseHead, END | DONE, &plain(b"before"));
            break;
        }
        peer.say(it, Kind::ResponseHead, END | DONE, &plain(b"right"));
        assert_eq!(receive(&mut client).unwrap().body, b"right");
        last = last.or(Some(it));
    }
    until(&server, |event| match event {
        ControlEvent::Poisoned { .. } => ControlFlow::Break(()),
        other => panic!("{other:?}"),
    });
    server.engine.lane_down(&peer.handle);
    let mut second = server.attach(ConsumerOptions::default(), support::Echo::default());
    assert_eq!(hear(&mut client), Got::Elsewhere);
    second.kill(&server.engine);
}

#[test]
fn a_response_of_another_loop_or_for_no_slot() {
    let wrong: [fn(&mut RecordHeader); 2] = [|it| it.owner = 1, |it| it.slot = 16];
    for change in wrong {
        let got = act(Lane::Poisoned(""), |peer, it| {
            let mut other = it;
            change(&mut other);
            peer.say(other, Kind::ResponseHead, END | DONE, &plain(b"whose?"));
        });
        assert_eq!(got, Got::Elsewhere);
    }
}

// Kinds.

#[test]
fn kinds_that_nobody_knows_or_only_the_engine_says() {
    for kind in [
        200,
        Kind::RequestHead as u8,
        Kind::RequestBody as u8,
        Kind::Open as u8,
    ] {
        let got = act(Lane::Kept, |peer, it| {
            assert!(peer.start(it));
            peer.write(it, kind, 0, b"what is this?");
            peer.say(it, Kind::ResponseHead, END | DONE, &plain(b"right"));
        });
        assert_eq!(got, right("right"));
        let got = act(Lane::Poisoned("must be understood"), |peer, it| {
            assert!(peer.start(it));
            peer.write(it, kind, MUST_UNDERSTAND, b"what is this?");
            peer.say(it, Kind::ResponseHead, END | DONE, &plain(b"right"));
        });
        assert_eq!(got, died());
    }
}

// Words.

#[test]
fn grants_of_a_request_that_make_no_sense() {
    let upload = format!(
        "POST /c HTTP/1.1\r\nhost: x\r\ncontent-length: 300000\r\n\r\n{}",
        "x".repeat(300_000)
    );
    let got = act_on(Lane::Kept, &upload, |peer, it| {
        let mut taken = 0;
        for total in [u64::MAX, 0, 1, u64::MAX - 1, 1 << 63] {
            peer.lane.grant_request(it.slot, total);
            let first = taken == 0;
            if first {
                assert!(peer.start(it));
            }
            peer.lane.ring(0).notice.bump();
            bus::fence();
            peer.lane.ring(0).waker.kick().unwrap();
            if first {
                taken += peer.next(Kind::RequestBody).1.len();
            }
        }
        while taken < 200_000 {
            taken += peer.next(Kind::RequestBody).1.len();
        }
        peer.say(it, Kind::ResponseHead, END | DONE, &plain(b"right"));
    });
    assert_eq!(got, right("right"));
}

#[test]
fn a_grant_counts_what_came_with_the_head() {
    const GRANTED: usize = 20_000;
    let server = Server::start(EngineConfig {
        request_window: 5000,
        ..EngineConfig::default()
    });
    let mut peer = Peer::attach(&server);
    let mut client = connect(&server.address);
    let head = "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 60000\r\n\r\n";
    let upload = format!("{head}{}", "x".repeat(60_000));
    client.get_mut().write_all(upload.as_bytes()).unwrap();
    let (it, payload) = peer.next(Kind::RequestHead);
    let mut taken = Request::decode(payload).unwrap().body().len();
    assert!((1..=5000).contains(&taken), "{taken}");
    peer.lane.grant_request(it.slot, GRANTED as u64);
    assert!(peer.start(it));
    peer.lane.ring(0).notice.bump();
    peer.publish();
    while taken < GRANTED {
        taken += peer.next(Kind::RequestBody).1.len();
    }
    assert_eq!(taken, GRANTED);
}

// Files.

#[test]
fn a_file_that_never_comes() {
    for flags in [END, END | DONE] {
        let got = act(Lane::Kept, |peer, it| {
            assert!(peer.start(it));
            peer.say(it, Kind::ResponseFile, flags, &by_file(0, 10));
        });
        assert_eq!(got, died());
    }
}

#[test]
fn a_response_by_file_that_is_none() {
    for payload in [&b""[..], &[0; 20], &[0xFF; 60]] {
        let got = act(Lane::Poisoned("a bad response by file"), |peer, it| {
            assert!(peer.start(it));
            peer.say(it, Kind::ResponseFile, END | DONE, payload);
        });
        assert_eq!(got, died());
    }
    let got = act(Lane::Poisoned("does not end with it"), |peer, it| {
        assert!(peer.start(it));
        peer.say(it, Kind::ResponseFile, 0, &by_file(0, 10));
    });
    assert_eq!(got, died());
}

#[test]
fn a_response_by_file_and_another() {
    let got = act(Lane::Poisoned("second response head"), |peer, it| {
        assert!(peer.start(it));
        peer.say(it, Kind::ResponseHead, 0, &head(100, &[], b"some"));
        peer.say(it, Kind::ResponseFile, END | DONE, &by_file(0, 10));
    });
    assert_eq!(got, Got::Cut);
    let got = act(Lane::Poisoned("goes on after its end"), |peer, it| {
        assert!(peer.start(it));
        peer.say(it, Kind::ResponseFile, END, &by_file(0, 10));
        peer.say(it, Kind::ResponseFile, END | DONE, &by_file(0, 10));
    });
    assert_eq!(got, died());
    let got = act(NOT_IN_FLIGHT, |peer, it| {
        assert!(peer.start(it));
        peer.say(it, Kind::ResponseFile, END | DONE, &by_file(0, 10));
        peer.say(it, Kind::ResponseFile, END | DONE, &by_file(0, 10));
    });
    assert_eq!(got, died());
}

// Anything.

/// Writes records of all sorts about exchanges it has, had or never had, until it is given up or has
/// said enough.
fn babble(engine: &Engine, peer: &mut Peer, seed: u64, mut held: Vec<RecordHeader>) {
    let mut random = Random(seed);
    let kinds = [
        Kind::ResponseHead,
        Kind::ResponseHead,
        Kind::ResponseHead,
        Kind::ResponseBody,
        Kind::ResponseBody,
        Kind::ResponseBody,
        Kind::ResponseFile,
        Kind::ResponseFile,
        Kind::ResponseAbort,
        Kind::Cancelled,
        Kind::ResponseTrailers,
        Kind::Pong,
    ];
    for _ in 0..random.below(60) {
        if held.is_empty() {
            break;
        }
        let which = random.below(held.len() as u64) as usize;
        let mut it = held[which];
        match random.below(60) {
            0 => it.generation = it.generation.wrapping_add(random.below(3) as u32),
            1 => it.slot = random.below(16) as u16,
            2..9 => {
                peer.start(it);
            }
            9 => peer.lane.grant_request(it.slot, random.below(u64::MAX)),
            _ => {}
        }
        let kind = kinds[random.below(kinds.len() as u64) as usize];
        let flags = [0, 0, 0, END, END | DONE, END | DONE, DONE][random.below(7) as usize];
        let body = &[b'y'; 3000][..random.below(3000) as usize];
        it.aux = random.below(2) as u16;
        let payload = match kind {
            Kind::ResponseHead => {
                let length = [-1, body.len() as i64, random.below(3000) as i64];
                head(length[random.below(3) as usize], &[], body)
            }
            Kind::ResponseFile => by_file(random.below(30), random.below(3000)),
            _ => body.to_vec(),
        };
        if kind == Kind::ResponseFile && random.below(3) > 0 {
            let file = memory::create(c"test", 2900).unwrap();
            // There may be no such loop.
            let _ = engine.lane_file(
                &peer.handle,
                random.below(9) as u16 / 8,
                it.slot,
                it.generation,
                file,
            );
        }
        peer.write(it, kind as u8, flags, &payload);
        if (flags & DONE != 0 || kind == Kind::Cancelled) && random.below(9) > 0 {
            // Mostly it keeps to the rule that this is the end.
            held.swap_remove(which);
        }
        if random.below(3) == 0 {
            peer.publish();
        }
        if random.below(8) == 0 {
            std::thread::yield_now();
        }
    }
    peer.publish();
}

#[test]
fn whatever_a_consumer_says_every_client_gets_one_answer() {
    let mut poisoned = 0;
    for seed in 0..SEEDS {
        let server = Server::start(EngineConfig::default());
        let mut peer = Peer::attach(&server);
        let mut clients: Vec<_> = (0..6).map(|_| connect(&server.address)).collect();
        for client in &mut clients {
            ask(client, CLIENTS_PATH);
        }
        let held: Vec<_> = (0..6).map(|_| peer.request()).collect();
        // From now on what is not started may be called back.
        let mut beside = server.attach(ConsumerOptions::default(), support::Echo::default());
        babble(&server.engine, &mut peer, seed, held);
        server.engine.lane_down(&peer.handle);
        until(&server, |event| match event {
            ControlEvent::Released { .. } => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        });
        for mut client in clients {
            hear(&mut client);
        }
        poisoned += server.engine.stats().poisoned;
        beside.kill(&server.engine);
    }
    assert!((1..SEEDS).contains(&poisoned), "{poisoned}");
}
