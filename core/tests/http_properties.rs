//! What must hold for HTTP whatever the bytes and wherever they are split.
#![forbid(unsafe_code)]

use proptest::prelude::*;
use toolb_core::http::{
    BodyFraming, BodyLength, BodyReader, Extras, Head, Limits, Reject, ResponseFacts,
    ResponseWriter, Version,
};

/// What a server sees of the requests on one connection.
#[derive(Clone, Debug, PartialEq)]
struct Seen {
    method: Vec<u8>,
    path: Vec<u8>,
    query: Vec<u8>,
    fields: Vec<(Vec<u8>, Vec<u8>)>,
    framing: BodyFraming,
    keep_alive: bool,
    body: Vec<u8>,
    complete: bool,
}

/// A connection's worth of parsing, fed piece by piece.
#[derive(Default)]
struct Connection {
    limits: Limits,
    input: Vec<u8>,
    head: Head,
    body: Option<BodyReader>,
    seen: Vec<Seen>,
}

impl Connection {
    fn feed(&mut self, piece: &[u8]) -> Result<(), Reject> {
        self.input.extend_from_slice(piece);
        loop {
            let consumed = match &mut self.body {
                None => {
                    if self.input.is_empty() || !self.head.parse(&self.input, &self.limits)? {
                        return Ok(());
                    }
                    let reader = BodyReader::new(self.head.framing, self.limits.body);
                    self.body = Some(reader);
                    self.seen.push(see(&self.head, &self.input));
                    self.head.len
                }
                Some(reader) => {
                    let step = reader.next(&self.input)?;
                    let last = self.seen.last_mut().expect("a body follows a head");
                    last.body.extend_from_slice(&self.input[step.data.clone()]);
                    if step.needs_more() {
                        self.input.drain(..step.consumed);
                        return Ok(());
                    }
                    if step.is_end {
                        last.complete = true;
                        self.body = None;
                    }
                    step.consumed
                }
            };
            self.input.drain(..consumed);
        }
    }
}

fn see(head: &Head, input: &[u8]) -> Seen {
    let bytes = |span: toolb_core::http::Span| span.of(input).to_vec();
    Seen {
        method: bytes(head.method),
        path: bytes(head.raw_path),
        query: bytes(head.query),
        fields: head
            .fields
            .iter()
            .map(|&(n, v)| (bytes(n), bytes(v)))
            .collect(),
        framing: head.framing,
        keep_alive: head.keep_alive,
        body: Vec::new(),
        complete: false,
    }
}

fn run(pieces: &[&[u8]]) -> (Vec<Seen>, Option<Reject>) {
    let mut connection = Connection::default();
    for piece in pieces {
        if let Err(reject) = connection.feed(piece) {
            return (connection.seen, Some(reject));
        }
    }
    (connection.seen, None)
}

const STREAMS: [&str; 8] = [
    "GET / HTTP/1.1\r\nHost: h\r\n\r\n",
    "GET /a%20b?q=1 HTTP/1.0\r\n\r\n\r\nGET /c HTTP/1.1\r\nhost: h\r\n\r\n",
    "POST /p HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhelloGET /next HTTP/1.1\r\nHost: h\r\n\r\n",
    "POST /p HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n\
     3\r\nabc\r\n00a;x=\"y\\\"z\";w\r\n0123456789\r\n0\r\nTrailer: v\r\nEmpty:\r\n\r\nOPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n",
    "PUT http://a.example:81/x?y HTTP/1.1\r\nHost: h\r\nConnection: close\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\nx",
    // Refused somewhere on the way.
    "GET / HTTP/1.1\r\nHost: h\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n",
    "GET / HTTP/2.0\r\nHost: h\r\n\r\n",
];

#[test]
fn a_split_anywhere_changes_nothing() {
    for stream in STREAMS {
        let whole = run(&[stream.as_bytes()]);
        for at in 0..=stream.len() {
            let (one, two) = stream.as_bytes().split_at(at);
            assert_eq!(run(&[one, two]), whole, "{stream:?} split at {at}");
        }
        let bytes: Vec<&[u8]> = stream.as_bytes().chunks(1).collect();
        assert_eq!(run(&bytes), whole, "{stream:?} byte by byte");
    }
}

#[test]
fn a_long_head_split_anywhere_changes_nothing() {
    let mut request = b"GET /".to_vec();
    request.extend(std::iter::repeat_n(b'p', 1500));
    request.extend_from_slice(b" HTTP/1.1\r\nHost: h\r\n");
    for field in 0..40 {
        request.extend_from_slice(format!("X-Field-{field}: {}\r\n", "v".repeat(field)).as_bytes());
    }
    request.extend_from_slice(b"Content-Length: 3\r\n\r\nabc");
    let whole = run(&[&request]);
    assert!(whole.1.is_none() && whole.0.len() == 1 && whole.0[0].complete);
    for at in 0..=request.len() {
        let (one, two) = request.split_at(at);
        assert_eq!(run(&[one, two]), whole, "split at {at}");
    }
}

