//! REQ_HEAD: a parsed request with the first bytes of its body.
#![forbid(unsafe_code)]

use super::{
    DecodeError, Fields, MAX_PAYLOAD, TooLong,
    fields::{ENTRY, Encoder, array_at, check_table, span, span_fits, u16_at},
};

// The fixed part. Later minor versions append to it: the table's place is in `TABLE`.
const DEADLINE: usize = 0;
const REQUEST_WINDOW: usize = 8;
const RESPONSE_WINDOW: usize = 12;
const VERSION: usize = 16;
const SCHEME: usize = 17;
const BITS: usize = 18;
const COUNT: usize = 20;
const TABLE: usize = 22;
const PEER_PORT: usize = 24;
const SERVER_PORT: usize = 26;
const METHOD: usize = 28;
const TARGET: usize = 32;
const RAW_PATH: usize = 36;
const PATH: usize = 40;
const QUERY: usize = 44;
const AUTHORITY: usize = 48;
const ROOT_PATH: usize = 52;
const PEER: usize = 56;
const SERVER: usize = 60;
const BODY: usize = 64;
const FIXED: usize = 68;

const EXPECTS_CONTINUE: u8 = 1;

/// Everything of a request but its header fields, as the engine hands it to
/// [`encode_request_head`]. Slices that are parts of `target` or `raw_path` are sent once.
#[derive(Clone, Copy, Debug, Default)]
pub struct RequestHeadParts<'a> {
    /// CLOCK_MONOTONIC nanoseconds by which the response head must have been sent; 0 = none.
    pub deadline: u64,
    /// Request body bytes, inline ones included, the engine may send before it is granted more.
    pub request_window: u32,
    /// Response body bytes, inline ones included, the consumer may send before it is granted more.
    pub response_window: u32,
    /// 10, 11 or 20; 0 for a stream, which has neither method nor fields.
    pub version: u8,
    /// 0 http, 1 https.
    pub scheme: u8,
    /// The client waits for `100 Continue` before it sends the body.
    pub expect_continue: bool,
    /// The method, as sent.
    pub method: &'a [u8],
    /// The request target, as sent.
    pub target: &'a [u8],
    /// The path, as sent.
    pub raw_path: &'a [u8],
    /// The path, percent-decoded.
    pub path: &'a [u8],
    /// The query without its question mark.
    pub query: &'a [u8],
    /// The Host value, or the authority of an absolute target.
    pub authority: &'a [u8],
    /// The prefix the application is mounted at.
    pub root_path: &'a [u8],
    /// The client's address as text; empty for a Unix socket.
    pub peer: &'a [u8],
    /// The client's port.
    pub peer_port: u16,
    /// The address the connection came in at as text; the path of a Unix socket.
    pub server: &'a [u8],
    /// Its port; 0 for a Unix socket.
    pub server_port: u16,
    /// The body, or the first bytes of it.
    pub body: &'a [u8],
}

/// Appends the payload of a REQ_HEAD record. Field names are lower-cased here.
pub fn encode_request_head<'a>(
    out: &mut Vec<u8>,
    parts: &RequestHeadParts<'_>,
    fields: impl Iterator<Item = (&'a [u8], &'a [u8])> + Clone,
) -> Result<(), TooLong> {
    let count = fields.clone().count();
    let mut encoder = Encoder::new(out, FIXED, count);
    encoder.put(DEADLINE, parts.deadline.to_le_bytes());
    encoder.put(REQUEST_WINDOW, parts.request_window.to_le_bytes());
    encoder.put(RESPONSE_WINDOW, parts.response_window.to_le_bytes());
    let bits = if parts.expect_continue {
        EXPECTS_CONTINUE
    } else {
        0
    };
    encoder.put(VERSION, [parts.version, parts.scheme, bits, 0]);
    encoder.put(COUNT, (count as u16).to_le_bytes());
    encoder.put(TABLE, (FIXED as u16).to_le_bytes());
    encoder.put(PEER_PORT, parts.peer_port.to_le_bytes());
    encoder.put(SERVER_PORT, parts.server_port.to_le_bytes());
    let target_at = encoder.append(TARGET, parts.target);
    let raw_at = encoder.append_part_of(RAW_PATH, parts.raw_path, parts.target, target_at);
    encoder.append_part_of(PATH, parts.path, parts.raw_path, raw_at);
    encoder.append_part_of(QUERY, parts.query, parts.target, target_at);
    encoder.append(METHOD, parts.method);
    encoder.append(AUTHORITY, parts.authority);
    encoder.append(ROOT_PATH, parts.root_path);
    encoder.append(PEER, parts.peer);
    encoder.append(SERVER, parts.server);
    for (index, (name, value)) in fields.enumerate().take(count) {
        encoder.field(FIXED + index * ENTRY, name, value, true);
    }
    encoder.append(BODY, parts.body);
    encoder.finish()
}

