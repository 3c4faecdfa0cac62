//! Percent-decoding of request paths.
#![forbid(unsafe_code)]

use super::syntax::hex_digit;

/// Appends `raw` to `out` with its percent-escapes decoded, once.
///
/// A malformed escape stays as it is, `+` stays `+`, and the result need not be UTF-8. Dot
/// segments are left alone: what they mean is the business of whoever maps paths to resources.
pub fn decode_path(raw: &[u8], out: &mut Vec<u8>) {
    let mut rest = raw;
    while let Some(at) = rest.iter().position(|&byte| byte == b'%') {
        out.extend_from_slice(&rest[..at]);
        rest = &rest[at..];
        let decoded = match *rest {
            [_, high, low, ..] => hex_digit(high).zip(hex_digit(low)),
            _ => None,
        };
        match decoded {
            Some((high, low)) => {
                out.push(high << 4 | low);
                rest = &rest[3..];
            }
            None => {
                out.push(b'%');
                rest = &rest[1..];
            }
        }
    }
    out.extend_from_slice(rest);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decodes_once_and_keeps_what_is_malformed() {
        for (raw, decoded) in [
            (&b"/plain/path"[..], &b"/plain/path"[..]),
            (b"", b""),
            (b"/a%20b%2Fc%2fd", b"/a b/c/d"),
            (b"/%2541", b"/%41"),
            (b"/%", b"/%"),
            (b"/%4", b"/%4"),
            (b"/%zz%4x%%41", b"/%zz%4x%A"),
            (b"/%00%ff+\xfe", b"/\0\xff+\xfe"),
        ] {
            let mut out = b"<".to_vec();
            decode_path(raw, &mut out);
            assert_eq!(&out[1..], decoded, "{}", raw.escape_ascii());
        }
    }
}
