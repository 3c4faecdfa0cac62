//! What clients get when consumers stand still, die or are too slow, and consumers when clients do.
#![forbid(unsafe_code)]

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::BorrowedFd;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use support::loopback::{address_of, any_port, to_consumers};
use support::{Echo, Fate, Server, Silent, Stuck, read_response};
use toolb_core::bus::{ConsumerLane, LaneState};
use toolb_core::config::{EngineConfig, Timeouts};
use toolb_core::consumer::ConsumerOptions;
use toolb_core::engine::{ControlEvent, Engine, Request, Response, Step, Toll};
use toolb_core::sys::affinity;

fn ask(server: &Server, path: &str) -> TcpStream {
    let mut stream = server.connect();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    stream
}

fn short(timeouts: Timeouts) -> EngineConfig {
    EngineConfig {
        timeouts,
        ..EngineConfig::default()
    }
}

fn wait_for(server: &Server, wanted: impl Fn(&ControlEvent) -> bool) {
    loop {
        server.engine.control_events().drain();
        while let Some(event) = server.engine.next_control_event() {
            if wanted(&event) {
                return;
            }
        }
        server.engine.control_events().wait(None).unwrap();
    }
}

#[test]
fn what_waits_in_front_of_a_stuck_consumer_is_called_back() {
    let server = Server::start(EngineConfig::default());
    let (stuck, begun, fate) = Stuck::new();
    let mut first = server.attach(ConsumerOptions::default(), stuck);
    let mut held = ask(&server, "/stuck");
    begun.recv().unwrap();
    // They are sent to the only consumer there is, which does not look.
    let mut waiting: Vec<_> = (0..20).map(|id| ask(&server, &format!("/{id}"))).collect();
    let mut second = server.attach(ConsumerOptions::default(), Echo::default());
    for (id, stream) in waiting.iter_mut().enumerate() {
        assert_eq!(read_response(stream).1, format!("GET /{id}? ").into_bytes());
    }
    fate.send(Fate::Answer).unwrap();
    assert_eq!(read_response(&mut held).1, b"GET /stuck? ");
    // The slots of those called back are free again: the first consumer goes on alone.
    second.kill(&server.engine);
    wait_for(&server, |event| {
        matches!(event, ControlEvent::Released { .. })
    });
    for id in 0..2000 {
        let path = format!("/again/{id}");
        let mut stream = ask(&server, &path);
        assert_eq!(
            read_response(&mut stream).1,
            format!("GET {path}? ").into_bytes()
        );
    }
    first.kill(&server.engine);
}

#[test]
fn nobody_is_left_without_an_answer_when_the_engine_ends() {
    let server = Server::start(EngineConfig::default());
    let mut queued = ask(&server, "/stuck");
    let (stuck, begun, fate) = Stuck::new();
    while server.engine.waiting() == 0 {
        std::thread::yield_now();
    }
    let mut works = server.attach(ConsumerOptions::default(), stuck);
    begun.recv().unwrap();
    let mut sent = ask(&server, "/sent");
    while server.engine.stats().requests < 2 {
        std::thread::yield_now();
    }
    server.engine.cut_off();
    for stream in [&mut queued, &mut sent] {
        let (status, body) = read_response(stream);
        assert_eq!(
            (status, body),
            (503, b"the server is about to end\n".to_vec())
        );
        assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    }
    // Whoever comes later is cut off by the end itself.
    let mut late = ask(&server, "/late");
    while server.engine.stats().requests < 3 {
        std::thread::yield_now();
    }
    server.engine.stop();
    assert_eq!(read_response(&mut late).0, 503);
    fate.send(Fate::Answer).unwrap();
    works.kill(&server.engine);
}