/// Checks each prefix of `bytes`: it needs more, until it is complete or refused for good.
fn check_prefixes(bytes: &[u8], limits: &Limits) -> Result<(), TestCaseError> {
    let mut head = Head::default();
    let mut before = Ok(false);
    let mut first = None;
    for end in 0..=bytes.len() {
        let now = head.parse(&bytes[..end], limits);
        match (before, now) {
            (Ok(false), _) | (Err(_), Err(_)) => {}
            (Ok(true), Ok(true)) => {
                let seen = Some((head.len, see(&head, &bytes[..end])));
                prop_assert_eq!(&first, &seen, "more input changed the head");
            }
            _ => prop_assert!(false, "{:?} became {:?} at {}", before, now, end),
        }
        if now == Ok(true) {
            prop_assert!(head.len <= end && head.len <= limits.head);
            prop_assert!(head.fields.len() <= limits.fields);
            let raw_path = head.raw_path.of(bytes);
            prop_assert!(raw_path.starts_with(b"/") || raw_path == b"*");
            if first.is_none() {
                prop_assert_eq!(head.len, end, "complete, but not at once");
                first = Some((head.len, see(&head, &bytes[..end])));
            }
        }
        before = now;
    }
    Ok(())
}

/// Pieces that requests, good and bad, are made of.
fn fragment() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        8 => prop::sample::select(vec![
            "GET ", "POST ", "OPTIONS ", "CONNECT ", "/", "*", "/a?b=%20", "http://h", " HTTP/1.1",
            " HTTP/1.0", " HTTP/2.0", "\r\n", "\r\n", "\n", "\r", " ", "\t", ":", ": ", "#", "?",
            "Host: h\r\n", "Host: ", "Content-Length: ", "5", "Transfer-Encoding: chunked\r\n",
            "Transfer-Encoding: gzip, chunked\r\n", "Connection: close\r\n", "Expect: 100-continue\r\n",
            "X-Name: value\r\n", "GET / HTTP/1.1\r\n", "Host: h\r\n\r\n", "\0", "\u{e9}",
        ]).prop_map(|text| text.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..4),
        1 => (1usize..1500).prop_map(|len| vec![b'x'; len]),
    ]
}

fn requestlike() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(fragment(), 0..24).prop_map(|pieces| pieces.concat())
}

