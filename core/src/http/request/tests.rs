#![forbid(unsafe_code)]

use super::*;

fn parse(text: &[u8], limits: &Limits) -> Result<Option<Head>, Reject> {
    let mut head = Head::default();
    Ok(head.parse(text, limits)?.then_some(head))
}

fn complete(text: &str) -> Head {
    match parse(text.as_bytes(), &Limits::default()) {
        Ok(Some(head)) => head,
        other => panic!("{text:?}: {other:?}"),
    }
}

fn text(span: Span, of: &str) -> &str {
    std::str::from_utf8(span.of(of.as_bytes())).unwrap()
}

/// The status that a request with these lines after the request line is refused with.
fn refused(lines: &str) -> u16 {
    let request = format!("POST / HTTP/1.1\r\n{lines}\r\n");
    match parse(request.as_bytes(), &Limits::default()) {
        Err(reject) => reject.status,
        Ok(head) => panic!("{request:?} accepted: {head:?}"),
    }
}

#[test]
fn a_request_in_full() {
    let raw = "\r\nPUT /a%20b/c?x=1?2&y=%20 HTTP/1.1\r\nHost: example.org:80\r\nX:\t v \t\r\n\
                   Empty:\r\ncontent-LENGTH: 5\r\nExpect: 100-Continue\r\n\r\nhello";
    let head = complete(raw);
    assert_eq!(text(head.line(), raw), "PUT /a%20b/c?x=1?2&y=%20 HTTP/1.1");
    assert_eq!(text(head.method, raw), "PUT");
    assert_eq!(text(head.target, raw), "/a%20b/c?x=1?2&y=%20");
    assert_eq!(text(head.raw_path, raw), "/a%20b/c");
    assert_eq!(text(head.query, raw), "x=1?2&y=%20");
    assert_eq!(text(head.authority, raw), "example.org:80");
    assert_eq!(head.version, Version::Http11);
    assert_eq!(head.framing, BodyFraming::Length(5));
    assert!(head.keep_alive && head.expect_continue && head.has_escape);
    assert_eq!(&raw[head.len..], "hello");
    let show = |&(name, value)| (text(name, raw), text(value, raw));
    assert_eq!(
        head.fields.iter().map(show).collect::<Vec<_>>(),
        [
            ("Host", "example.org:80"),
            ("X", "v"),
            ("Empty", ""),
            ("content-LENGTH", "5"),
            ("Expect", "100-Continue"),
        ]
    );
}

#[test]
fn a_head_is_reused_without_leftovers() {
    let mut head = Head::default();
    let full =
        b"POST /%?q HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\nContent-Length: 1\r\n\r\n";
    assert_eq!(head.parse(full, &Limits::default()), Ok(true));
    let bare = b"GET / HTTP/1.0\r\n\r\n";
    assert_eq!(head.parse(bare, &Limits::default()), Ok(true));
    assert!(head.fields.is_empty() && !head.has_escape && !head.keep_alive);
    assert_eq!((head.query.len, head.authority.len), (0, 0));
    assert_eq!((head.framing, head.len), (BodyFraming::None, bare.len()));
}

#[test]
fn target_forms() {
    for (line, path, query, authority) in [
        ("GET / ", "/", "", "h"),
        ("GET /? ", "/", "", "h"),
        ("GET //x//y ", "//x//y", "", "h"),
        ("OPTIONS * ", "*", "", "h"),
        ("GET http://a.b:81 ", "/", "", "a.b:81"),
        ("GET HTTPS://a.b/ ", "/", "", "a.b"),
        ("GET http://a?b/c ", "/", "b/c", "a"),
        ("GET http://[::1]:8/p/q?r ", "/p/q", "r", "[::1]:8"),
        ("get /lower ", "/lower", "", "h"),
        ("M-SEARCH /|\"<>{}^`\\[] ", "/|\"<>{}^`\\[]", "", "h"),
    ] {
        let raw = format!("{line}HTTP/1.1\r\nHost: h\r\n\r\n");
        let head = complete(&raw);
        assert_eq!(text(head.raw_path, &raw), path, "{line}");
        assert_eq!(text(head.query, &raw), query, "{line}");
        assert_eq!(text(head.authority, &raw), authority, "{line}");
    }
    let raw = b"GET /\xff\xc3?\x80 HTTP/1.1\r\nHost: h\r\n\r\n";
    let head = parse(raw, &Limits::default()).unwrap().unwrap();
    assert_eq!(head.raw_path.of(raw), b"/\xff\xc3");
    assert_eq!(head.query.of(raw), b"\x80");
}

