//! Records of other exchanges, of kinds that do not belong here, and words that make no sense.

use super::*;

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
