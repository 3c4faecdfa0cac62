//! Bodies both ways, under windows and in full rings.

use super::*;
use crate::consumer::exchange::LOW_WATER;

#[test]
fn a_stream_is_bounded_by_window_and_ring() {
    let (mut engine, mut consumer) = pair();
    engine.get(5);
    let id = take(&mut consumer);
    let total = 5 << 20;
    let data: Vec<u8> = (0..total).map(|at: usize| (at / 7) as u8).collect();
    let mut sent = 0;
    let mut received = Vec::new();
    let mut may_send = head(&mut consumer, id, b"", false, false) == Sent::Below;
    let mut ended = 0;
    let mut waits = 0;
    while ended == 0 {
        while may_send && sent < total {
            let end = total.min(sent + 50_000);
            let last = end == total;
            let answer = consumer
                .respond_body(id, &data[sent..end], last, last)
                .unwrap();
            may_send = answer == Sent::Below;
            sent = end;
        }
        for got in engine.drain() {
            received.extend_from_slice(got.body());
            ended += usize::from(got.header.flags & flags::END != 0);
            assert_eq!(
                got.header.flags & flags::END != 0,
                got.header.flags & flags::DONE != 0
            );
        }
        engine.grant(id, received.len() as u64 + u64::from(WINDOW));
        assert!(received.len() + LOW_WATER + 50_000 + (WINDOW as usize) >= sent);
        for event in poll(&mut consumer) {
            assert!(matches!(event, Event::Writable { .. }));
            waits += 1;
            may_send = true;
        }
    }
    assert!(received == data);
    assert!(waits > 10);
    assert_eq!((ended, consumer.in_flight()), (1, 0));
}

#[test]
fn one_large_response_goes_out_piece_by_piece() {
    let (mut engine, mut consumer) = pair_with(Geometry {
        rings: 1,
        slots: 4,
        request_capacity: 65536,
        response_capacity: 8192,
    });
    let mut ids = Vec::new();
    for slot in 0..4 {
        engine.get(slot);
        let id = take(&mut consumer);
        let body = vec![slot as u8; 100_000];
        assert_eq!(head(&mut consumer, id, &body, true, true), Sent::Above);
        ids.push(id);
    }
    let mut received = [0; 4];
    let mut done = 0;
    while done < 4 {
        let got = engine.drain();
        assert!(!got.is_empty(), "stuck at {received:?}");
        for got in got {
            let slot = usize::from(got.header.slot);
            assert!(got.body().iter().all(|byte| usize::from(*byte) == slot));
            received[slot] += got.body().len();
            done += usize::from(got.header.flags & flags::DONE != 0);
        }
        assert!(
            poll(&mut consumer).is_empty(),
            "nobody sends on after the end"
        );
    }
    assert_eq!(received, [100_000; 4]);
    assert_eq!(consumer.in_flight(), 0);
}

#[test]
fn the_window_stops_a_response_until_it_opens() {
    let (mut engine, mut consumer) = pair();
    let parts = RequestHeadParts {
        response_window: 10,
        ..get()
    };
    engine.request(1, &parts, flags::END);
    let id = take(&mut consumer);
    let body = vec![7; 10 + LOW_WATER + 5];
    assert_eq!(head(&mut consumer, id, &body, false, false), Sent::Above);
    assert_eq!(engine.only().body().len(), 10);
    assert!(consumer.arm(), "only the window can move");
    engine.grant(id, 14);
    assert!(consumer.lane.doorbell().wait(Some(Duration::ZERO)).unwrap());
    assert!(poll(&mut consumer).is_empty(), "still above");
    assert_eq!(engine.only().body().len(), 4);
    engine.grant(id, 15);
    let events = poll(&mut consumer);
    assert!(matches!(events[..], [Event::Writable { id: got }] if got == id));
    assert_eq!(engine.only().body().len(), 1);
    assert!(poll(&mut consumer).is_empty(), "reported once");
    engine.grant(id, 1 << 20);
    consumer.respond_body(id, b"end", true, true).unwrap();
    poll(&mut consumer);
    let got = engine.drain();
    let len: usize = got.iter().map(|got| got.body().len()).sum();
    assert_eq!(len, LOW_WATER + 3);
    assert_eq!(got.last().unwrap().header.flags, flags::END | flags::DONE);
    assert_eq!(consumer.in_flight(), 0);
}

#[test]
fn a_full_ring_is_waited_for() {
    let (mut engine, mut consumer) = pair_with(Geometry {
        rings: 1,
        slots: 8,
        request_capacity: 65536,
        response_capacity: 4096,
    });
    let mut answer = |engine: &mut Engine, slot| {
        engine.get(slot);
        let id = take(&mut consumer);
        head(&mut consumer, id, &[9; 1500], true, true);
    };
    for slot in 0..4 {
        answer(&mut engine, slot);
    }
    while !consumer.arm() {
        assert!(poll(&mut consumer).is_empty(), "small parts may still fit");
    }
    assert!(!engine.drain().is_empty());
    assert!(consumer.lane.doorbell().wait(Some(Duration::ZERO)).unwrap());
    let mut rest = 0;
    while consumer.in_flight() > 0 {
        consumer.clear_doorbell();
        poll(&mut consumer);
        rest += engine.drain().len();
    }
    assert!(rest >= 2);
    assert!(consumer.arm());
}

