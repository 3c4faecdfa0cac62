//! Raw connections: what is wanted of them, and what the engine says of their time.

use super::*;
use crate::message::{TimeUp, Want};

/// Large enough for nothing else to come.
const LONG: Duration = Duration::from_secs(1000);

fn scene() -> (Engine, Consumer, ExchangeId) {
    let (mut engine, mut consumer) = pair();
    consumer.streams = true;
    consumer.keeps_time = true;
    let id = open(&mut engine, &mut consumer, 3);
    (engine, consumer, id)
}

fn open(engine: &mut Engine, consumer: &mut Consumer, slot: u16) -> ExchangeId {
    engine.generations[usize::from(slot)] += 1;
    let generation = engine.generations[usize::from(slot)];
    let parts = RequestHeadParts {
        request_window: 64 * 1024,
        response_window: WINDOW,
        ..RequestHeadParts::default()
    };
    let mut payload = Vec::new();
    encode_request_head(&mut payload, &parts, std::iter::empty()).unwrap();
    let id = ExchangeId { slot, generation };
    engine.loops[0]
        .slots
        .grant_response(slot, u64::from(WINDOW));
    engine.record(id, Kind::Open as u8, &payload, flags::MUST_UNDERSTAND);
    assert_eq!(take(consumer), id);
    id
}

fn send(engine: &mut Engine, id: ExchangeId, data: &[u8], flags: u8) {
    engine.record(id, Kind::Data as u8, data, flags);
}

fn time_up(engine: &mut Engine, id: ExchangeId, serial: u32, by_default: bool) {
    let time_up = TimeUp {
        received: 0,
        serial,
        by_default,
    };
    engine.record(id, Kind::Timeout as u8, &time_up.encode(), 0);
}

/// All that the streams have to tell after a poll.
fn told(consumer: &mut Consumer) -> Vec<(ExchangeId, StreamEvent)> {
    let mut told = Vec::new();
    for event in poll(consumer) {
        let Event::Stream { id } = event else {
            panic!("{event:?}");
        };
        while let Some(event) = consumer.stream_event(id) {
            told.push((id, event));
        }
        assert!(!consumer.has_stream_event(id));
    }
    told
}

fn data(bytes: &[u8], end: bool) -> StreamEvent {
    let data = bytes.to_vec();
    StreamEvent::Data { data, end }
}

fn wanted(engine: &mut Engine) -> Vec<Want> {
    let wants = engine.drain().into_iter();
    wants
        .filter(|got| got.kind() == Kind::Want)
        .map(|got| Want::decode(&got.payload).unwrap())
        .collect()
}

#[test]
fn what_is_wanted_counts_from_what_was_handed_out() {
    let (mut engine, mut consumer, id) = scene();
    consumer.want(id, 10, LONG).unwrap();
    let want = |target, serial| Want {
        target,
        wait: Wait::For(LONG),
        serial,
    };
    assert_eq!(wanted(&mut engine), [want(10, 1)]);
    send(&mut engine, id, b"123", 0);
    assert_eq!(told(&mut consumer), []);
    send(&mut engine, id, b"4567890ab", 0);
    assert_eq!(told(&mut consumer), [(id, data(b"1234567890ab", false))]);
    consumer.want(id, 10, LONG).unwrap();
    assert_eq!(wanted(&mut engine), [want(22, 2)]);
}

