//! Percent-encoding (RFC 3986, 2.1).
#![forbid(unsafe_code)]

/// Appends `raw` to `out` with its escapes decoded; what is not an escape stays as it is.
pub fn decode_path(raw: &[u8], out: &mut Vec<u8>) {
    let mut rest = raw;
    while let Some(at) = rest.iter().position(|byte| *byte == b'%') {
        out.extend_from_slice(&rest[..at]);
        match rest[at + 1..] {
            [high, low, ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                out.push(hex(high) << 4 | hex(low));
                rest = &rest[at + 3..];
            }
            _ => {
                out.push(b'%');
                rest = &rest[at + 1..];
            }
        }
    }
    out.extend_from_slice(rest);
}

fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20) - b'a' + 10,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_decoded_and_the_rest_stays() {
        for (raw, decoded) in [
            ("", ""),
            ("/a%20b", "/a b"),
            ("/%E2%82%ac", "/€"),
            ("/100%", "/100%"),
            ("/%4", "/%4"),
            ("/%zz%41", "/%zzA"),
            ("%2541", "%41"),
        ] {
            let mut out = Vec::new();
            decode_path(raw.as_bytes(), &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), decoded, "{raw}");
        }
    }
}
