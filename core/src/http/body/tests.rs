#![forbid(unsafe_code)]

use super::*;

/// Feeds `input` in pieces; returns the body, the bytes that were not consumed and the end.
fn read(
    framing: BodyFraming,
    limit: u64,
    input: &[u8],
    piece: usize,
) -> Result<(Vec<u8>, usize, bool), Reject> {
    let mut reader = BodyReader::new(framing, limit);
    let (mut body, mut have, mut at) = (Vec::new(), piece.min(input.len()), 0);
    loop {
        let step = reader.next(&input[at..have])?;
        assert_eq!(step.is_end, reader.is_done());
        assert!(step.data.is_empty() || step.data.end == step.consumed);
        body.extend_from_slice(&input[at..][step.data.clone()]);
        at += step.consumed;
        if step.is_end {
            return Ok((body, input.len() - at, true));
        }
        if step.needs_more() {
            assert_eq!(
                at, have,
                "everything must be consumed before it asks for more"
            );
            if have == input.len() {
                return Ok((body, 0, false));
            }
            have = (have + piece).min(input.len());
        }
    }
}

fn chunked(input: &str) -> Result<(Vec<u8>, usize, bool), Reject> {
    let whole = read(BodyFraming::Chunked, 1_000, input.as_bytes(), usize::MAX);
    for piece in [1, 2, 3, 7] {
        let split = read(BodyFraming::Chunked, 1_000, input.as_bytes(), piece);
        assert_eq!(split, whole, "{input:?} in pieces of {piece}");
    }
    whole
}

#[test]
fn by_length() {
    for piece in [1, 2, 100] {
        let result = read(BodyFraming::Length(5), 0, b"hellonext", piece);
        let (body, _, done) = result.unwrap();
        assert_eq!((&body[..], done), (&b"hello"[..], true));
    }
    assert!(BodyReader::new(BodyFraming::None, 0).is_done());
    assert!(BodyReader::new(BodyFraming::Length(0), 0).is_done());
    let mut reader = BodyReader::new(BodyFraming::Length(2), 0);
    let both = BodyStep {
        data: 0..2,
        consumed: 2,
        is_end: true,
    };
    assert_eq!(reader.next(b"abc"), Ok(both));
    let end = BodyStep {
        data: 0..0,
        consumed: 0,
        is_end: true,
    };
    assert_eq!(reader.next(b"c"), Ok(end));
}

#[test]
fn collected() {
    let input = b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\nGET";
    let mut reader = BodyReader::new(BodyFraming::Chunked, 0);
    let mut body = Vec::new();
    let first = reader.collect(input, 4, &mut body).unwrap();
    assert_eq!((&body[..], reader.is_done()), (&b"abcd"[..], false));
    let rest = &input[first..];
    let second = reader.collect(&rest[..3], 9, &mut body).unwrap();
    assert_eq!((second, reader.is_done()), (3, false));
    let third = reader.collect(&rest[3..], 9, &mut body).unwrap();
    assert_eq!((&body[..], reader.is_done()), (&b"abcde"[..], true));
    assert_eq!(&rest[3 + third..], b"GET");
    assert!(
        reader
            .collect(b"GET", 9, &mut body)
            .is_ok_and(|consumed| consumed == 0)
    );
    let mut reader = BodyReader::new(BodyFraming::Chunked, 0);
    assert!(reader.collect(b"1\r\nxy", 9, &mut body).is_err());
}

#[test]
fn accepted_chunks() {
    for (input, body) in [
        ("0\r\n\r\n", ""),
        ("5\r\nhello\r\n0\r\n\r\n", "hello"),
        (
            "3\r\nabc\r\n00A\r\n0123456789\r\n000\r\n\r\n",
            "abc0123456789",
        ),
        ("0000000000000001\r\nx\r\n0\r\n\r\n", "x"),
        ("1;a\r\nx\r\n0;b=c;d=\"e \\\" f\"\r\n\r\n", "x"),
        ("1\r\n\n\r\n0\r\n\r\n", "\n"),
        ("0\r\nA: b\r\nC:\r\nContent-Length: 7\r\n\r\n", ""),
    ] {
        assert_eq!(chunked(input), Ok((body.into(), 0, true)), "{input:?}");
    }
    let whole = read(BodyFraming::Chunked, 0, b"0\r\n\r\nGET /", usize::MAX);
    assert_eq!(whole, Ok((vec![], 5, true)));
    // Complete data, but no last chunk.
    assert_eq!(chunked("5\r\nhello\r\n"), Ok((b"hello".into(), 0, false)));
}