#[test]
fn a_host_in_the_target_takes_the_place_of_the_host_field() {
    for host in ["other", "", "a.b"] {
        let raw = format!("GET http://a.b/ HTTP/1.1\r\nX: 1\r\nHOST: {host}\r\nY:\r\n\r\n");
        let head = complete(&raw);
        let fields = head
            .fields
            .iter()
            .map(|&(name, value)| (text(name, &raw), text(value, &raw)));
        let fields: Vec<_> = fields.collect();
        assert_eq!(fields, [("X", "1"), ("HOST", "a.b"), ("Y", "")], "{host}");
    }
}

#[test]
fn refused_request_lines() {
    for (line, status) in [
        ("GET / HTTP/2.0", 505),
        ("GET / HTTP/1.2", 505),
        ("GET / HTTP/0.9", 505),
        ("PRI * HTTP/2.0", 505),
        ("GET / HTTP/1.10", 400),
        ("GET / HTTP/1", 400),
        ("GET / http/1.1", 400),
        ("GET / HTTP/x.y", 400),
        ("GET / HTTP/1.1 ", 400),
        ("GET /", 400),
        ("GET", 400),
        ("GET  / HTTP/1.1", 400),
        ("GET /  HTTP/1.1", 400),
        ("GET\t/ HTTP/1.1", 400),
        (" GET / HTTP/1.1", 400),
        ("G(T / HTTP/1.1", 400),
        ("G\u{e9}T / HTTP/1.1", 400),
        ("GET /a b HTTP/1.1", 400),
        ("GET /a#b HTTP/1.1", 400),
        ("GET /a?b#c HTTP/1.1", 400),
        ("GET /\0 HTTP/1.1", 400),
        ("GET /\x7f HTTP/1.1", 400),
        ("GET /\t HTTP/1.1", 400),
        ("GET /\r HTTP/1.1", 400),
        ("GET path HTTP/1.1", 400),
        ("GET ?q HTTP/1.1", 400),
        ("GET * HTTP/1.1", 400),
        ("OPTIONS ** HTTP/1.1", 400),
        ("GET ftp://h/ HTTP/1.1", 400),
        ("GET http:/h/ HTTP/1.1", 400),
        ("GET http:// HTTP/1.1", 400),
        ("GET http:///p HTTP/1.1", 400),
        ("GET http://u@h/ HTTP/1.1", 400),
        ("GET http://h:x/ HTTP/1.1", 400),
        ("GET h:80 HTTP/1.1", 400),
        ("CONNECT h:80 HTTP/1.1", 501),
        ("CONNECT / HTTP/1.1", 501),
        ("CONNECT * HTTP/1.1", 501),
    ] {
        let raw = format!("{line}\r\nHost: h\r\n\r\n");
        match parse(raw.as_bytes(), &Limits::default()) {
            Err(reject) => assert_eq!(reject.status, status, "{line:?}: {}", reject.reason),
            Ok(head) => panic!("{line:?} accepted: {head:?}"),
        }
    }
}

#[test]
fn refused_line_ends() {
    for raw in [
        "GET / HTTP/1.1\nHost: h\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: h\n\r\n",
        "GET / HTTP/1.1\r\nHost: h\r\n\n",
        "GET / HTTP/1.1\r\nHost: h\n\n",
        "GET / HTTP/1.1\r\nA: b\nHost: h\r\n\r\n",
        "GET / HTTP/1.1\r\nA:\nHost: h\r\n\r\n",
        "GET / HTTP/1.1\r\nA: b \nHost: h\r\n\r\n",
        "GET / HTTP/1.1\r\nA: b\rHost: h\r\n\r\n",
        "GET / HTTP/1.1\r\nA: b\r\r\nHost: h\r\n\r\n",
        "GET / HTTP/1.1\r\n\rHost: h\r\n\r\n",
        "GET / HTTP/1.0\n\r\n",
        "GET / HTTP/1.0\r\n\n",
        "\nGET / HTTP/1.1\r\nHost: h\r\n\r\n",
        "\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n",
        "\r\n\nGET / HTTP/1.1\r\nHost: h\r\n\r\n",
        "\rGET / HTTP/1.1\r\nHost: h\r\n\r\n",
    ] {
        let result = parse(raw.as_bytes(), &Limits::default());
        assert!(
            matches!(&result, Err(Reject { status: 400, .. })),
            "{raw:?}: {result:?}"
        );
    }
}

