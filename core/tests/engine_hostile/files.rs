//! Responses by file.

use super::*;

#[test]
fn a_file_that_never_comes() {
    for flags in [END, END | DONE] {
        let got = act(Lane::Kept, |peer, it| {
            assert!(peer.start(it));
            peer.say(it, Kind::ResponseFile, flags, &by_file(0, 10));
        });
        assert_eq!(got, died());
    }
}

#[test]
fn a_response_by_file_that_is_none() {
    for payload in [&b""[..], &[0; 20], &[0xFF; 60]] {
        let got = act(Lane::Poisoned("a bad response by file"), |peer, it| {
            assert!(peer.start(it));
            peer.say(it, Kind::ResponseFile, END | DONE, payload);
        });
        assert_eq!(got, died());
    }
    let got = act(Lane::Poisoned("does not end with it"), |peer, it| {
        assert!(peer.start(it));
        peer.say(it, Kind::ResponseFile, 0, &by_file(0, 10));
    });
    assert_eq!(got, died());
}

#[test]
fn a_response_by_file_and_another() {
    let got = act(Lane::Poisoned("second response head"), |peer, it| {
        assert!(peer.start(it));
        peer.say(it, Kind::ResponseHead, 0, &head(100, &[], b"some"));
        peer.say(it, Kind::ResponseFile, END | DONE, &by_file(0, 10));
    });
    assert_eq!(got, Got::Cut);
    let got = act(Lane::Poisoned("goes on after its end"), |peer, it| {
        assert!(peer.start(it));
        peer.say(it, Kind::ResponseFile, END, &by_file(0, 10));
        peer.say(it, Kind::ResponseFile, END | DONE, &by_file(0, 10));
    });
    assert_eq!(got, died());
    let got = act(NOT_IN_FLIGHT, |peer, it| {
        assert!(peer.start(it));
        peer.say(it, Kind::ResponseFile, END | DONE, &by_file(0, 10));
        peer.say(it, Kind::ResponseFile, END | DONE, &by_file(0, 10));
    });
    assert_eq!(got, died());
}