#[test]
fn the_end_of_a_consumer_is_told_with_what_became_of_its_requests() {
    let server = Server::start(EngineConfig::default());
    let (stuck, begun, fate) = Stuck::new();
    let mut works = server.attach(ConsumerOptions::default(), stuck);
    let mut first = ask(&server, "/stuck");
    begun.recv().unwrap();
    let mut second = ask(&server, "/waits");
    while server.engine.stats().requests < 2 {
        std::thread::yield_now();
    }
    fate.send(Fate::Die).unwrap();
    works.bury(&server.engine);
    assert_eq!(read_response(&mut first).0, 502);
    wait_for(&server, |event| {
        let &ControlEvent::Released { toll, .. } = event else {
            return false;
        };
        let expected = Toll {
            failed: 1,
            cut: 0,
            moved: 1,
        };
        assert_eq!(toll, expected);
        true
    });
    let mut heir = server.attach(ConsumerOptions::default(), Echo::default());
    assert_eq!(read_response(&mut second).0, 200);
    heir.kill(&server.engine);
}

#[test]
fn that_nobody_is_there_is_told_to_who_wants_to_know() {
    let server = Server::start(EngineConfig::default());
    let is_told = || server.engine.next_control_event() == Some(ControlEvent::Deserted);
    let mut first = ask(&server, "/first");
    while server.engine.waiting() == 0 {
        std::thread::yield_now();
    }
    assert!(!is_told());
    server.engine.seek_deserters();
    // By whoever of the two was first to see the other.
    wait_for(&server, |event| *event == ControlEvent::Deserted);
    // Once each time.
    let mut second = ask(&server, "/second");
    while server.engine.waiting() == 1 {
        std::thread::yield_now();
    }
    assert!(!is_told());
    server.engine.seek_deserters();
    wait_for(&server, |event| *event == ControlEvent::Deserted);
    let mut works = server.attach(ConsumerOptions::default(), Echo::default());
    assert_eq!(read_response(&mut first).0, 200);
    assert_eq!(read_response(&mut second).0, 200);
    server.engine.seek_deserters();
    assert!(!is_told());
    works.kill(&server.engine);
    let _third = ask(&server, "/third");
    wait_for(&server, |event| *event == ControlEvent::Deserted);
}

#[test]
fn who_waits_behind_the_last_consumer_is_deserted_when_it_leaves() {
    let server = Server::start(EngineConfig::default());
    let (stuck, begun, fate) = Stuck::new();
    let one = ConsumerOptions {
        slots: 1,
        ..ConsumerOptions::default()
    };
    let mut works = server.attach(one, stuck);
    let mut first = ask(&server, "/stuck");
    begun.recv().unwrap();
    server.engine.seek_deserters();
    let _second = ask(&server, "/second");
    while server.engine.waiting() == 0 {
        std::thread::yield_now();
    }
    assert_eq!(server.engine.next_control_event(), None);
    server.engine.lane_draining(&works.lane);
    fate.send(Fate::Answer).unwrap();
    assert_eq!(read_response(&mut first).0, 200);
    works.kill(&server.engine);
    wait_for(&server, |event| *event == ControlEvent::Deserted);
}

#[test]
fn a_stuck_consumer_is_the_last_resort_until_it_moves() {
    let server = Server::start(EngineConfig::default());
    let (stuck, begun, fate) = Stuck::new();
    let mut first = server.attach(ConsumerOptions::default(), stuck);
    let mut held = ask(&server, "/stuck");
    begun.recv().unwrap();
    let (events, seen) = channel();
    let mut second = server.attach(ConsumerOptions::default(), Silent { events });
    // Soon the second has more than the first, which nevertheless gets no more of them.
    let _waiting: Vec<_> = (0..20)
        .map(|id| {
            let stream = ask(&server, &format!("/{id}"));
            assert_eq!(seen.recv(), Ok("request"));
            stream
        })
        .collect();
    let recalled = server.engine.stats().recalled;
    assert!((1..5).contains(&recalled), "{recalled}");
    fate.send(Fate::Answer).unwrap();
    assert_eq!(read_response(&mut held).1, b"GET /stuck? ");
    // It moves again, which the engine sees once it has let go of what was called back; then it has
    // the fewest.
    let mut strayed = Vec::new();
    let mut answered = false;
    while !answered {
        let mut next = ask(&server, "/next");
        next.set_nonblocking(true).unwrap();
        let gone_to_the_second = loop {
            if seen.try_recv().is_ok() {
                break true;
            }
            if next.peek(&mut [0]).is_ok() {
                break false;
            }
            std::thread::yield_now();
        };
        if gone_to_the_second {
            strayed.push(next);
            continue;
        }
        next.set_nonblocking(false).unwrap();
        assert_eq!(read_response(&mut next).1, b"GET /next? ");
        answered = true;
    }
    first.kill(&server.engine);
    second.kill(&server.engine);
}