#[test]
fn refused_fields() {
    for (lines, status) in [
        ("", 400),
        ("Host: a\r\nHost: a\r\n", 400),
        ("Host: a\r\nhost: b\r\n", 400),
        ("Host: a, b\r\n", 400),
        ("Host: a b\r\n", 400),
        ("Host: http://a\r\n", 400),
        ("Host: a:b\r\n", 400),
        ("Host: u@a\r\n", 400),
        ("Host: h\r\n folded\r\n", 400),
        ("Host: h\r\n\tfolded: x\r\n", 400),
        (" Host: h\r\n", 400),
        ("Host : h\r\n", 400),
        ("Host\t: h\r\n", 400),
        ("Host: h\r\n: empty\r\n", 400),
        ("Host: h\r\nno colon\r\n", 400),
        ("Host: h\r\nnocolon\r\n", 400),
        ("Host: h\r\nA(: b\r\n", 400),
        ("Host: h\r\n\u{e9}: b\r\n", 400),
        ("Host: h\r\nA: \0\r\n", 400),
        ("Host: h\r\nA: b\x0bc\r\n", 400),
        ("Host: h\r\nA: b\x7f\r\n", 400),
        ("Host: h\r\nA\0: b\r\n", 400),
        ("Host: h\r\nExpect: 100-continue, x\r\n", 417),
        ("Host: h\r\nExpect:\r\n", 417),
        ("Host: h\r\nExpect: 100-continue\r\nExpect: magic\r\n", 417),
    ] {
        assert_eq!(refused(lines), status, "{lines:?}");
    }
}

#[test]
fn refused_framing() {
    for (lines, status) in [
        ("Content-Length: 1\r\nContent-Length: 2", 400),
        ("Content-Length: 1\r\nContent-Length: 1", 400),
        ("Content-Length: 1, 1", 400),
        ("Content-Length: +1", 400),
        ("Content-Length: -1", 400),
        ("Content-Length: 0x1", 400),
        ("Content-Length: 1 1", 400),
        ("Content-Length: 1.0", 400),
        ("Content-Length:", 400),
        ("Content-Length: \u{661}", 400),
        ("Content-Length: 18446744073709551616", 400),
        ("Content-Length: 18446744073709551615", 413),
        ("Content-Length: 104857601", 413),
        ("Content-Length: 0\r\nTransfer-Encoding: chunked", 400),
        ("Transfer-Encoding: chunked\r\nContent-Length: 0", 400),
        ("Transfer-Encoding: gzip, chunked\r\nContent-Length: 0", 400),
        ("Transfer-Encoding: gzip, chunked", 501),
        ("Transfer-Encoding: gzip;q=1, chunked", 501),
        ("Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked", 501),
        ("Transfer-Encoding: gzip", 400),
        ("Transfer-Encoding: identity", 400),
        ("Transfer-Encoding: xchunked", 400),
        ("Transfer-Encoding: chunked, gzip", 400),
        ("Transfer-Encoding: chunked, chunked", 400),
        ("Transfer-Encoding: gzip, chunked, chunked", 400),
        (
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            400,
        ),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: gzip", 400),
        (
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
            400,
        ),
        ("Transfer-Encoding: chunked;a=b", 400),
        ("Transfer-Encoding: chunked,", 400),
        ("Transfer-Encoding: ,chunked", 400),
        ("Transfer-Encoding: \"chunked\"", 400),
        ("Transfer-Encoding:", 400),
        ("Transfer-Encoding: \x0bchunked", 400),
    ] {
        assert_eq!(
            refused(&format!("Host: h\r\n{lines}\r\n")),
            status,
            "{lines:?}"
        );
    }
    let old = b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(parse(old, &Limits::default()).unwrap_err().status, 400);
}

#[test]
fn accepted_framing() {
    for (lines, framing) in [
        ("", BodyFraming::None),
        ("Content-Length: 0\r\n", BodyFraming::None),
        ("Content-Length: 0012 \r\n", BodyFraming::Length(12)),
        (
            "Content-Length: 104857600\r\n",
            BodyFraming::Length(104_857_600),
        ),
        ("Transfer-Encoding: chunked\r\n", BodyFraming::Chunked),
        ("transfer-encoding:\tChunked \r\n", BodyFraming::Chunked),
        (
            "X-Content-Length: 9\r\nContent_Length: 8\r\n",
            BodyFraming::None,
        ),
    ] {
        let raw = format!("POST / HTTP/1.1\r\nHost:\r\n{lines}\r\n");
        assert_eq!(complete(&raw).framing, framing, "{lines:?}");
    }
}