/// A request, decoded from a private copy of its record.
#[derive(Debug)]
pub struct Request {
    bytes: Vec<u8>,
}

impl Request {
    /// Validates the payload of a REQ_HEAD record.
    pub fn decode(bytes: Vec<u8>) -> Result<Self, DecodeError> {
        check(&bytes)?;
        Ok(Self { bytes })
    }

    /// The method, as sent.
    #[inline]
    pub fn method(&self) -> &[u8] {
        self.span(METHOD)
    }

    /// The request target, as sent.
    #[inline]
    pub fn target(&self) -> &[u8] {
        self.span(TARGET)
    }

    /// The path, as sent.
    #[inline]
    pub fn raw_path(&self) -> &[u8] {
        self.span(RAW_PATH)
    }

    /// The path, percent-decoded.
    #[inline]
    pub fn path(&self) -> &[u8] {
        self.span(PATH)
    }

    /// The query without its question mark.
    #[inline]
    pub fn query(&self) -> &[u8] {
        self.span(QUERY)
    }

    /// The Host value, or the authority of an absolute target.
    #[inline]
    pub fn authority(&self) -> &[u8] {
        self.span(AUTHORITY)
    }

    /// The prefix the application is mounted at.
    #[inline]
    pub fn root_path(&self) -> &[u8] {
        self.span(ROOT_PATH)
    }

    /// The client's address and port; none for a Unix socket.
    #[inline]
    pub fn peer(&self) -> Option<(&[u8], u16)> {
        let address = self.span(PEER);
        (!address.is_empty()).then(|| (address, u16_at(&self.bytes, PEER_PORT)))
    }

    /// The address and port the connection came in at; path and 0 for a Unix socket.
    #[inline]
    pub fn server(&self) -> (&[u8], u16) {
        (self.span(SERVER), u16_at(&self.bytes, SERVER_PORT))
    }

    /// The header fields in the order they came, names in lower case.
    #[inline]
    pub fn fields(&self) -> Fields<'_> {
        let table_at = usize::from(u16_at(&self.bytes, TABLE));
        Fields::new(&self.bytes, table_at, self.field_count())
    }

    /// The number of header fields.
    #[inline]
    pub fn field_count(&self) -> usize {
        usize::from(u16_at(&self.bytes, COUNT))
    }

    /// The value of the first field of this name, which is given in lower case.
    pub fn field(&self, name: &[u8]) -> Option<&[u8]> {
        self.fields()
            .find_map(|(field, value)| (field == name).then_some(value))
    }

    /// The body, or the first bytes of it.
    #[inline]
    pub fn body(&self) -> &[u8] {
        self.span(BODY)
    }

    /// CLOCK_MONOTONIC nanoseconds by which the response head must have been sent; 0 = none.
    #[inline]
    pub fn deadline(&self) -> u64 {
        u64::from_le_bytes(array_at(&self.bytes, DEADLINE))
    }

    /// Whether this is no request but a raw connection, whose bytes both bodies carry.
    #[inline]
    pub fn is_stream(&self) -> bool {
        self.version() == 0
    }

    /// 10, 11 or 20; 0 for a stream.
    #[inline]
    pub fn version(&self) -> u8 {
        self.bytes[VERSION]
    }

    /// 0 http, 1 https.
    #[inline]
    pub fn scheme(&self) -> u8 {
        self.bytes[SCHEME]
    }

    /// The client waits for `100 Continue` before it sends the body.
    #[inline]
    pub fn expects_continue(&self) -> bool {
        self.bytes[BITS] & EXPECTS_CONTINUE != 0
    }

    /// Request body bytes, inline ones included, the engine may send before it is granted more.
    #[inline]
    pub fn request_window(&self) -> u32 {
        u32::from_le_bytes(array_at(&self.bytes, REQUEST_WINDOW))
    }

    /// Response body bytes, inline ones included, the consumer may send before it is granted more.
    #[inline]
    pub fn response_window(&self) -> u32 {
        u32::from_le_bytes(array_at(&self.bytes, RESPONSE_WINDOW))
    }

    /// Gives the buffer back, to be filled again.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    #[inline]
    fn span(&self, at: usize) -> &[u8] {
        span(&self.bytes, &self.bytes, at)
    }
}