#[test]
fn a_dead_consumers_begun_request_is_a_502_and_the_others_are_answered() {
    let server = Server::start(EngineConfig::default());
    let (stuck, begun, fate) = Stuck::new();
    let mut first = server.attach(ConsumerOptions::default(), stuck);
    let mut held = ask(&server, "/stuck");
    begun.recv().unwrap();
    let mut waiting: Vec<_> = (0..40).map(|id| ask(&server, &format!("/{id}"))).collect();
    fate.send(Fate::Die).unwrap();
    first.bury(&server.engine);
    assert_eq!(read_response(&mut held).0, 502);
    let mut second = server.attach(ConsumerOptions::default(), Echo::default());
    for (id, stream) in waiting.iter_mut().enumerate() {
        assert_eq!(read_response(stream).1, format!("GET /{id}? ").into_bytes());
    }
    second.kill(&server.engine);
}

#[test]
fn what_has_not_begun_may_meet_any_number_of_dying_consumers() {
    let server = Server::start(EngineConfig::default());
    let deaths = 5;
    let mut kill: Vec<_> = Vec::new();
    let mut behind: Vec<_> = Vec::new();
    for number in 0..deaths {
        let (handler, begun, fate) = Stuck::new();
        let mut dies = server.attach(ConsumerOptions::default(), handler);
        if number == 0 {
            kill.push(ask(&server, "/stuck"));
            begun.recv().unwrap();
            // In this order they reach each consumer: first what kills it, then the innocent.
            for _ in 1..deaths {
                kill.push(ask(&server, "/stuck"));
                wait_for_requests(&server, kill.len() as u64);
            }
            behind.extend((0..4).map(|id| ask(&server, &format!("/{id}"))));
            wait_for_requests(&server, (kill.len() + behind.len()) as u64);
        } else {
            begun.recv().unwrap();
        }
        fate.send(Fate::Die).unwrap();
        dies.bury(&server.engine);
    }
    for stream in &mut kill {
        assert_eq!(read_response(stream).0, 502);
    }
    let mut lives = server.attach(ConsumerOptions::default(), Echo::default());
    for (id, stream) in behind.iter_mut().enumerate() {
        assert_eq!(read_response(stream).1, format!("GET /{id}? ").into_bytes());
    }
    lives.kill(&server.engine);
}

#[test]
fn what_kills_consumers_before_it_begins_is_given_up() {
    let server = Server::start(EngineConfig::default());
    let mut stream = ask(&server, "/");
    let copy = |fd: BorrowedFd<'_>| fd.try_clone_to_owned().unwrap();
    for _ in 0..3 {
        let lane = server.engine.new_lane(8, 8, 8, 0).unwrap();
        let fds = lane.fds().into_iter().map(copy).collect();
        let mut consumer = ConsumerLane::open(fds).unwrap();
        server.engine.lane_up(&lane);
        while !consumer.ring(0).requests.refresh().unwrap() {
            std::thread::yield_now();
        }
        // It dies as soon as it has seen it.
        server.engine.lane_down(&lane);
    }
    assert_eq!(read_response(&mut stream).0, 502);
    assert_eq!(server.engine.stats().worker_died, 1);
}

/// Waits until so many requests have come.
fn wait_for_requests(server: &Server, requests: u64) {
    while server.engine.stats().requests < requests {
        std::thread::yield_now();
    }
}