#[test]
fn an_upload_comes_as_fast_as_it_is_taken() {
    let (mut engine, mut consumer) = pair();
    let parts = RequestHeadParts {
        body: &[1; 1000],
        ..get()
    };
    let id = engine.request(2, &parts, 0);
    engine.loops[0].notice.changed();
    let events = poll(&mut consumer);
    assert!(matches!(
        events[..],
        [Event::Request {
            more_body: true,
            ..
        }]
    ));
    assert!(consumer.start(id));
    assert!(engine.loops[0].notice.changed(), "body may come: told so");
    assert_eq!(engine.loops[0].slots.request_granted(2), 65536);

    engine.body(id, &[2; 40_000], 0);
    engine.body(id, &[3; 24_536], 0);
    let events = poll(&mut consumer);
    let lens: Vec<_> = events
        .iter()
        .map(|event| match event {
            Event::Body {
                data, end: false, ..
            } => data.len(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(lens, [40_000, 24_536]);

    consumer.consumed(id, 1000);
    assert!(!engine.loops[0].notice.changed(), "not for a few bytes");
    consumer.consumed(id, 40_000);
    assert!(engine.loops[0].notice.changed());
    assert_eq!(engine.loops[0].slots.request_granted(2), 65536 + 41_000);

    engine.body(id, &[], flags::END);
    let events = poll(&mut consumer);
    assert!(matches!(&events[..], [Event::Body { data, end: true, .. }] if data.is_empty()));
    consumer.consumed(id, 24_536);
    assert!(!engine.loops[0].notice.changed(), "nothing more to grant");
    head(&mut consumer, id, b"thanks", true, true);
    // The engine had sent more before it saw the end.
    engine.body(id, b"late", 0);
    assert!(poll(&mut consumer).is_empty());
}

#[test]
fn expect_continue_opens_on_demand() {
    let (mut engine, mut consumer) = pair();
    let parts = RequestHeadParts {
        expect_continue: true,
        ..get()
    };
    let id = engine.request(2, &parts, 0);
    take(&mut consumer);
    assert_eq!(engine.loops[0].slots.request_granted(2), 0);
    engine.loops[0].notice.changed();
    consumer.want_body(id);
    assert!(engine.loops[0].notice.changed());
    assert_eq!(engine.loops[0].slots.request_granted(2), 65536);
    consumer.want_body(id);
    assert!(!engine.loops[0].notice.changed(), "once");
    engine.record(id, Kind::Cancelled as u8, b"", 0);
    assert!(matches!(
        poll(&mut consumer)[..],
        [Event::RequestAborted { .. }]
    ));
}

/// Nobody flushes while the loop blocks: what another of its callbacks grants is told by itself.
#[test]
fn a_grant_while_armed_is_told_at_once() {
    let (mut engine, mut consumer) = pair();
    let rang = |engine: &Engine| {
        let bell = engine.lane.doorbell_of_loop(0);
        let rang = bell.wait(Some(Duration::ZERO)).unwrap();
        bell.drain();
        rang
    };
    let mut sleeper = engine.status.sleeper(0);
    let parts = RequestHeadParts {
        expect_continue: true,
        ..get()
    };
    let id = engine.request(2, &parts, 0);
    take(&mut consumer);
    assert!(consumer.arm());
    rang(&engine);

    sleeper.arm();
    consumer.want_body(id);
    assert!(rang(&engine), "the body is wanted");
    assert_eq!(engine.loops[0].slots.request_granted(2), 65536);
    sleeper.disarm();
    engine.body(id, &[1; 40_000], 0);
    assert_eq!(poll(&mut consumer).len(), 1);
    assert!(consumer.arm());
    rang(&engine);

    sleeper.arm();
    consumer.consumed(id, 10);
    assert!(!rang(&engine), "not for a few bytes");
    consumer.consumed(id, 39_990);
    assert!(rang(&engine), "there is room for more of it");
    assert_eq!(engine.loops[0].slots.request_granted(2), 65536 + 40_000);
    consumer.consumed(id, 40_000);
    assert!(!rang(&engine), "once per sleep");
}

/// The other way round: the engine grants while the consumer sleeps.
#[test]
fn a_grant_wakes_who_waits_for_it() {
    let (mut engine, mut consumer) = pair();
    let id = engine.get(1);
    take(&mut consumer);
    let window = get().response_window as usize;
    let body = vec![7; 2 * window];
    assert_eq!(head(&mut consumer, id, &body, false, false), Sent::Above);
    assert!(consumer.arm());
    consumer.clear_doorbell();
    engine.drain();
    engine.grant(id, 2 * window as u64);
    let doorbell = consumer.lane.doorbell();
    assert!(doorbell.wait(Some(Duration::ZERO)).unwrap());
    assert!(matches!(poll(&mut consumer)[..], [Event::Writable { .. }]));
    let came: usize = engine.drain().iter().map(|got| got.body().len()).sum();
    assert_eq!(came, window);
}