fn check(bytes: &[u8]) -> Result<(), DecodeError> {
    let len = bytes.len();
    if len > MAX_PAYLOAD {
        return Err(DecodeError::new(format!(
            "a request head of {len} bytes exceeds {MAX_PAYLOAD}"
        )));
    }
    let Some(head) = bytes.first_chunk::<FIXED>() else {
        return Err(DecodeError::new(format!(
            "a request head of {len} bytes is shorter than its fixed part of {FIXED}"
        )));
    };
    let mut inside = true;
    for at in (METHOD..FIXED).step_by(4) {
        inside &= span_fits(head, at, len);
    }
    if !inside {
        return Err(DecodeError::new(
            "a part of a request head lies outside of its record",
        ));
    }
    let table_at = usize::from(u16_at(head, TABLE));
    if table_at < FIXED {
        return Err(DecodeError::new(
            "the field table of a request head overlaps its fixed part",
        ));
    }
    check_table(bytes, table_at, usize::from(u16_at(head, COUNT)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sample<'a>(target: &'a [u8], body: &'a [u8]) -> RequestHeadParts<'a> {
        RequestHeadParts {
            deadline: 77,
            request_window: 65536,
            response_window: 131072,
            version: 11,
            scheme: 1,
            expect_continue: true,
            method: b"POST",
            target,
            raw_path: &target[..6],
            path: b"/a b",
            query: &target[7..],
            authority: b"example.org",
            root_path: b"/mnt",
            peer: b"127.0.0.1",
            peer_port: 4711,
            server: b"10.0.0.1",
            server_port: 8000,
            body,
        }
    }

    #[test]
    fn a_request_survives_the_way() {
        let fields: [(&[u8], &[u8]); 3] = [
            (b"Host", b"example.org"),
            (b"X-Empty", b""),
            (b"ACCEPT", b"*/*"),
        ];
        let mut out = b"before".to_vec();
        encode_request_head(
            &mut out,
            &sample(b"/a%20b?x=1", b"hello"),
            fields.into_iter(),
        )
        .unwrap();
        let request = Request::decode(out[6..].to_vec()).unwrap();
        assert_eq!(request.method(), b"POST");
        assert_eq!(request.target(), b"/a%20b?x=1");
        assert_eq!(request.raw_path(), b"/a%20b");
        assert_eq!(request.path(), b"/a b");
        assert_eq!(request.query(), b"x=1");
        assert_eq!(request.authority(), b"example.org");
        assert_eq!(request.root_path(), b"/mnt");
        assert_eq!(request.peer(), Some((&b"127.0.0.1"[..], 4711)));
        assert_eq!(request.server(), (&b"10.0.0.1"[..], 8000));
        assert_eq!(request.body(), b"hello");
        assert_eq!(request.deadline(), 77);
        assert_eq!((request.version(), request.scheme()), (11, 1));
        assert_eq!(request.request_window(), 65536);
        assert_eq!(request.response_window(), 131072);
        assert!(request.expects_continue());
        let got: Vec<_> = request.fields().collect();
        let want: Vec<(&[u8], &[u8])> = vec![
            (b"host", b"example.org"),
            (b"x-empty", b""),
            (b"accept", b"*/*"),
        ];
        assert_eq!(got, want);
        assert_eq!(request.field(b"accept"), Some(&b"*/*"[..]));
        assert_eq!(request.field(b"nope"), None);
    }

    #[test]
    fn parts_of_the_target_are_sent_once() {
        let target = [b'a'; 4000];
        let mut parts = RequestHeadParts {
            target: &target,
            raw_path: &target[..3000],
            path: &target[..3000],
            query: &target[3001..],
            ..Default::default()
        };
        let mut out = Vec::new();
        encode_request_head(&mut out, &parts, std::iter::empty()).unwrap();
        assert_eq!(out.len(), FIXED + 4000);
        let other = [b'a'; 3000];
        parts.path = &other;
        out.clear();
        encode_request_head(&mut out, &parts, std::iter::empty()).unwrap();
        assert_eq!(out.len(), FIXED + 7000);
    }

    #[test]
    fn what_fits_no_record_is_refused_and_leaves_nothing() {
        let body = vec![0; MAX_PAYLOAD - FIXED];
        let mut parts = RequestHeadParts {
            body: &body,
            ..Default::default()
        };
        let mut out = vec![1];
        encode_request_head(&mut out, &parts, std::iter::empty()).unwrap();
        let request = Request::decode(out.split_off(1)).unwrap();
        assert_eq!(request.body().len(), body.len());
        assert_eq!(request.peer(), None);
        parts.method = b"G";
        assert_eq!(
            encode_request_head(&mut out, &parts, std::iter::empty()),
            Err(TooLong)
        );
        assert_eq!(out, [1]);
    }

    fn touch(request: &Request) -> usize {
        let mut sum = request.method().len() + request.target().len() + request.raw_path().len();
        sum += request.path().len() + request.query().len() + request.authority().len();
        sum += request.root_path().len() + request.server().0.len() + request.body().len();
        sum += request.peer().map_or(0, |(address, _)| address.len());
        sum + request
            .fields()
            .map(|(n, v)| n.len() + v.len())
            .sum::<usize>()
    }

    proptest! {
        #[test]
        fn decoding_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            if let Ok(request) = Request::decode(bytes) {
                touch(&request);
            }
        }

        #[test]
        fn a_damaged_head_is_refused_or_well_formed(
            changes in proptest::collection::vec((0usize..140, any::<u8>()), 1..6),
            cut in 0usize..200,
        ) {
            let fields: [(&[u8], &[u8]); 2] = [(b"a", b"1"), (b"b", b"22")];
            let mut out = Vec::new();
            encode_request_head(&mut out, &sample(b"/a%20b?x=1", b"hello"), fields.into_iter())
                .unwrap();
            for (at, value) in changes {
                let at = at % out.len();
                out[at] = value;
            }
            out.truncate(out.len().min(cut.max(60)));
            if let Ok(request) = Request::decode(out) {
                touch(&request);
            }
        }

        #[test]
        fn fields_survive(fields in proptest::collection::vec(
            ("[a-zA-Z-]{1,20}", proptest::collection::vec(any::<u8>(), 0..40)), 0..30)
        ) {
            let mut out = Vec::new();
            let given = fields.iter().map(|(n, v)| (n.as_bytes(), v.as_slice()));
            encode_request_head(&mut out, &RequestHeadParts::default(), given).unwrap();
            let request = Request::decode(out).unwrap();
            prop_assert_eq!(request.field_count(), fields.len());
            for (got, want) in request.fields().zip(&fields) {
                let name = want.0.to_ascii_lowercase();
                prop_assert_eq!(got.0, name.as_bytes());
                prop_assert_eq!(got.1, &want.1[..]);
            }
        }
    }
}
