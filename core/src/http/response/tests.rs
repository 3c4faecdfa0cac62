#![forbid(unsafe_code)]

use super::*;

const NOTHING: Extras<'static> = Extras {
    date: None,
    server: None,
};

fn facts(version: Version, head_request: bool) -> ResponseFacts {
    ResponseFacts {
        version,
        head_request,
        keep_alive: true,
    }
}

fn fields<'a>(of: &'a [(&'a str, &'a str)]) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
    of.iter()
        .map(|(name, value)| (name.as_bytes(), value.as_bytes()))
}

/// Status, fields and body "hello" in two pieces: what goes out, and whether it closes.
fn respond(
    facts: ResponseFacts,
    status: u16,
    given: &[(&str, &str)],
    length: BodyLength,
) -> (String, bool) {
    let mut out = Vec::new();
    let mut writer = ResponseWriter::new(facts);
    writer
        .head(&mut out, status, fields(given), length, &NOTHING)
        .unwrap();
    for piece in ["he", "", "llo"] {
        writer.body(&mut out, piece.as_bytes()).unwrap();
    }
    writer.end(&mut out).unwrap();
    (String::from_utf8(out).unwrap(), writer.will_close())
}

#[test]
fn framing_matrix() {
    use BodyLength::{Known, Unknown};
    use Version::{Http10, Http11};
    let length = [("Content-Length", "5")];
    let chunks = "transfer-encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n";
    for (version, head, status, app, body, wanted) in [
        (
            Http11,
            false,
            200,
            false,
            Known(5),
            "content-length: 5\r\n\r\nhello",
        ),
        (
            Http11,
            false,
            200,
            true,
            Unknown,
            "content-length: 5\r\n\r\nhello",
        ),
        (
            Http11,
            false,
            200,
            true,
            Known(5),
            "content-length: 5\r\n\r\nhello",
        ),
        (Http11, false, 200, false, Unknown, chunks),
        (Http11, false, 404, false, Unknown, chunks),
        (
            Http11,
            true,
            200,
            false,
            Known(5),
            "content-length: 5\r\n\r\n",
        ),
        (Http11, true, 200, false, Known(0), "\r\n"),
        (
            Http11,
            true,
            200,
            true,
            Unknown,
            "content-length: 5\r\n\r\n",
        ),
        (Http11, true, 200, false, Unknown, "\r\n"),
        (Http11, false, 204, false, Known(5), "\r\n"),
        (Http11, false, 204, true, Unknown, "\r\n"),
        (Http11, false, 204, false, Unknown, "\r\n"),
        (
            Http11,
            false,
            205,
            false,
            Known(5),
            "content-length: 0\r\n\r\n",
        ),
        (
            Http11,
            false,
            205,
            true,
            Unknown,
            "content-length: 0\r\n\r\n",
        ),
        (Http11, false, 304, false, Known(0), "\r\n"),
        (
            Http11,
            false,
            304,
            true,
            Known(0),
            "content-length: 5\r\n\r\n",
        ),
        (Http11, false, 304, false, Unknown, "\r\n"),
        (Http11, true, 204, true, Unknown, "\r\n"),
        (
            Http11,
            true,
            304,
            true,
            Unknown,
            "content-length: 5\r\n\r\n",
        ),
        (
            Http10,
            false,
            200,
            false,
            Known(5),
            "content-length: 5\r\nconnection: keep-alive\r\n\r\nhello",
        ),
        (
            Http10,
            false,
            200,
            true,
            Unknown,
            "content-length: 5\r\nconnection: keep-alive\r\n\r\nhello",
        ),
        (
            Http10,
            false,
            200,
            false,
            Unknown,
            "connection: close\r\n\r\nhello",
        ),
        (
            Http10,
            true,
            200,
            false,
            Unknown,
            "connection: keep-alive\r\n\r\n",
        ),
        (
            Http10,
            false,
            204,
            true,
            Unknown,
            "connection: keep-alive\r\n\r\n",
        ),
        (
            Http10,
            false,
            304,
            false,
            Unknown,
            "connection: keep-alive\r\n\r\n",
        ),
    ] {
        let given: &[_] = if app { &length } else { &[] };
        let (out, close) = respond(facts(version, head), status, given, body);
        let case = format!("{version:?} {head} {status} {app} {body:?}");
        let (line, rest) = out.split_once("\r\n").unwrap();
        assert_eq!(
            line,
            format!("HTTP/1.1 {status} {}", reason_phrase(status)),
            "{case}"
        );
        // A head without fields is the empty line only.
        assert_eq!(rest, wanted, "{case}");
        assert_eq!(close, rest.contains("connection: close"), "{case}");

        let closing = ResponseFacts {
            keep_alive: false,
            ..facts(version, head)
        };
        let (out, close) = respond(closing, status, given, body);
        assert!(
            close && out.matches("connection: close\r\n").count() == 1,
            "{case}: {out}"
        );
        assert!(!out.contains("keep-alive"), "{case}");
    }
}

