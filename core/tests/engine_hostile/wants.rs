//! What is wanted of streams that are not its own, or none, or not in words.

use std::io::{Read, Write};
use std::net::TcpStream;

use toolb_core::config::Timeouts;
use toolb_core::message::{TimeUp, Wait, Want};
use toolb_core::sys::socket::Socket;

use super::support::dial;
use super::*;

const SOON: Duration = Duration::from_millis(20);

fn config() -> EngineConfig {
    EngineConfig {
        loops: Some(1),
        timeouts: Timeouts {
            stream_idle: Duration::ZERO,
            ..Timeouts::default()
        },
        ..EngineConfig::default()
    }
}

fn want(serial: u32, wait: impl Into<Wait>) -> [u8; Want::LEN] {
    let wait = wait.into();
    Want {
        target: 1,
        wait,
        serial,
    }
    .encode()
}

/// Two consumers with a stream each.
struct Scene {
    server: Server,
    bad: Peer,
    its: RecordHeader,
    its_client: TcpStream,
    other: Peer,
    others: RecordHeader,
    others_client: TcpStream,
}

impl Scene {
    fn set() -> Self {
        let (server, raw) = Server::with_streams(config());
        let mut bad = Peer::with_time(&server, 1);
        let its_client = dial(&raw);
        let its = begin(&mut bad);
        let mut other = Peer::with_time(&server, 1);
        let others_client = dial(&raw);
        let others = begin(&mut other);
        Self {
            server,
            bad,
            its,
            its_client,
            other,
            others,
            others_client,
        }
    }

    /// It was given up for this; the other consumer, its stream and its time were not touched.
    fn ends_for(mut self, rule: &str) {
        let reason = until(&self.server, |event| match event {
            ControlEvent::Poisoned { lane_id, reason } => {
                assert_eq!(lane_id, self.bad.handle.lane_id());
                ControlFlow::Break(reason)
            }
            other => panic!("{other:?}"),
        });
        assert!(reason.contains(rule), "{reason}");
        self.server.engine.lane_down(&self.bad.handle);
        let error = self.its_client.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        self.others_time();
    }

    /// The other one is told of its own time, and only of that.
    fn others_time(&mut self) {
        self.other.say(self.others, Kind::Want, 0, &want(7, SOON));
        let (_, payload) = self.other.next(Kind::Timeout);
        let expected = TimeUp {
            received: 0,
            serial: 7,
            by_default: false,
        };
        assert_eq!(TimeUp::decode(&payload), Ok(expected));
        self.others_client.write_all(b"x").unwrap();
        let ring = self.other.lane.ring(0);
        ring.requests.refresh().unwrap();
        let (_, payload) = self.other.next(Kind::Data);
        assert_eq!(payload, b"x");
    }
}

/// Takes up the stream that comes next.
fn begin(peer: &mut Peer) -> RecordHeader {
    let (it, _) = peer.next(Kind::Open);
    peer.lane.grant_request(it.slot, 1 << 20);
    assert!(peer.start(it));
    peer.lane.ring(0).notice.bump();
    peer.publish();
    it
}

#[test]
fn of_streams_that_are_not_its_own() {
    type Change = fn(&mut RecordHeader);
    let wrong: [(Change, &str); 5] = [
        // A slot that it does not hold, an earlier and a later use of that which it holds, a slot that
        // its lane does not have, a loop that there is not.
        (|it| it.slot = (it.slot + 1) % 16, "not in flight"),
        (|it| it.generation -= 1, ""),
        (|it| it.generation += 1, "not in flight"),
        (|it| it.slot = 16, ""),
        (|it| it.owner = 1, ""),
    ];
    for (change, rule) in wrong {
        let mut scene = Scene::set();
        let mut header = scene.its;
        change(&mut header);
        scene.bad.say(header, Kind::Want, 0, &want(1, SOON));
        scene.ends_for(rule);
    }
}

#[test]
fn in_words_that_mean_nothing_or_after_its_last() {
    let short = &want(1, SOON)[..Want::LEN - 1];
    for payload in [b"", &b"want"[..], short] {
        let mut scene = Scene::set();
        scene.bad.say(scene.its, Kind::Want, 0, payload);
        scene.ends_for("a bad want");
    }
    let mut scene = Scene::set();
    scene.bad.write(scene.its, Kind::Data as u8, END, b"over");
    scene.bad.say(scene.its, Kind::Want, 0, &want(1, SOON));
    let reason = until(&scene.server, |event| match event {
        ControlEvent::Poisoned { reason, .. } => ControlFlow::Break(reason),
        other => panic!("{other:?}"),
    });
    assert!(reason.contains("after its end"), "{reason}");
    // What was said before counts.
    let mut rest = Vec::new();
    scene.its_client.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, b"over");
    scene.others_time();
}

#[test]
fn of_a_request() {
    let server = Server::start(config());
    let mut peer = Peer::with_time(&server, 1);
    let mut client = connect(&server.address);
    ask(&mut client, CLIENTS_PATH);
    let it = peer.request();
    assert!(peer.start(it));
    peer.say(it, Kind::Want, 0, &want(1, SOON));
    let reason = until(&server, |event| match event {
        ControlEvent::Poisoned { reason, .. } => ControlFlow::Break(reason),
        other => panic!("{other:?}"),
    });
    assert!(reason.contains("for a request"), "{reason}");
    server.engine.lane_down(&peer.handle);
    assert_eq!(receive(&mut client).unwrap().status, 502);
}

#[test]
fn of_one_whose_client_has_gone() {
    let (server, raw) = Server::with_streams(config());
    let mut peer = Peer::with_time(&server, 1);
    let (client, _) = Socket::connect_tcp(raw.parse().unwrap()).unwrap();
    let it = begin(&mut peer);
    client.reset_on_close();
    drop(client);
    // Before the engine has seen that, and after: it counts for nothing.
    while !peer.lane.cancelled(it.slot, it.generation) {
        peer.say(it, Kind::Want, 0, &want(1, SOON));
        std::thread::yield_now();
    }
    for serial in 2..100 {
        peer.say(it, Kind::Want, 0, &want(serial, SOON));
    }
    peer.say(RecordHeader { aux: 1, ..it }, Kind::Cancelled, 0, b"");
    let _client = dial(&raw);
    let it = begin(&mut peer);
    peer.say(it, Kind::Want, 0, &want(1, SOON));
    let (told, _) = peer.next(Kind::Timeout);
    assert_eq!((told.slot, told.generation), (it.slot, it.generation));
    assert_eq!(server.engine.stats().poisoned, 0);
}

#[test]
fn again_and_again_each_time_sooner() {
    let mut scene = Scene::set();
    let ages = |serial: u32| Wait::For(Duration::from_secs(u64::from(1_000_000_000 - serial)));
    for round in 0..200 {
        for serial in round * 500..(round + 1) * 500 {
            let payload = want(serial, ages(serial));
            scene.bad.write(scene.its, Kind::Want as u8, 0, &payload);
        }
        scene.bad.publish();
        // The engine takes all of it before there is room for more.
        while !scene.bad.lane.ring(0).responses.has_room(60_000) {
            std::thread::yield_now();
        }
    }
    scene.others_time();
    scene.bad.say(scene.its, Kind::Want, 0, &want(0, SOON));
    scene.bad.next(Kind::Timeout);
    assert_eq!(scene.server.engine.stats().poisoned, 0);
}