#[test]
fn an_overdue_response_is_a_504_and_the_consumer_is_told() {
    let server = Server::start(short(Timeouts {
        response: Duration::from_millis(50),
        ..Timeouts::default()
    }));
    let (events, seen) = channel();
    let mut worker = server.attach(ConsumerOptions::default(), Silent { events });
    // Of one that is late before it has begun the consumer never hears; and after some of them it gets
    // no more before it has looked.
    let mut answers = Vec::new();
    while seen.try_recv().is_err() {
        answers.push(read_response(&mut ask(&server, "/")).0);
    }
    assert!(answers.contains(&504), "{answers:?}");
    assert!(answers.iter().all(|status| [503, 504].contains(status)));
    while seen.recv().unwrap() != "disconnected" {}
    worker.kill(&server.engine);
}

#[test]
fn a_consumer_learns_that_its_client_has_left() {
    let server = Server::start(EngineConfig::default());
    let (events, seen) = channel();
    let mut worker = server.attach(ConsumerOptions::default(), Silent { events });
    let stream = ask(&server, "/");
    assert_eq!(seen.recv(), Ok("request"));
    drop(stream);
    assert_eq!(seen.recv(), Ok("disconnected"));
    worker.kill(&server.engine);
}

#[test]
fn without_a_consumer_a_few_requests_wait() {
    let server = Server::start(EngineConfig {
        queue_size: 2,
        ..EngineConfig::default()
    });
    let mut waiting: Vec<_> = (0..2).map(|_| ask(&server, "/")).collect();
    while server.engine.waiting() < 2 {
        std::thread::yield_now();
    }
    assert_eq!(read_response(&mut ask(&server, "/")).0, 503);
    let stats = server.engine.stats();
    assert_eq!((stats.overloaded, stats.queue_timeouts), (1, 0));
    let mut worker = server.attach(ConsumerOptions::default(), Echo::default());
    for stream in &mut waiting {
        assert_eq!(read_response(stream).0, 200);
    }
    worker.kill(&server.engine);
}

#[test]
fn without_a_consumer_requests_wait_for_a_while_only() {
    let server = Server::start(EngineConfig {
        queue_timeout: Duration::from_millis(50),
        ..EngineConfig::default()
    });
    let mut streams: Vec<_> = (0..2).map(|_| ask(&server, "/")).collect();
    for stream in &mut streams {
        assert_eq!(read_response(stream).0, 503);
    }
    let stats = server.engine.stats();
    assert_eq!((stats.overloaded, stats.queue_timeouts), (0, 2));
}

#[test]
fn whom_nobody_serves_within_the_time_for_a_response_may_ask_again() {
    let server = Server::start(EngineConfig {
        queue_timeout: Duration::from_secs(3600),
        timeouts: Timeouts {
            response: Duration::from_millis(50),
            ..Timeouts::default()
        },
        ..EngineConfig::default()
    });
    // It is not the application that was late: it has never heard of it.
    assert_eq!(read_response(&mut ask(&server, "/")).0, 503);
    let stats = server.engine.stats();
    assert_eq!((stats.timed_out, stats.queue_timeouts), (0, 1));
}

#[test]
fn a_consumer_that_leaves_before_it_came_up_gets_no_requests() {
    let mut server = Server::bind(EngineConfig {
        queue_timeout: Duration::from_millis(50),
        ..EngineConfig::default()
    });
    let leaves = server.engine.new_lane(8, 8, 8, 0).unwrap();
    let copy = |fd: BorrowedFd<'_>| fd.try_clone_to_owned().unwrap();
    let seen = ConsumerLane::open(leaves.fds().into_iter().map(copy).collect()).unwrap();
    server.engine.lane_up(&leaves);
    server.engine.lane_draining(&leaves);
    // Only now the loop learns that it came up.
    server.engine.start().unwrap();
    assert_eq!(read_response(&mut ask(&server, "/")).0, 503);
    assert_eq!(seen.state(), LaneState::Draining);
}

