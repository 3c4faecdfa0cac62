//! Request heads: no panic, and what a prefix was told stays true of the whole.
//!
//! The first byte chooses the limits, the second where to split; the rest is the input.
#![no_main]

use libfuzzer_sys::fuzz_target;
use toolb_core::http::{Head, Limits, decode_path};

fuzz_target!(|data: &[u8]| {
    let [choice, split, input @ ..] = data else {
        return;
    };
    let limits = match choice % 4 {
        0 => Limits {
            request_line: 40,
            head: 120,
            fields: 3,
            body: 9,
        },
        _ => Limits::default(),
    };
    let end = usize::from(*split) * input.len() / 255;
    let (mut before, mut after) = (Head::default(), Head::default());
    let early = before.parse(&input[..end], &limits);
    let whole = after.parse(input, &limits);
    match early {
        Ok(false) => {}
        Ok(true) => {
            assert_eq!(whole, Ok(true));
            assert_eq!(before.len, after.len);
            assert_eq!(before.fields, after.fields);
            assert_eq!(before.target, after.target);
            assert_eq!(before.framing, after.framing);
        }
        Err(_) => assert!(whole.is_err()),
    }
    if whole != Ok(true) {
        return;
    }

    let head = &input[..after.len];
    assert!(head.ends_with(b"\r\n\r\n") && head.len() <= limits.head);
    // Each line ends with CRLF, and neither half of it stands anywhere else.
    let mut lines = head.split(|&byte| byte == b'\n');
    assert_eq!(lines.next_back(), Some(&b""[..]));
    assert!(lines.all(|line| line.iter().position(|&byte| byte == b'\r') == Some(line.len() - 1)));
    assert!(!head.contains(&0) && after.fields.len() <= limits.fields);
    let raw_path = after.raw_path.of(input);
    assert!(raw_path.starts_with(b"/") || raw_path == b"*");
    assert_eq!(after.has_escape, raw_path.contains(&b'%'));
    let mut path = Vec::new();
    decode_path(raw_path, &mut path);
    assert!(path.len() <= raw_path.len());

    let count = |wanted: &[u8]| {
        let named = after.fields.iter();
        named
            .filter(|(name, _)| name.of(input).eq_ignore_ascii_case(wanted))
            .count()
    };
    assert!(count(b"host") <= 1);
    assert!(count(b"content-length") + count(b"transfer-encoding") <= 1);
});