#[test]
fn keep_alive_and_expectations() {
    for (version, lines, keep_alive, expects) in [
        ("1.1", "", true, false),
        ("1.1", "Connection: close\r\n", false, false),
        ("1.1", "Connection: x, CLOSE ,y\r\n", false, false),
        (
            "1.1",
            "Connection: keep-alive\r\nConnection: close\r\n",
            false,
            false,
        ),
        ("1.1", "Connection: closed\r\n", true, false),
        ("1.0", "", false, false),
        ("1.0", "Connection: Keep-Alive\r\n", true, false),
        ("1.0", "Connection: keep-alive, close\r\n", false, false),
        (
            "1.1",
            "Content-Length: 1\r\nExpect: 100-continue\r\n",
            true,
            true,
        ),
        (
            "1.1",
            "Transfer-Encoding: chunked\r\nExpect: 100-CONTINUE\r\n",
            true,
            true,
        ),
        ("1.1", "Expect: 100-continue\r\n", true, false),
        (
            "1.1",
            "Content-Length: 0\r\nExpect: 100-continue\r\n",
            true,
            false,
        ),
        (
            "1.0",
            "Content-Length: 1\r\nExpect: 100-continue\r\n",
            false,
            false,
        ),
        (
            "1.0",
            "Content-Length: 1\r\nExpect: magic\r\n",
            false,
            false,
        ),
    ] {
        let raw = format!("PUT / HTTP/{version}\r\nHost: h\r\n{lines}\r\n");
        let head = complete(&raw);
        assert_eq!(
            (head.keep_alive, head.expect_continue),
            (keep_alive, expects),
            "{raw:?}"
        );
    }
}

#[test]
fn limits_fire_exactly_and_on_incomplete_input() {
    let limits = Limits {
        request_line: 30,
        head: 100,
        fields: 3,
        body: 0,
    };
    let line = |path: usize| format!("GET /{} HTTP/1.1", "p".repeat(path));
    let fits = line(16);
    assert_eq!(fits.len(), 30);
    let status = |text: &str| match parse(text.as_bytes(), &limits) {
        Ok(Some(_)) => 200,
        Ok(None) => 100,
        Err(reject) => reject.status,
    };
    assert_eq!(status(&format!("{fits}\r\nHost: h\r\n\r\n")), 200);
    assert_eq!(status(&format!("\r\n{fits}\r\nHost: h\r\n\r\n")), 200);
    assert_eq!(status(&format!("{}\r\nHost: h\r\n\r\n", line(17))), 414);
    assert_eq!(status(&format!("{fits}\r")), 100);
    assert_eq!(status(&"G".repeat(31)), 100);
    assert_eq!(status(&"G".repeat(32)), 414);
    assert_eq!(status(&format!("GET /{}", "p".repeat(26))), 100);
    assert_eq!(status(&format!("GET /{}", "p".repeat(27))), 414);

    let head = |value: usize| {
        format!(
            "GET / HTTP/1.1\r\nHost: h\r\nA: {}\r\n\r\n",
            "v".repeat(value)
        )
    };
    assert_eq!(head(68).len(), 100);
    assert_eq!(status(&head(68)), 200);
    assert_eq!(status(&format!("{}body beyond the limit", head(68))), 200);
    assert_eq!(status(&head(69)), 431);
    assert_eq!(status(&head(200)[..99]), 100);
    assert_eq!(status(&head(200)[..100]), 431);

    let fields =
        |count: usize| format!("GET / HTTP/1.1\r\nHost: h\r\n{}", "A: b\r\n".repeat(count));
    assert_eq!(status(&format!("{}\r\n", fields(2))), 200);
    assert_eq!(status(&format!("{}\r\n", fields(3))), 431);
    assert_eq!(status(&fields(2)), 100);
    assert_eq!(status(&fields(4)), 431);

    let off = Limits {
        request_line: usize::MAX,
        head: usize::MAX,
        fields: usize::MAX,
        body: 0,
    };
    let huge = format!(
        "GET /{} HTTP/1.1\r\nHost: h\r\n{}Content-Length: 18446744073709551615\r\n\r\n",
        "p".repeat(100_000),
        "A: b\r\n".repeat(1_000)
    );
    let head = parse(huge.as_bytes(), &off).unwrap().unwrap();
    assert_eq!((head.fields.len(), head.len), (1_002, huge.len()));
    let many = format!(
        "GET / HTTP/1.1\r\nHost: h\r\n{}",
        "Abcdefg: hijklmno\r\n".repeat(101)
    );
    assert_eq!(
        parse(many.as_bytes(), &Limits::default())
            .unwrap_err()
            .status,
        431
    );
}

#[test]
fn empty_lines_are_found_wherever_they_are() {
    for end in ["\n\n", "\n\r\n", "\r\n\r\n"] {
        for before in 0..200 {
            for after in [0, 1, 2, 63, 64, 65, 130] {
                let text = format!("{}{end}{}", "x".repeat(before), "y".repeat(after));
                assert!(may_have_empty_line(text.as_bytes()), "{text:?}");
                let text = text.replace(end, "\n.");
                assert!(!may_have_empty_line(text.as_bytes()), "{text:?}");
            }
        }
    }
}
