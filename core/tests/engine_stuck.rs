//! Consumers that stand still, and those that only seem to.
#![forbid(unsafe_code)]

mod support;

use std::io::Write;
use std::net::TcpStream;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use support::{Fate, Handle, Server, Silent, Stuck, read_response};
use toolb_core::config::{EngineConfig, Timeouts};
use toolb_core::consumer::{Consumer, ConsumerOptions, ExchangeId};
use toolb_core::engine::ControlEvent;
use toolb_core::message::Request;

const GRACE: Duration = Duration::from_millis(100);

fn config(stuck_if_busy: bool, response: Duration) -> EngineConfig {
    EngineConfig {
        stuck_if_busy,
        timeouts: Timeouts {
            response,
            stuck_grace: GRACE,
            ..Timeouts::default()
        },
        ..EngineConfig::default()
    }
}

fn ask(server: &Server, path: &str) -> TcpStream {
    let mut stream = server.connect();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    stream
}

/// Asks until a request has begun: neither was it late before, nor has `other` got it.
fn begin(
    server: &Server,
    begun: &Receiver<()>,
    mut other: impl FnMut(&TcpStream) -> bool,
) -> TcpStream {
    loop {
        let stream = ask(server, "/stuck");
        stream.set_nonblocking(true).unwrap();
        while stream.peek(&mut [0]).is_err() && !other(&stream) {
            if begun.try_recv().is_ok() {
                stream.set_nonblocking(false).unwrap();
                return stream;
            }
            std::thread::yield_now();
        }
    }
}

/// Collects what the supervisor is told until this was told so many times.
fn told(
    server: &Server,
    wanted: impl Fn(&ControlEvent) -> bool,
    times: usize,
) -> Vec<ControlEvent> {
    let mut all = Vec::new();
    loop {
        server.engine.control_events().drain();
        while let Some(event) = server.engine.next_control_event() {
            all.push(event);
            if all.iter().filter(|event| wanted(event)).count() == times {
                return all;
            }
        }
        server.engine.control_events().wait(None).unwrap();
    }
}

fn is_stuck(event: &ControlEvent) -> bool {
    matches!(event, ControlEvent::Stuck { .. })
}

#[test]
fn who_stands_still_is_told_of_without_any_deadline_and_who_sleeps_is_not() {
    let server = Server::start(config(true, Duration::ZERO));
    // It waits for something, with a request in its hands: most of what applications do.
    let (events, seen) = channel();
    let mut sleeps = server.attach(ConsumerOptions::default(), Silent { events });
    let mut waiting = vec![ask(&server, "/")];
    assert_eq!(seen.recv(), Ok("request"));
    let (handler, begun, fate) = Stuck::new();
    let mut stuck = server.attach(ConsumerOptions::default(), handler);
    // Until the loop knows this one, the other gets them.
    let mut held = begin(&server, &begun, |stream| {
        let is_seen = seen.try_recv().is_ok();
        waiting.extend(is_seen.then(|| stream.try_clone().unwrap()));
        is_seen
    });
    let lane_id = stuck.lane.lane_id();
    for event in told(&server, is_stuck, 3) {
        assert_eq!(event, ControlEvent::Stuck { lane_id });
    }
    fate.send(Fate::Answer).unwrap();
    assert_eq!(read_response(&mut held).1, b"GET /stuck? ");
    drop(waiting);
    assert_eq!(seen.recv(), Ok("disconnected"));
    sleeps.kill(&server.engine);
    stuck.kill(&server.engine);
}

#[test]
fn who_may_take_its_time_is_stuck_only_with_an_overdue_request() {
    let patient = Server::start(config(false, Duration::ZERO));
    let (handler, begun, may_go_on) = Stuck::new();
    let mut works = patient.attach(ConsumerOptions::default(), handler);
    let mut held = ask(&patient, "/stuck");
    begun.recv().unwrap();
    // Another engine measures the time.
    let short = Server::start(config(false, GRACE));
    let (handler, begun, fate) = Stuck::new();
    let mut stuck = short.attach(ConsumerOptions::default(), handler);
    let mut overdue = begin(&short, &begun, |_| false);
    assert_eq!(read_response(&mut overdue).0, 504);
    assert!(told(&short, is_stuck, 3).iter().all(is_stuck));
    assert_eq!(patient.engine.next_control_event(), None);
    may_go_on.send(Fate::Answer).unwrap();
    assert_eq!(read_response(&mut held).1, b"GET /stuck? ");
    fate.send(Fate::Die).unwrap();
    works.kill(&patient.engine);
    stuck.bury(&short.engine);
}