#[test]
fn the_application_s_own_framing_fields() {
    let known = BodyLength::Known(5);
    let given = [
        ("Transfer-Encoding", "chunked"),
        ("X-A", "\tb \u{e9}"),
        ("x-a", ""),
    ];
    let (out, close) = respond(facts(Version::Http11, false), 299, &given, known);
    assert_eq!(
        out,
        "HTTP/1.1 299 \r\nX-A: \tb \u{e9}\r\nx-a: \r\ncontent-length: 5\r\n\r\nhello"
    );
    assert!(!close);
    for (option, closes, wanted) in [
        ("close", true, "connection: close\r\n\r\n"),
        ("Upgrade, Close", true, "connection: close, upgrade\r\n\r\n"),
        ("upgrade", false, "connection: upgrade\r\n\r\n"),
        (
            "keep-alive, content-length",
            false,
            "content-length: 5\r\n\r\n",
        ),
    ] {
        let given = [("connection", option)];
        let (out, close) = respond(facts(Version::Http11, false), 200, &given, known);
        assert_eq!(close, closes, "{option}");
        assert!(out.ends_with(&format!("{wanted}hello")), "{option}: {out}");
    }
}

#[test]
fn extras_give_way() {
    let extras = Extras {
        date: Some(b"Sun, 06 Nov 1994 08:49:37 GMT"),
        server: Some("toolb"),
    };
    let head = |given: &[(&str, &str)]| {
        let mut out = Vec::new();
        let mut writer = ResponseWriter::new(facts(Version::Http11, false));
        writer
            .head(&mut out, 204, fields(given), BodyLength::Unknown, &extras)
            .unwrap();
        String::from_utf8(out).unwrap()
    };
    assert_eq!(
        head(&[]),
        "HTTP/1.1 204 No Content\r\ndate: Sun, 06 Nov 1994 08:49:37 GMT\r\nserver: toolb\r\n\r\n"
    );
    assert_eq!(
        head(&[("DATE", "x"), ("Server", "y")]),
        "HTTP/1.1 204 No Content\r\nDATE: x\r\nServer: y\r\n\r\n"
    );
}

