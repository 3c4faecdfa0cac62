//! What a request costs the consumer.

use super::*;
use crate::sys::clock;

/// `cargo test --release -p toolb-core -- --ignored --nocapture cost_per_request`
#[test]
#[ignore = "a measurement"]
fn cost_per_request() {
    let (mut engine, mut consumer) = pair_with(Geometry {
        rings: 1,
        slots: 64,
        ..Geometry::default()
    });
    let fields: [(&[u8], &[u8]); 4] = [
        (b"Host", b"127.0.0.1:8000"),
        (b"User-Agent", b"curl/8.5.0 (x86_64-pc-linux-gnu)"),
        (b"Accept", b"*/*"),
        (b"Accept-Encoding", b"gzip, deflate, br"),
    ];
    let answer: [(&[u8], &[u8]); 2] =
        [(b"content-type", b"text/plain"), (b"content-length", b"13")];
    let (mut encoding, mut spent, mut count) = (0, 0, 0);
    let mut payload = Vec::new();
    let mut events = Vec::new();
    let mut scratch = Vec::new();
    for turn in 0..100_000u32 {
        let begin = clock::now();
        for slot in 0..16 {
            payload.clear();
            let parts = RequestHeadParts {
                peer: b"127.0.0.1",
                server: b"127.0.0.1",
                authority: b"127.0.0.1:8000",
                ..get()
            };
            encode_request_head(&mut payload, &parts, fields.into_iter()).unwrap();
            let header = RecordHeader {
                kind: Kind::RequestHead as u8,
                flags: flags::END,
                slot,
                generation: turn + 1,
                ..RecordHeader::default()
            };
            assert!(engine.loops[0].requests.push(header, &[&payload]));
        }
        engine.loops[0].requests.publish();
        let middle = clock::now();
        consumer.poll(64, &mut events).unwrap();
        for event in events.drain(..) {
            let Event::Request { id, request, .. } = event else {
                panic!()
            };
            consumer.start(id);
            consumer.recycle(request.into_bytes());
            consumer
                .respond_head(
                    id,
                    200,
                    13,
                    answer.into_iter(),
                    b"Hello, World!",
                    true,
                    true,
                )
                .unwrap();
            count += 1;
        }
        consumer.flush(false);
        encoding += middle - begin;
        spent += clock::now() - middle;
        let ends = &mut engine.loops[0];
        ends.responses.refresh().unwrap();
        while ends.responses.peek().unwrap().is_some() {
            scratch.clear();
            ends.responses.read(&mut scratch);
        }
        ends.responses.release();
    }
    println!(
        "per request: encoded and pushed in {} ns, polled, started and answered in {} ns",
        encoding / count,
        spent / count
    );
}