#[test]
fn a_request_that_does_not_come_whole_is_a_408() {
    let server = Server::start(short(Timeouts {
        request_header: Duration::from_millis(50),
        request_body: Duration::from_millis(50),
        ..Timeouts::default()
    }));
    let mut worker = server.attach(ConsumerOptions::default(), Echo::default());
    for part in [
        "GET / HTTP/1.1\r\n",
        "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nabc",
    ] {
        let answer = loop {
            let mut stream = server.connect();
            stream.write_all(part.as_bytes()).unwrap();
            let mut answer = String::new();
            // Whoever has said nothing in time is sent away without a word, as after a pause before this.
            if stream.read_to_string(&mut answer).is_ok() && !answer.is_empty() {
                break answer;
            }
        };
        assert!(answer.starts_with("HTTP/1.1 408 "), "{part:?} {answer:?}");
        assert!(answer.contains("connection: close\r\n"), "{answer}");
    }
    worker.kill(&server.engine);
}

#[test]
fn an_idle_connection_is_closed_without_a_word() {
    let server = Server::start(short(Timeouts {
        keep_alive: Duration::from_millis(50),
        ..Timeouts::default()
    }));
    let mut worker = server.attach(ConsumerOptions::default(), Echo::default());
    let mut stream = ask(&server, "/");
    assert_eq!(read_response(&mut stream).0, 200);
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, b"");
    worker.kill(&server.engine);
}

#[test]
fn a_body_is_asked_for_only_when_the_application_wants_it() {
    let server = Server::start(EngineConfig::default());
    let mut worker = server.attach(ConsumerOptions::default(), Echo::default());
    let mut stream = server.connect();
    stream
        .write_all(
            b"POST /e HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\nexpect: 100-continue\r\n\r\n",
        )
        .unwrap();
    let mut interim = [0; 25];
    stream.read_exact(&mut interim).unwrap();
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"body").unwrap();
    assert_eq!(read_response(&mut stream).1, b"POST /e? body");
    worker.kill(&server.engine);
}

#[test]
fn an_answer_does_not_wait_for_what_its_consumer_does_next() {
    // On one processor, where the loop goes to sleep before the consumer that it has rung for wakes.
    // The threads that are made from here on have it from this one.
    affinity::pin(affinity::allowed().unwrap()[0]).unwrap();
    let (hold, held) = channel::<Receiver<()>>();
    let held = Mutex::new(held);
    let holds = move |_: &Request<'_>, _: &mut Response| {
        let go_on = held.lock().unwrap().recv().unwrap();
        let _ = go_on.recv();
        Step::Done
    };
    let mut routes = to_consumers();
    let inserted = routes.inline.insert("GET", "/hold", Arc::new(holds));
    inserted.unwrap();
    // Nothing else is to wake the loop.
    let day = Duration::from_secs(86_400);
    let config = short(Timeouts {
        response: day,
        keep_alive: day,
        request_header: day,
        request_body: day,
        send_idle: day,
        stuck_grace: Duration::ZERO,
        ..Timeouts::default()
    });
    let mut engine = Engine::bind(config, routes, &[any_port()]).unwrap();
    engine.start().unwrap();
    let address = address_of(&engine);
    let server = Server { engine, address };
    let (stuck, begun, fate) = Stuck::new();
    let mut worker = server.attach(ConsumerOptions::default(), stuck);
    for _ in 0..10 {
        read_response(&mut ask(&server, "/first"));
        // All three reach the loop, and so the consumer, which sleeps, at once.
        let (go_on, waits) = channel();
        hold.send(waits).unwrap();
        let mut holding = ask(&server, "/hold");
        let mut quick = ask(&server, "/quick");
        let (mut slow, mut last) = (ask(&server, "/stuck"), ask(&server, "/last"));
        drop(go_on);
        begun.recv().unwrap();
        assert_eq!(read_response(&mut quick).1, b"GET /quick? ");
        fate.send(Fate::Answer).unwrap();
        for stream in [&mut holding, &mut slow, &mut last] {
            assert_eq!(read_response(stream).0, 200);
        }
    }
    worker.kill(&server.engine);
}
