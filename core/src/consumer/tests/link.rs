//! Attaching, leaving, and what is made of an engine that breaks the rules.

use super::*;
use crate::message::{Hello, choose_abi};

#[test]
fn whoever_is_rung_for_is_seen_to_turn_though_there_is_nothing_to_do() {
    // An engine that waits for a file of this consumer looks for it, too.
    let (engine, mut consumer) = pair();
    let before = engine.loops[0].slots.tick();
    consumer.poll(8, &mut Vec::new()).unwrap();
    assert_ne!(engine.loops[0].slots.tick(), before);
}

#[test]
fn an_engine_that_breaks_the_rules_is_left_with_a_clear_text() {
    let broken = |act: &dyn Fn(&mut Engine, &mut Consumer)| {
        let (mut engine, mut consumer) = pair();
        act(&mut engine, &mut consumer);
        let error = consumer.poll(10, &mut Vec::new()).unwrap_err().to_string();
        assert_eq!(engine.control(), Control::Error(error.clone()));
        error
    };
    let unknown = ExchangeId {
        slot: 4,
        generation: 9,
    };
    let text = broken(&|engine, _| engine.body(unknown, b"x", 0));
    assert!(
        text.contains("a body for the unknown exchange 4:9"),
        "{text}"
    );
    let text = broken(&|engine, consumer| {
        engine.get(4);
        take(consumer);
        engine.get(4);
    });
    assert!(text.contains("still holds"), "{text}");
    let text = broken(&|engine, consumer| {
        engine.get(4);
        let id = take(consumer);
        head(consumer, id, b"", true, true);
        engine.generations[4] -= 1;
        engine.get(4);
    });
    assert!(text.contains("after exchange"), "{text}");
    let text = broken(&|engine, consumer| {
        engine.get(4);
        let id = take(consumer);
        engine.body(id, b"x", 0);
    });
    assert!(text.contains("after the body's end"), "{text}");
    let text = broken(&|engine, consumer| {
        let id = engine.request(4, &get(), 0);
        poll(consumer);
        engine.body(id, b"x", 0);
    });
    assert!(text.contains("before its start"), "{text}");
    let text = broken(&|engine, _| engine.record(unknown, 77, b"", flags::MUST_UNDERSTAND));
    assert!(text.contains("kind 77"), "{text}");
    let text = broken(&|engine, _| {
        engine.record(unknown, Kind::RequestHead as u8, b"short", 0);
    });
    assert!(text.contains("request 4:9"), "{text}");

    let (mut engine, mut consumer) = pair();
    engine.record(unknown, 77, b"from a later version", 0);
    assert!(poll(&mut consumer).is_empty());
}

#[test]
fn control_packets_and_the_hang_up() {
    let (mut engine, mut consumer) = pair();
    assert_eq!(consumer.control(), Ok(ControlEvent::None));
    consumer.ready();
    assert_eq!(engine.control(), Control::Ready);
    consumer.fail("no such module", true);
    assert!(matches!(
        engine.control(),
        Control::Failed {
            permanent: true,
            ..
        }
    ));
    let left = Some(Duration::from_secs(2));
    let drain = Control::Drain { left };
    engine.socket.send(&drain.encode(), &[]).unwrap();
    assert_eq!(consumer.control(), Ok(ControlEvent::Drain { left }));
    assert_eq!(engine.control(), Control::Draining);
    consumer.drained();
    assert_eq!(engine.control(), Control::Drained);

    engine.get(0);
    let running = take(&mut consumer);
    engine.get(1);
    let kept = take(&mut consumer);
    head(&mut consumer, kept, &[0; 300_000], true, true);
    engine.get(2);
    let half = take(&mut consumer);
    head(&mut consumer, half, &[0; 300_000], false, false);
    let waiting = engine.get(3);
    poll(&mut consumer);
    drop(engine);
    assert_eq!(consumer.control(), Ok(ControlEvent::HangUp));
    assert!(!consumer.arm());
    let events = poll(&mut consumer);
    assert!(matches!(
        events[..],
        [Event::Disconnected { id: first }, Event::Disconnected { id: second }]
            if first == half && second == running
    ));
    assert!(!consumer.start(waiting));
    consumer.done(running);
    consumer.done(half);
    assert_eq!(consumer.in_flight(), 0);
    assert_eq!(consumer.control(), Ok(ControlEvent::HangUp));
    assert!(poll(&mut consumer).is_empty());
}

#[test]
fn attaching_fails_with_a_clear_text() {
    let options = ConsumerOptions {
        timeout: Duration::from_millis(20),
        ..ConsumerOptions::default()
    };
    for bad in ["", "fd:", "fd:-1", "fd:x", "bus", "unix:bus"] {
        let error = Consumer::attach(bad, &options).unwrap_err();
        assert!(error.to_string().contains("is no address"), "{error}");
    }
    let error = Consumer::attach("fd:987654", &options).unwrap_err();
    assert!(error.to_string().contains("names no inherited"), "{error}");

    let attach = |packet: Option<Control>| {
        let (ours, theirs) = Seqpacket::pair().unwrap();
        match packet {
            Some(packet) => ours.send(&packet.encode(), &[]).unwrap(),
            None => drop(ours),
        }
        Consumer::attach_to(theirs, &options)
            .unwrap_err()
            .to_string()
    };
    assert!(attach(None).contains("hung up"));
    let hello = Hello {
        abi_min: 9,
        abi_max: 9,
        ..Hello::default()
    };
    let refusal = choose_abi(&hello).unwrap_err();
    assert!(attach(Some(Control::Error(refusal.clone()))).contains(&refusal));
    let later = Welcome {
        abi: (2, 0),
        ..Welcome::default()
    };
    let text = attach(Some(Control::Welcome(later)));
    assert!(
        text.contains("bus ABI 2") && text.contains("bus ABI 1"),
        "{text}"
    );
    assert!(text.contains("upgrade toolb in the worker's environment"));
    let bare = Welcome {
        abi: ABI,
        ..Welcome::default()
    };
    assert!(attach(Some(Control::Welcome(bare))).contains("descriptors"));
    assert!(attach(Some(Control::Drain { left: None })).contains("neither WELCOME nor ERROR"));
    let (_ours, theirs) = Seqpacket::pair().unwrap();
    let error = Consumer::attach_to(theirs, &options).unwrap_err();
    assert!(
        error.to_string().contains("did not answer within 20ms"),
        "{error}"
    );
}