#[test]
fn the_end_of_a_time_is_told_unless_something_else_is_wanted_since() {
    let (mut engine, mut consumer, id) = scene();
    consumer.want(id, 10, LONG).unwrap();
    send(&mut engine, id, b"123", 0);
    time_up(&mut engine, id, 1, false);
    let events = poll(&mut consumer);
    assert!(matches!(events[..], [Event::Stream { .. }]), "{events:?}");
    assert_eq!(consumer.stream_event(id), Some(StreamEvent::Timeout));
    assert_eq!(consumer.stream_event(id), Some(data(b"123", false)));
    assert_eq!(consumer.stream_event(id), None);

    // It had been said, or found already, when the application wanted something else.
    consumer.want(id, 10, LONG).unwrap();
    consumer.want(id, 10, LONG).unwrap();
    time_up(&mut engine, id, 2, false);
    assert_eq!(told(&mut consumer), []);
    time_up(&mut engine, id, 3, false);
    assert_eq!(poll(&mut consumer).len(), 1);
    consumer.want(id, 10, LONG).unwrap();
    assert_eq!(consumer.stream_event(id), None);
    time_up(&mut engine, id, 4, false);
    assert_eq!(told(&mut consumer), [(id, StreamEvent::Timeout)]);
}

#[test]
fn a_stream_that_sends_is_not_idle() {
    let (mut engine, mut consumer, id) = scene();
    consumer.respond_body(id, b"hello", false, false).unwrap();
    // Said before the engine had seen that.
    time_up(&mut engine, id, 0, true);
    assert_eq!(told(&mut consumer), []);
    // But what was wanted has not come.
    consumer.want(id, 1, LONG).unwrap();
    time_up(&mut engine, id, 1, false);
    assert_eq!(told(&mut consumer), [(id, StreamEvent::Timeout)]);
}

#[test]
fn what_was_held_back_is_told_without_another_byte() {
    let (mut engine, mut consumer, id) = scene();
    consumer.want(id, 10, LONG).unwrap();
    send(&mut engine, id, b"123", 0);
    assert_eq!(told(&mut consumer), []);
    assert!(consumer.arm());
    consumer.want(id, 2, LONG).unwrap();
    // A loop that is about to block is not to: its bell has been rung, too.
    assert!(consumer.lane.doorbell().wait(Some(Duration::ZERO)).unwrap());
    assert!(!consumer.arm());
    assert_eq!(told(&mut consumer), [(id, data(b"123", false))]);
    consumer.clear_doorbell();
    assert!(consumer.arm());
}

#[test]
fn what_came_before_the_end_of_a_stream_is_told_before_it() {
    let (mut engine, mut consumer, id) = scene();
    consumer.want(id, 10, LONG).unwrap();
    send(&mut engine, id, b"123", 0);
    assert_eq!(told(&mut consumer), []);
    engine.cancel(id);
    time_up(&mut engine, id, 1, false);
    let events = poll(&mut consumer);
    assert!(
        matches!(
            events[..],
            [Event::Stream { .. }, Event::Disconnected { .. }]
        ),
        "{events:?}"
    );
    assert_eq!(consumer.stream_event(id), Some(data(b"123", false)));
    assert_eq!(consumer.stream_event(id), None);
    assert_eq!(consumer.want(id, 1, LONG), Err(WantError::Disconnected));
    consumer.done(id);
    assert_eq!(consumer.want(id, 1, LONG), Err(WantError::Unknown));
    assert_eq!(consumer.in_flight(), 0);
}

#[test]
fn a_want_beside_bytes_that_are_kept_gets_what_there_is_room_for() {
    let (mut engine, mut consumer, id) = scene();
    let window = 64 * 1024;
    send(&mut engine, id, &vec![1; 40_000], 0);
    assert_eq!(told(&mut consumer).len(), 1);
    // Nothing of it was consumed.
    consumer.want(id, 40_000, LONG).unwrap();
    send(&mut engine, id, &vec![2; window - 40_000], 0);
    let rest = vec![2; window - 40_000];
    assert_eq!(told(&mut consumer), [(id, data(&rest, false))]);
    // That want is over, for the engine, too.
    let over = Want {
        target: 0,
        wait: Wait::Default,
        serial: 2,
    };
    assert_eq!(wanted(&mut engine)[1..], [over]);
    consumer.consumed(id, window);
    consumer.want(id, window, LONG).unwrap();
    let granted = consumer.exchanges[3].request_granted;
    assert_eq!(granted, 2 * window as u64);
    assert_eq!(consumer.want(id, window + 1, LONG), Err(WantError::TooMuch));
}

