//! Heads and bodies that break the rules of HTTP or of the bus.

use super::*;

#[test]
fn a_second_head() {
    let got = act(Lane::Poisoned("second response head"), |peer, it| {
        assert!(peer.start(it));
        peer.say(it, Kind::ResponseHead, 0, &head(-1, &[], b"one"));
        peer.say(it, Kind::ResponseHead, END | DONE, &plain(b"two"));
    });
    assert_eq!(got, Got::Cut);
}

#[test]
fn a_body_without_a_head() {
    let got = act(Lane::Poisoned("without a head"), |peer, it| {
        assert!(peer.start(it));
        peer.say(it, Kind::ResponseBody, END | DONE, b"body");
    });
    assert_eq!(got, died());
}

#[test]
fn bytes_of_a_stream_for_a_request() {
    let got = act(Lane::Poisoned("of a stream for a request"), |peer, it| {
        assert!(peer.start(it));
        peer.say(it, Kind::Data, END | DONE, b"body");
    });
    assert_eq!(got, died());
}

#[test]
fn a_body_longer_than_its_content_length() {
    for flags in [0, END, END | DONE] {
        let got = act(Lane::Kept, |peer, it| {
            assert!(peer.start(it));
            peer.say(it, Kind::ResponseHead, 0, &head(5, &[], b"fi"));
            peer.say(it, Kind::ResponseBody, flags, b"ve and more");
            if flags == 0 {
                peer.say(it, Kind::ResponseBody, END | DONE, b"and more");
            }
        });
        assert_eq!(got, right("five "));
    }
}

#[test]
fn a_body_beyond_its_window() {
    let got = act(Lane::Poisoned("window"), |peer, it| {
        assert!(peer.start(it));
        peer.write(it, Kind::ResponseHead as u8, 0, &head(-1, &[], b""));
        for _ in 0..3 {
            peer.write(it, Kind::ResponseBody as u8, 0, &[b'x'; 60_000]);
        }
        peer.publish();
    });
    assert_eq!(got, Got::Cut);
}

#[test]
fn a_head_that_is_none() {
    for payload in [&b""[..], b"HTTP/1.1 200 OK\r\n\r\n", &[0xFF; 300]] {
        let got = act(Lane::Poisoned("a bad response head"), |peer, it| {
            assert!(peer.start(it));
            peer.say(it, Kind::ResponseHead, END | DONE, payload);
        });
        assert_eq!(got, died());
    }
}

#[test]
fn a_head_that_would_be_two_responses() {
    let fields: [(&[u8], &[u8]); 4] = [
        (b"a", b"b\r\nc: d"),
        (b"a\r\n\r\nHTTP/1.1 200 OK", b"b"),
        (b"a: b", b"c"),
        (b"content-length", b"7"),
    ];
    for field in fields {
        let got = act(Lane::Kept, |peer, it| {
            assert!(peer.start(it));
            let payload = head(1, &[field, (b"content-length", b"1")], b"x");
            peer.say(it, Kind::ResponseHead, END | DONE, &payload);
        });
        assert_eq!(got, failed(), "{field:?}");
    }
}

#[test]
fn a_status_that_is_none_or_only_announces_one() {
    for status in [0, 42, 100, 101, 199, 1000, u16::MAX] {
        let got = act(Lane::Kept, |peer, it| {
            assert!(peer.start(it));
            let mut payload = Vec::new();
            let none = std::iter::empty();
            encode_response_head(&mut payload, status, 1, none, b"x").unwrap();
            peer.say(it, Kind::ResponseHead, END | DONE, &payload);
        });
        assert_eq!(got, failed(), "{status}");
    }
}