#[test]
fn refused_chunks() {
    for input in [
        "\r\n",
        ";a\r\n",
        "x\r\n",
        "-1\r\n",
        "+1\r\n",
        " 1\r\n",
        "1 \r\n",
        "1\t\r\n",
        "0x1\r\n",
        "1_0\r\n",
        "1\n",
        "1\r1",
        "1\r\r\n",
        "\n",
        "00000000000000001\r\n",
        "fffffffffffffffff\r\n",
        "1;\r\n",
        "1;=b\r\n",
        "1;a=\r\n",
        "1;a=b=c\r\n",
        "1;a\n",
        "1 ;a\r\n",
        "1; a\r\n",
        "1;a =b\r\n",
        "1;a= b\r\n",
        "1;a=\"b\r\n",
        "1;a=\"b\"c\r\n",
        "1;a b\r\n",
        "1;a\0\r\n",
        "1;a=b \r\n",
        "1;a=\"\n\"\r\n",
        "1;a=\"\\\r\n",
        "1\r\nxy\r\n",
        "1\r\nx\n0\r\n\r\n",
        "1\r\nx0\r\n\r\n",
        "0\r\n\n",
        "0\r\nA\r\n\r\n",
        "0\r\nA : b\r\n",
        "0\r\n: b\r\n",
        "0\r\nA: \x01\r\n",
        "0\r\nA: b\n\r\n",
        "0\r\nA: b\r\n c\r\n",
        "0\r\n\r\r",
        "0\r\nA: b\rC: d\r\n",
    ] {
        let result = chunked(input);
        assert!(
            matches!(result, Err(Reject { status: 400, .. })),
            "{input:?}: {result:?}"
        );
    }
}

#[test]
fn limits() {
    let status = |input: &str| chunked(input).map_or_else(|reject| reject.status, |_| 200);
    assert_eq!(
        status(&format!("3e8\r\n{}\r\n0\r\n\r\n", "x".repeat(1000))),
        200
    );
    assert_eq!(status("3e9\r"), 413);
    assert_eq!(status(&format!("3e8\r\n{}\r\n1\r", "x".repeat(1000))), 413);
    assert_eq!(status("ffffffffffffffff\r"), 413);
    let twice = "1\r\nx\r\nffffffffffffffff\r\n";
    let unlimited = read(BodyFraming::Chunked, 0, twice.as_bytes(), usize::MAX);
    assert_eq!(unlimited.unwrap_err().status, 413);
    // 16 KiB of extensions, and one byte more for each byte of data.
    let extension = format!("1;{}\r\nx\r\n", "a".repeat(1000));
    assert_eq!(status(&extension.repeat(16)), 200);
    assert_eq!(status(&extension.repeat(17)), 413);
    let data = "x".repeat(20);
    let earned = format!("14;{}\r\n{data}\r\n", "a".repeat(19));
    let many = read(
        BodyFraming::Chunked,
        0,
        earned.repeat(2000).as_bytes(),
        1000,
    );
    assert!(many.is_ok_and(|(body, ..)| body.len() == 40_000));
    let trailer = format!("A: {}\r\n", "b".repeat(1000));
    assert_eq!(status(&format!("0\r\n{}", trailer.repeat(16))), 200);
    assert_eq!(status(&format!("0\r\n{}", trailer.repeat(17))), 431);
}

#[test]
fn a_refusal_stays() {
    let mut reader = BodyReader::new(BodyFraming::Chunked, 0);
    let first = reader.next(b"zz");
    assert!(first.is_err() && !reader.is_done());
    assert_eq!(reader.next(b"0\r\n\r\n"), first);
}