/// Requests that are nearly right: a good one with a few bytes changed.
fn mutated() -> impl Strategy<Value = Vec<u8>> {
    let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3);
    (prop::sample::select(&STREAMS[..]), changes).prop_map(|(stream, changes)| {
        let mut bytes = stream.as_bytes().to_vec();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn heads_of_arbitrary_bytes(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        check_prefixes(&bytes, &Limits::default())?;
    }

    #[test]
    fn heads_of_requestlike_bytes(bytes in requestlike()) {
        check_prefixes(&bytes, &Limits::default())?;
    }

    #[test]
    fn heads_within_small_limits(
        bytes in requestlike(),
        request_line in 0usize..40,
        head in 0usize..1400,
        fields in 0usize..5,
    ) {
        check_prefixes(&bytes, &Limits { request_line, head, fields, body: 3 })?;
    }

    #[test]
    fn heads_that_are_nearly_right(bytes in mutated()) {
        check_prefixes(&bytes, &Limits::default())?;
    }

    #[test]
    fn streams_in_any_pieces(bytes in mutated(), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6)) {
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        cuts.sort_unstable();
        let mut pieces = Vec::new();
        let mut at = 0;
        for cut in cuts {
            pieces.push(&bytes[at..cut]);
            at = cut;
        }
        pieces.push(&bytes[at..]);
        let (split, refused) = run(&pieces);
        let (whole, refused_whole) = run(&[&bytes]);
        prop_assert_eq!(refused.is_some(), refused_whole.is_some());
        prop_assert_eq!(split, whole);
    }

    #[test]
    fn chunked_bodies_of_arbitrary_bytes(
        bytes in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..200),
            prop::collection::vec(prop::sample::select(b"0123aF\r\n\r\n;=\"\\x: \t".to_vec()), 0..200),
        ],
        limit in 0u64..20,
        most in 1usize..20,
    ) {
        let read = |piece: usize, most: usize| {
            let mut reader = BodyReader::new(BodyFraming::Chunked, limit);
            let (mut body, mut at, mut have) = (Vec::new(), 0, 0);
            loop {
                let step = match reader.next_up_to(&bytes[at..have], most) {
                    Err(reject) => return (body, Err(reject)),
                    Ok(step) => step,
                };
                assert!(step.data.len() <= most && step.data.end <= step.consumed && at + step.consumed <= have);
                body.extend_from_slice(&bytes[at..][step.data.clone()]);
                at += step.consumed;
                if step.is_end {
                    return (body, Ok(Some(at)));
                }
                if step.needs_more() {
                    assert_eq!(at, have);
                    if have == bytes.len() {
                        return (body, Ok(None));
                    }
                    have = (have + piece).min(bytes.len());
                }
            }
        };
        let whole = read(usize::MAX / 2, usize::MAX);
        prop_assert_eq!(&read(1, most), &whole);
        prop_assert_eq!(&read(3, most), &whole);
        prop_assert!(limit == 0 || whole.0.len() as u64 <= limit);
    }

    #[test]
    fn chunks_round_trip(
        chunks in prop::collection::vec(
            (prop::collection::vec(any::<u8>(), 1..50), 0usize..3, prop::sample::select(vec!["", ";a", ";a=b;c=\"d\""])),
            0..20,
        ),
        trailer in prop::sample::select(vec!["", "A: b\r\n", "A: b\r\nContent-Length: 9\r\n"]),
        piece in 1usize..40,
    ) {
        let mut wire = b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        let mut body = Vec::new();
        for (data, zeros, extension) in &chunks {
            wire.extend_from_slice(format!("{}{:X}{extension}\r\n", "0".repeat(*zeros), data.len()).as_bytes());
            wire.extend_from_slice(data);
            wire.extend_from_slice(b"\r\n");
            body.extend_from_slice(data);
        }
        wire.extend_from_slice(format!("0\r\n{trailer}\r\nGET /next HTTP/1.1\r\nHost: h\r\n\r\n").as_bytes());
        let pieces: Vec<&[u8]> = wire.chunks(piece).collect();
        let (seen, refused) = run(&pieces);
        prop_assert_eq!(refused, None);
        prop_assert_eq!(seen.len(), 2);
        prop_assert_eq!(&seen[0].body, &body);
        prop_assert!(seen.iter().all(|request| request.complete));
        prop_assert_eq!(&seen[1].path, b"/next");
    }

    /// Whatever an application says, a client reads back one response and nothing behind it.
    #[test]
    fn responses_read_back(
        version in prop::sample::select(vec![Version::Http10, Version::Http11]),
        head_request: bool,
        keep_alive: bool,
        status in 0u16..700,
        fields in prop::collection::vec((
            prop_oneof![
                prop::sample::select(vec!["content-length", "Transfer-Encoding", "CONNECTION", "Date", "x-a"])
                    .prop_map(|name| name.as_bytes().to_vec()),
                prop::collection::vec(any::<u8>(), 0..6),
            ],
            prop_oneof![
                prop::sample::select(vec!["3", "0", "5", "chunked", "close", "keep-alive"])
                    .prop_map(|value| value.as_bytes().to_vec()),
                prop::collection::vec(any::<u8>(), 0..10),
            ],
        ), 0..5),
        known in prop::option::of(0u64..8),
        parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..4), 0..4),
    ) {
        let facts = ResponseFacts { version, head_request, keep_alive };
        let mut out = Vec::new();
        let mut writer = ResponseWriter::new(facts);
        let given = fields.iter().map(|(name, value)| (&name[..], &value[..]));
        let length = known.map_or(BodyLength::Unknown, BodyLength::Known);
        if writer.head(&mut out, status, given, length, &Extras::default()).is_err() {
            prop_assert!(out.is_empty());
            return Ok(());
        }
        prop_assert!((200..600).contains(&status));
        let mut failed = false;
        for part in &parts {
            failed = failed || writer.body(&mut out, part).is_err();
        }
        let short = writer.end(&mut out).is_err();

        let mut table = [httparse::EMPTY_HEADER; 16];
        let mut response = httparse::Response::new(&mut table);
        let parsed = response.parse(&out);
        let Ok(httparse::Status::Complete(len)) = parsed else {
            return Err(TestCaseError::fail(format!("{parsed:?}: {}", out.escape_ascii())));
        };
        prop_assert_eq!(response.code, Some(status));
        let values = |name: &str| -> Vec<&[u8]> {
            let named = response.headers.iter().filter(|field| field.name.eq_ignore_ascii_case(name));
            named.map(|field| field.value).collect()
        };
        let lengths = values("content-length");
        let chunked = values("transfer-encoding");
        prop_assert!(lengths.len() + chunked.len() <= 1);
        let closes = values("connection").iter().any(|value| *value == b"close");
        // A body that disagrees with its length closes the connection without notice.
        prop_assert_eq!(closes || failed || short, writer.will_close());
        prop_assert!(keep_alive || closes);

        let body = &out[len..];
        let said = parts.concat();
        if head_request || matches!(status, 204 | 205 | 304) {
            prop_assert!(body.is_empty() && chunked.is_empty());
            prop_assert!(status != 204 || lengths.is_empty());
            prop_assert!(status != 205 || lengths == [b"0"]);
        } else if let [length] = lengths[..] {
            let length: usize = std::str::from_utf8(length).unwrap().parse().unwrap();
            prop_assert_eq!(failed, said.len() > length);
            prop_assert_eq!(short, said.len() < length);
            prop_assert_eq!(body, &said[..said.len().min(length)]);
        } else if let [coding] = chunked[..] {
            prop_assert!(coding == b"chunked" && version == Version::Http11);
            let mut request = b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
            request.extend_from_slice(body);
            let (seen, refused) = run(&[&request]);
            prop_assert!(refused.is_none() && seen.len() == 1 && seen[0].complete);
            prop_assert_eq!(&seen[0].body, &said);
        } else {
            prop_assert!(closes && version == Version::Http10);
            prop_assert_eq!(body, &said[..]);
        }
    }
}
