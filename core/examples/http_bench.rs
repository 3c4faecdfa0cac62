//! Times HTTP parsing and writing in memory: `cargo run --release -p toolb-core --example http_bench`.
//!
//! Each line is the best of many short runs, in nanoseconds for one call.
#![forbid(unsafe_code)]

use std::hint::black_box;
use std::time::Instant;

use toolb_core::http::{
    BodyFraming, BodyLength, BodyReader, Extras, Head, Limits, ResponseFacts, ResponseWriter,
};
use toolb_core::route::{Match, Router};

const LOAD_TOOL: &str = "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n";
const CLIENT: &str = "GET /api/users/42?fields=name%2Cmail HTTP/1.1\r\n\
    Host: api.example.org\r\n\
    User-Agent: python-httpx/0.27.0\r\n\
    Accept: application/json\r\n\
    Accept-Encoding: gzip, deflate, br\r\n\
    Connection: keep-alive\r\n\
    Authorization: Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0\r\n\
    X-Request-Id: 7f3e0c7a-5d0c-4b1e-9a37-2b8f2f6f0c11\r\n\
    Cookie: session=4f8a1b2c3d4e5f60718293a4b5c6d7e8\r\n\r\n";
const BROWSER: &str = "GET /assets/app.js HTTP/1.1\r\n\
    Host: www.example.org\r\n\
    Connection: keep-alive\r\n\
    sec-ch-ua: \"Chromium\";v=\"124\", \"Not-A.Brand\";v=\"99\"\r\n\
    sec-ch-ua-mobile: ?0\r\n\
    sec-ch-ua-platform: \"Linux\"\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/124.0.0.0 Safari/537.36\r\n\
    Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8\r\n\
    Sec-Fetch-Site: same-origin\r\n\
    Sec-Fetch-Mode: no-cors\r\n\
    Sec-Fetch-Dest: script\r\n\
    Referer: https://www.example.org/index.html\r\n\
    Accept-Encoding: gzip, deflate, br, zstd\r\n\
    Accept-Language: en-GB,en;q=0.9,de;q=0.8\r\n\
    Cookie: _ga=GA1.2.1234567890.1700000000; session=4f8a1b2c3d4e5f60718293a4b5c6d7e8; theme=dark\r\n\
    If-None-Match: \"5f3c-61a2b3c4d5e6f\"\r\n\r\n";

fn main() {
    let limits = Limits::default();
    let mut head = Head::default();
    for (name, request) in [
        ("parse: load tool, 1 field", LOAD_TOOL),
        ("parse: client, 8 fields", CLIENT),
        ("parse: browser, 15 fields", BROWSER),
    ] {
        let bytes = request.as_bytes();
        time(&format!("{name}, {} bytes", bytes.len()), || {
            black_box(head.parse(black_box(bytes), &limits)).expect("a good request")
        });
    }
    let pipelined = LOAD_TOOL.repeat(16);
    time("parse: 16 of the load tool's, pipelined", || {
        let mut rest = black_box(pipelined.as_bytes());
        while !rest.is_empty() {
            head.parse(rest, &limits).expect("a good request");
            rest = &rest[head.len..];
        }
    });
    let mut upload = CLIENT.replace("GET", "PUT").into_bytes();
    upload.extend_from_slice(&[b'x'; 8192]);
    time("parse: client, with 8 KiB of body behind it", || {
        black_box(head.parse(black_box(&upload), &limits)).expect("a good request")
    });
    let mut long = b"GET / HTTP/1.1\r\nHost: h\r\n".to_vec();
    for index in 0..90 {
        long.extend_from_slice(format!("X-Field-{index}: {}\r\n", "v".repeat(160)).as_bytes());
    }
    long.extend_from_slice(b"\r\n");
    time(
        &format!("parse: {} bytes, byte by byte", long.len()),
        || {
            for end in 1..=long.len() {
                let _ = black_box(head.parse(black_box(&long[..end]), &limits));
            }
        },
    );

    let extras = Extras {
        date: Some(b"Sun, 06 Nov 1994 08:49:37 GMT"),
        server: Some("toolb"),
    };
    let mut out = Vec::new();
    let fields: [(&[u8], &[u8]); 2] = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", b"13"),
    ];
    let facts = ResponseFacts {
        keep_alive: true,
        ..ResponseFacts::default()
    };
    time("write: hello world", || {
        out.clear();
        let mut writer = ResponseWriter::new(facts);
        let fields = black_box(&fields).iter().copied();
        writer
            .head(&mut out, 200, fields, BodyLength::Unknown, &extras)
            .expect("a good head");
        writer
            .body(&mut out, b"Hello, World!")
            .expect("a good body");
        writer.end(&mut out).expect("a good end");
        black_box(out.len())
    });

    let mut chunks = Vec::new();
    for _ in 0..16 {
        chunks.extend_from_slice(b"1000\r\n");
        chunks.extend_from_slice(&[b'x'; 4096]);
        chunks.extend_from_slice(b"\r\n");
    }
    chunks.extend_from_slice(b"0\r\n\r\n");
    time("read: 16 chunks of 4 KiB", || {
        let mut reader = BodyReader::new(BodyFraming::Chunked, 0);
        let mut rest = black_box(&chunks[..]);
        while let Ok(step) = reader.next(rest) {
            rest = &rest[step.consumed..];
            if step.is_end {
                break;
            }
        }
        black_box(rest.len())
    });

    let mut router = Router::new();
    for (method, pattern) in [
        ("GET", "/"),
        ("GET", "/user/{id}"),
        ("POST", "/user"),
        ("GET", "/api/users/{id}"),
        ("*", "/static/{*path}"),
    ] {
        router.insert(method, pattern, pattern).expect(pattern);
    }
    time("route: one parameter", || {
        let found = router.find(black_box(b"GET"), black_box("/api/users/42"));
        matches!(black_box(found), Match::Found(..))
    });
}

fn time<T>(name: &str, mut call: impl FnMut() -> T) {
    let run = |calls: u32, call: &mut dyn FnMut() -> T| {
        let start = Instant::now();
        for _ in 0..calls {
            black_box(call());
        }
        start.elapsed().as_nanos() as f64 / f64::from(calls)
    };
    let once = run(10, &mut call).max(1.0);
    // About a millisecond a run: short enough to find one that nothing disturbed.
    let calls = (1e6 / once).clamp(1.0, 1e6) as u32;
    let best = (0..50)
        .map(|_| run(calls, &mut call))
        .fold(f64::MAX, f64::min);
    println!("{best:>12.1} ns  {name}");
}
