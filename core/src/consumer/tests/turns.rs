//! Turns of the consumer: how much it takes, for whom it sleeps and whom it wakes.

use super::*;

#[test]
fn arming_rechecks() {
    let (mut engine, mut consumer) = pair();
    assert!(consumer.arm());
    engine.get(0);
    assert!(consumer.lane.doorbell().wait(Some(Duration::ZERO)).unwrap());
    consumer.clear_doorbell();
    consumer.disarm();
    assert!(!consumer.arm(), "a request waits");
    assert!(!engine.loops[0].waker.is_asleep());
    let id = take(&mut consumer);
    assert!(consumer.arm());
    engine.cancel(id);
    assert!(!consumer.arm(), "a notice waits");
    assert_eq!(poll(&mut consumer).len(), 1);
    assert!(consumer.arm());
    assert!(engine.loops[0].waker.is_asleep());
    poll(&mut consumer);
    assert!(!engine.loops[0].waker.is_asleep());
}

#[test]
fn the_budget_leaves_the_rest_for_later() {
    let (mut engine, mut consumer) = pair();
    for slot in 0..5 {
        engine.get(slot);
    }
    let mut events = Vec::new();
    assert_eq!(consumer.poll(2, &mut events), Ok(2));
    assert!(!consumer.arm());
    assert_eq!(consumer.poll(2, &mut events), Ok(2));
    assert_eq!(consumer.poll(2, &mut events), Ok(1));
    assert_eq!(consumer.poll(2, &mut events), Ok(0));
    assert!(consumer.arm());
}

#[test]
fn a_sleeping_loop_is_kicked_for_half_of_what_is_in_flight() {
    let (mut engine, mut consumer) = pair();
    let mut sleeper = engine.status.sleeper(0);
    for slot in 0..8 {
        engine.get(slot);
    }
    let ids: Vec<_> = poll(&mut consumer)
        .into_iter()
        .map(|event| match event {
            Event::Request { id, .. } => id,
            other => panic!("{other:?}"),
        })
        .collect();
    for id in &ids {
        assert!(consumer.start(*id));
    }
    sleeper.arm();
    // The clock may make it ring earlier: only the upper bound is certain.
    let mut rang_at = 0;
    for (count, id) in ids.iter().enumerate() {
        head(&mut consumer, *id, b"", true, true);
        let rang = engine.lane.doorbell_of_loop(0);
        if rang_at == 0 && rang.wait(Some(Duration::ZERO)).unwrap() {
            rang_at = count + 1;
        }
    }
    assert!((1..=4).contains(&rang_at), "{rang_at}");
    assert_eq!(engine.drain().len(), 8);
    engine.lane.doorbell_of_loop(0).drain();
    sleeper.disarm();

    // One response of two is not kicked for, except before idling.
    engine.get(0);
    engine.get(1);
    engine.get(2);
    let events = poll(&mut consumer);
    sleeper.arm();
    for event in events {
        let Event::Request { id, .. } = event else {
            panic!()
        };
        assert!(consumer.start(id));
        if id.slot == 0 {
            head(&mut consumer, id, b"", true, true);
        }
    }
    assert!(consumer.arm());
    let bell = engine.lane.doorbell_of_loop(0);
    assert!(bell.wait(Some(Duration::ZERO)).unwrap());
}

#[test]
fn a_loop_that_has_slept_since_before_is_kicked_at_once() {
    let (mut engine, mut consumer) = pair();
    let mut sleeper = engine.status.sleeper(0);
    for slot in 0..8 {
        engine.get(slot);
    }
    let mut ids = Vec::new();
    for event in poll(&mut consumer) {
        let Event::Request { id, .. } = event else {
            panic!()
        };
        assert!(consumer.start(id));
        ids.push(id);
    }
    // The application waits for something else, which wakes it.
    assert!(consumer.arm());
    sleeper.arm();
    assert!(poll(&mut consumer).is_empty());
    head(&mut consumer, ids[0], b"", true, true);
    let bell = engine.lane.doorbell_of_loop(0);
    assert!(bell.wait(Some(Duration::ZERO)).unwrap());
}

#[test]
fn starts_are_told_if_the_engine_asks() {
    let (mut engine, mut consumer) = pair();
    let mut sleeper = engine.status.sleeper(0);
    engine.loops[0].requests.want_starts(true);
    engine.get(0);
    sleeper.arm();
    take(&mut consumer);
    consumer.flush(false);
    let bell = engine.lane.doorbell_of_loop(0);
    assert!(bell.wait(Some(Duration::ZERO)).unwrap());
    assert!(engine.loops[0].notice.changed());
}

#[test]
fn every_loop_has_its_own_rings() {
    let (mut engine, mut consumer) = pair_with(Geometry {
        rings: 3,
        slots: 16,
        ..Geometry::default()
    });
    for slot in 0..9 {
        engine.request_on(slot % 3, slot, &get(), flags::END);
    }
    for event in poll(&mut consumer) {
        let Event::Request { id, .. } = event else {
            panic!()
        };
        assert!(consumer.start(id));
        head(&mut consumer, id, b"x", true, true);
    }
    for owner in 0..3 {
        let slots: Vec<_> = engine
            .drain_on(owner)
            .iter()
            .map(|got| got.header.slot)
            .collect();
        let owner = owner as u16;
        assert_eq!(slots, [owner, owner + 3, owner + 6]);
    }
}