#[test]
fn a_full_ring_keeps_the_last_want_only() {
    let (mut engine, mut consumer) = pair_with(Geometry {
        rings: 1,
        slots: 4,
        request_capacity: 65536,
        response_capacity: 4096,
    });
    consumer.streams = true;
    consumer.keeps_time = true;
    let id = open(&mut engine, &mut consumer, 1);
    let ended = open(&mut engine, &mut consumer, 2);
    consumer
        .respond_body(id, &[7; 20_000], false, false)
        .unwrap();
    for seconds in 1..=5 {
        let wait = Duration::from_secs(seconds);
        consumer.want(id, 1, wait).unwrap();
        consumer.want(ended, 1, wait).unwrap();
    }
    // What was kept of one that ends meanwhile is not said after its end.
    consumer.respond_body(ended, b"end", true, false).unwrap();
    let mut records = Vec::new();
    loop {
        let came = engine.drain();
        if came.is_empty() && consumer.arm() {
            break;
        }
        records.extend(came);
        assert!(poll(&mut consumer).is_empty());
    }
    let of = |id: ExchangeId, kind| {
        let records = records.iter().filter(move |got| got.header.slot == id.slot);
        records.filter(move |got| got.kind() == kind)
    };
    let wants: Vec<_> = of(id, Kind::Want)
        .map(|got| Want::decode(&got.payload).unwrap())
        .collect();
    assert_eq!(wants.len(), 1, "{wants:?}");
    assert_eq!(wants[0].wait, Wait::For(Duration::from_secs(5)));
    assert_eq!(wants[0].serial, 5);
    assert_eq!(of(ended, Kind::Want).count(), 0);
    let bytes: usize = of(id, Kind::Data).map(|got| got.payload.len()).sum();
    assert_eq!(bytes, 20_000);
    assert_eq!(consumer.want(ended, 1, LONG), Err(WantError::AlreadyEnded));
}

#[test]
fn what_cannot_be_wanted() {
    let (mut engine, mut consumer, id) = scene();
    engine.get(5);
    let request = take(&mut consumer);
    assert_eq!(consumer.want(request, 1, LONG), Err(WantError::NotAStream));
    consumer.keeps_time = false;
    assert_eq!(consumer.want(id, 1, LONG), Err(WantError::Unsupported));
    assert!(wanted(&mut engine).is_empty());
}

#[test]
fn an_engine_that_says_nonsense_of_times_is_not_obeyed() {
    type Say = fn(&mut Engine, ExchangeId, ExchangeId);
    let cases: [(Say, &str); 4] = [
        (
            |engine, _, request| time_up(engine, request, 0, false),
            "is a request",
        ),
        (
            |engine, stream, _| engine.record(stream, Kind::Timeout as u8, b"short", 0),
            "shorter",
        ),
        (
            |engine, stream, _| {
                let generation = stream.generation + 1;
                time_up(
                    engine,
                    ExchangeId {
                        generation,
                        ..stream
                    },
                    0,
                    false,
                );
            },
            "unknown exchange",
        ),
        (
            |engine, _, _| {
                let never = ExchangeId {
                    slot: 9,
                    generation: 1,
                };
                time_up(engine, never, 0, false);
            },
            "unknown exchange",
        ),
    ];
    for (say, words) in cases {
        let (mut engine, mut consumer, stream) = scene();
        engine.get(5);
        let request = take(&mut consumer);
        say(&mut engine, stream, request);
        let error = consumer.poll(10, &mut Vec::new()).unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
    }
    // Of one that is over the engine could not know.
    let (mut engine, mut consumer, stream) = scene();
    consumer.respond_body(stream, b"", true, true).unwrap();
    time_up(&mut engine, stream, 0, false);
    assert_eq!(told(&mut consumer), []);
}