#[test]
fn nobody_looks_if_no_time_is_given() {
    let mut config = config(true, GRACE);
    config.timeouts.stuck_grace = Duration::ZERO;
    let unwatched = Server::start(config);
    let (handler, begun, fate) = Stuck::new();
    let mut first = unwatched.attach(ConsumerOptions::default(), handler);
    let mut held = begin(&unwatched, &begun, |_| false);
    assert_eq!(read_response(&mut held).0, 504);
    let (clock, begun, may_go_on) = Stuck::new();
    let watched = Server::start(self::config(true, Duration::ZERO));
    let mut second = watched.attach(ConsumerOptions::default(), clock);
    let mut other = ask(&watched, "/stuck");
    begun.recv().unwrap();
    told(&watched, is_stuck, 2);
    assert_eq!(unwatched.engine.next_control_event(), None);
    may_go_on.send(Fate::Answer).unwrap();
    read_response(&mut other);
    fate.send(Fate::Die).unwrap();
    first.bury(&unwatched.engine);
    second.kill(&watched.engine);
}

/// Answers `/background` and goes on with it; does not care whether anybody waits for the others.
struct Hoarder(Sender<&'static str>);

impl Handle for Hoarder {
    fn request(&mut self, consumer: &mut Consumer, id: ExchangeId, request: Request, _: bool) {
        if request.path() == b"/background" {
            let none = std::iter::empty::<(&[u8], &[u8])>();
            consumer
                .respond_head(id, 200, -1, none, b"", true, false)
                .unwrap();
        }
        self.0.send("request").unwrap();
    }

    fn disconnected(&mut self, _: &mut Consumer, _: ExchangeId) {
        self.0.send("disconnected").unwrap();
    }
}

#[test]
fn a_quarter_of_the_slots_held_for_nobody_is_a_crowd() {
    let server = Server::start(config(true, Duration::ZERO));
    let (events, seen) = channel();
    let options = ConsumerOptions {
        slots: 8,
        ..ConsumerOptions::default()
    };
    let mut worker = server.attach(options, Hoarder(events));
    // What goes on after its response does so by right.
    for _ in 0..3 {
        assert_eq!(read_response(&mut ask(&server, "/background")).0, 200);
        assert_eq!(seen.recv(), Ok("request"));
    }
    let leave = || {
        let stream = ask(&server, "/");
        assert_eq!(seen.recv(), Ok("request"));
        drop(stream);
        assert_eq!(seen.recv(), Ok("disconnected"));
    };
    let stays = ask(&server, "/");
    assert_eq!(seen.recv(), Ok("request"));
    leave();
    leave();
    let lane_id = worker.lane.lane_id();
    let crowded = ControlEvent::Crowded {
        lane_id,
        left: 2,
        slots: 8,
    };
    // As long as nothing is done about it.
    assert_eq!(
        told(&server, |event| *event == crowded, 2),
        [crowded.clone(), crowded.clone()]
    );
    server.engine.lane_draining(&worker.lane);
    drop(stays);
    assert_eq!(seen.recv(), Ok("disconnected"));
    let settled = ControlEvent::Settled { lane_id };
    // Those with a right to go on still do.
    worker.kill(&server.engine);
    let rest = told(
        &server,
        |event| matches!(event, ControlEvent::Released { .. }),
        1,
    );
    assert!(!rest.contains(&settled), "{rest:?}");
}

#[test]
fn a_closed_crowd_is_settled_when_nobody_waits_any_more() {
    let server = Server::start(config(true, Duration::ZERO));
    let (events, seen) = channel();
    let options = ConsumerOptions {
        slots: 4,
        ..ConsumerOptions::default()
    };
    let mut worker = server.attach(options, Hoarder(events));
    let (stays, leaves) = (ask(&server, "/"), ask(&server, "/"));
    assert_eq!(seen.recv(), Ok("request"));
    assert_eq!(seen.recv(), Ok("request"));
    drop(leaves);
    assert_eq!(seen.recv(), Ok("disconnected"));
    let is_crowded = |event: &ControlEvent| matches!(event, ControlEvent::Crowded { .. });
    told(&server, is_crowded, 1);
    server.engine.lane_draining(&worker.lane);
    drop(stays);
    let settled = |event: &ControlEvent| matches!(event, ControlEvent::Settled { .. });
    told(&server, settled, 1);
    worker.kill(&server.engine);
}
