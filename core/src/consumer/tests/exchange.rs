//! One exchange: how it is answered, ended, called back and cancelled.

use super::*;

fn is_send<T: Send>() {}

#[test]
fn a_small_response_is_one_record() {
    is_send::<Consumer>();
    let (mut engine, mut consumer) = pair();
    let id = engine.get(3);
    let events = poll(&mut consumer);
    let [
        Event::Request {
            id: got,
            request,
            more_body: false,
        },
    ] = &events[..]
    else {
        panic!("{events:?}");
    };
    assert_eq!(*got, id);
    assert_eq!(request.method(), b"GET");
    assert_eq!(request.field(b"host"), Some(&b"example.org"[..]));
    assert_eq!(consumer.in_flight(), 1);
    assert!(consumer.start(id));
    assert!(!consumer.start(id), "started twice");
    assert_eq!(engine.loops[0].slots.started(3), id.generation);
    let fields: [(&[u8], &[u8]); 1] = [(b"content-type", b"text/plain")];
    let sent = consumer.respond_head(id, 201, 5, fields.into_iter(), b"hello", true, true);
    assert_eq!(sent, Ok(Sent::Below));
    assert_eq!(consumer.in_flight(), 0);
    let got = engine.only();
    assert_eq!(got.kind(), Kind::ResponseHead);
    assert_eq!(got.header.flags, flags::END | flags::DONE);
    assert_eq!((got.header.slot, got.header.generation), (3, id.generation));
    let response = ResponseHead::decode(&got.payload).unwrap();
    assert_eq!((response.status(), response.content_length()), (201, 5));
    assert_eq!(response.fields().collect::<Vec<_>>(), fields);
    assert_eq!(response.body(), b"hello");
    let late = consumer.respond_body(id, b"x", true, true);
    assert_eq!(late, Err(RespondError::Unknown));
    consumer.done(id);
    consumer.abort(id);
    assert!(engine.drain().is_empty());
    // The slot serves again.
    engine.get(3);
    take(&mut consumer);
}

#[test]
fn end_and_done_may_be_apart() {
    let (mut engine, mut consumer) = pair();
    engine.get(0);
    let id = take(&mut consumer);
    head(&mut consumer, id, b"", false, false);
    consumer.respond_body(id, b"abc", false, false).unwrap();
    consumer.respond_body(id, b"", true, false).unwrap();
    let again = consumer.respond_body(id, b"", true, false);
    assert_eq!(again, Err(RespondError::AlreadyEnded));
    assert_eq!(consumer.in_flight(), 1);
    consumer.done(id);
    assert_eq!(consumer.in_flight(), 0);
    let flags: Vec<_> = engine.drain().iter().map(|got| got.header.flags).collect();
    assert_eq!(flags, [0, 0, flags::END, flags::DONE]);
}

#[test]
fn misuse_is_refused() {
    let (mut engine, mut consumer) = pair();
    let id = engine.get(0);
    poll(&mut consumer);
    let respond = |consumer: &mut Consumer, body: &[u8]| {
        consumer.respond_head(id, 200, -1, NO_FIELDS.into_iter(), body, false, false)
    };
    assert_eq!(respond(&mut consumer, b""), Err(RespondError::Unknown));
    assert!(consumer.start(id));
    let early = consumer.respond_body(id, b"", false, false);
    assert_eq!(early, Err(RespondError::HeadNotSent));
    let long = vec![b'x'; 70_000];
    let fields: [(&[u8], &[u8]); 1] = [(b"long", &long)];
    let refused = consumer.respond_head(id, 200, -1, fields.into_iter(), b"", true, true);
    assert_eq!(refused, Err(RespondError::HeadTooLong));
    respond(&mut consumer, b"").unwrap();
    let twice = respond(&mut consumer, b"");
    assert_eq!(twice, Err(RespondError::HeadAlreadySent));
    consumer.done(id);
    let got = engine.drain();
    assert_eq!(got.len(), 2);
    assert_eq!(got[1].kind(), Kind::ResponseAbort);
    assert_eq!(got[1].header.flags, flags::DONE);
    assert!(!consumer.start(ExchangeId {
        slot: 999,
        generation: 1
    }));
    assert!(!consumer.start(ExchangeId {
        slot: 1,
        generation: 0
    }));
}

#[test]
fn a_recalled_request_never_starts() {
    let (mut engine, mut consumer) = pair();
    let id = engine.get(0);
    assert!(engine.cancel(id), "not started");
    let events = poll(&mut consumer);
    assert!(matches!(events[..], [Event::Request { .. }]));
    assert!(!consumer.start(id));
    let got = engine.only();
    assert_eq!(got.kind(), Kind::Cancelled);
    assert_eq!((got.header.flags, got.header.aux), (flags::DONE, 0));
    assert_eq!(consumer.in_flight(), 0);
    consumer.done(id);
    assert!(engine.drain().is_empty());
    assert!(poll(&mut consumer).is_empty());
}

#[test]
fn a_cancelled_exchange_is_reported_once_and_ends_once() {
    let (mut engine, mut consumer) = pair();
    for way in 0..4 {
        let id = engine.get(0);
        take(&mut consumer);
        assert!(!engine.cancel(id), "started");
        let events = poll(&mut consumer);
        assert!(matches!(events[..], [Event::Disconnected { id: got }] if got == id));
        engine.loops[0].notice.bump();
        assert!(poll(&mut consumer).is_empty());
        let late = consumer.respond_head(id, 200, -1, NO_FIELDS.into_iter(), b"", true, way == 0);
        assert_eq!(late, Err(RespondError::Disconnected));
        match way {
            0 => {}
            1 => consumer.done(id),
            2 => consumer.abort(id),
            _ => {
                let late = consumer.respond_body(id, b"", true, true);
                assert_eq!(late, Err(RespondError::Disconnected));
            }
        }
        consumer.done(id);
        let got = engine.only();
        assert_eq!(got.kind(), Kind::Cancelled);
        assert_eq!((got.header.flags, got.header.aux), (flags::DONE, 1));
        assert_eq!(consumer.in_flight(), 0);
    }
}

#[test]
fn a_cancel_drops_what_was_kept() {
    let (mut engine, mut consumer) = pair();
    let id = engine.get(0);
    take(&mut consumer);
    head(&mut consumer, id, &[1; 200_000], true, true);
    assert_eq!(consumer.in_flight(), 1);
    engine.drain();
    engine.cancel(id);
    assert!(poll(&mut consumer).is_empty(), "the application was done");
    assert_eq!(engine.only().kind(), Kind::Cancelled);
    assert_eq!(consumer.in_flight(), 0);

    let id = engine.get(0);
    take(&mut consumer);
    head(&mut consumer, id, b"", true, false);
    engine.drain();
    engine.cancel(id);
    assert!(matches!(
        poll(&mut consumer)[..],
        [Event::Disconnected { .. }]
    ));
    consumer.done(id);
    let got = engine.only();
    assert_eq!(
        (got.kind(), got.header.flags),
        (Kind::ResponseBody, flags::DONE)
    );
}