#[test]
fn refused_heads_leave_nothing_behind() {
    use HeadError::{ContentLength, Name, Status, Value};
    type Case<'a> = (u16, &'a [(&'a str, &'a str)], HeadError);
    let cases: [Case<'_>; 18] = [
        (100, &[], Status(100)),
        (101, &[], Status(101)),
        (199, &[], Status(199)),
        (0, &[], Status(0)),
        (600, &[], Status(600)),
        (200, &[("", "x")], Name),
        (200, &[("a b", "x")], Name),
        (200, &[("a:", "x")], Name),
        (200, &[("a\r\nb", "x")], Name),
        (200, &[("\u{e9}", "x")], Name),
        (200, &[("ok", "1"), ("a", "b\r\nSet-Cookie: c")], Value),
        (200, &[("a", "b\nc")], Value),
        (200, &[("a", "b\0")], Value),
        (200, &[("a", "\x7f")], Value),
        (
            200,
            &[("Content-Length", "5"), ("content-length", "5")],
            ContentLength,
        ),
        (200, &[("Content-Length", "5, 5")], ContentLength),
        (200, &[("Content-Length", "-5")], ContentLength),
        (204, &[("Content-Length", "")], ContentLength),
    ];
    for (status, given, error) in cases {
        let mut out = b"before".to_vec();
        let mut writer = ResponseWriter::new(facts(Version::Http11, false));
        let result = writer.head(
            &mut out,
            status,
            fields(given),
            BodyLength::Known(0),
            &NOTHING,
        );
        assert_eq!(result, Err(error), "{status} {given:?}");
        assert_eq!(out, b"before");
        // The engine can still answer 500.
        let known = BodyLength::Known(0);
        assert_eq!(
            writer.head(&mut out, 500, fields(&[]), known, &NOTHING),
            Ok(())
        );
        let again = writer.head(&mut out, 500, fields(&[]), known, &NOTHING);
        assert_eq!(again, Err(HeadError::Repeated));
    }
}

#[test]
fn never_more_or_fewer_than_content_length() {
    let begin = |length: &'static str| {
        let mut writer = ResponseWriter::new(facts(Version::Http11, false));
        let given = [("content-length", length)];
        let mut out = Vec::new();
        writer
            .head(&mut out, 200, fields(&given), BodyLength::Unknown, &NOTHING)
            .unwrap();
        out.clear();
        (writer, out)
    };
    let (mut writer, mut out) = begin("3");
    assert_eq!(writer.body(&mut out, b"hello"), Err(BodyError::TooLong));
    assert_eq!((&out[..], writer.will_close()), (&b"hel"[..], true));
    assert_eq!(writer.body(&mut out, b"x"), Err(BodyError::TooLong));
    assert_eq!((writer.end(&mut out), out.len()), (Ok(()), 3));

    let (mut writer, mut out) = begin("3");
    assert_eq!(writer.body(&mut out, b"he"), Ok(()));
    assert!(!writer.will_close());
    assert_eq!(writer.end(&mut out), Err(BodyError::TooShort));
    assert!(writer.will_close());

    let (mut writer, mut out) = begin("0");
    assert_eq!(writer.end(&mut out), Ok(()));
    assert_eq!(writer.body(&mut out, b""), Ok(()));
    assert_eq!(writer.body(&mut out, b"x"), Ok(()));
    assert_eq!(writer.end(&mut out), Ok(()));
    assert!(out.is_empty());

    let mut writer = ResponseWriter::new(facts(Version::Http11, false));
    assert_eq!(writer.body(&mut out, b"x"), Ok(()));
    assert_eq!(writer.end(&mut out), Ok(()));
    assert!(out.is_empty());
}

#[test]
fn the_engine_s_own_responses() {
    let page = |facts| {
        let mut out = Vec::new();
        simple_response(
            &mut out,
            &facts,
            503,
            "busy\n",
            &[("retry-after", "1")],
            &NOTHING,
        );
        String::from_utf8(out).unwrap()
    };
    let head = "HTTP/1.1 503 Service Unavailable\r\ncontent-type: text/plain; charset=utf-8\r\n\
                    retry-after: 1\r\ncontent-length: 5\r\n";
    let open = facts(Version::Http11, false);
    assert_eq!(page(open), format!("{head}\r\nbusy\n"));
    assert_eq!(page(facts(Version::Http11, true)), format!("{head}\r\n"));
    let closing = ResponseFacts {
        keep_alive: false,
        ..open
    };
    assert_eq!(
        page(closing),
        format!("{head}connection: close\r\n\r\nbusy\n")
    );
}

#[test]
fn numbers() {
    for value in [0, 9, 10, 255, 256, 65_535, u64::MAX] {
        let (mut decimal, mut hex) = (Vec::new(), Vec::new());
        push_decimal(&mut decimal, value);
        push_hex(&mut hex, value);
        assert_eq!(decimal, value.to_string().as_bytes());
        assert_eq!(hex, format!("{value:x}").as_bytes());
    }
}
