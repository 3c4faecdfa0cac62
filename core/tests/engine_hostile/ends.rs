//! Ends and aborts: too early, twice, or none.

use super::*;

#[test]
fn done_without_an_end() {
    let got = act(Lane::Kept, |peer, it| {
        assert!(peer.start(it));
        peer.say(it, Kind::Ping, DONE, b"");
    });
    assert_eq!(got, failed());
    let got = act(Lane::Poisoned("without a head"), |peer, it| {
        assert!(peer.start(it));
        peer.say(it, Kind::ResponseBody, DONE, b"");
    });
    assert_eq!(got, died());
}

#[test]
fn done_without_an_end_after_a_head() {
    let got = act(Lane::Kept, |peer, it| {
        assert!(peer.start(it));
        peer.say(it, Kind::ResponseHead, DONE, &head(100, &[], b"some"));
    });
    assert_eq!(got, Got::Cut);
}

#[test]
fn an_end_after_done() {
    let got = act(NOT_IN_FLIGHT, |peer, it| {
        assert!(peer.start(it));
        peer.say(it, Kind::ResponseHead, END | DONE, &plain(b"right"));
        peer.say(it, Kind::ResponseBody, END, b"");
    });
    assert_eq!(got, right("right"));
}

#[test]
fn a_response_after_done() {
    let got = act(NOT_IN_FLIGHT, |peer, it| {
        assert!(peer.start(it));
        peer.say(it, Kind::ResponseHead, END | DONE, &plain(b"right"));
        peer.say(it, Kind::ResponseHead, END | DONE, &plain(b"again"));
    });
    assert_eq!(got, right("right"));
}

#[test]
fn a_body_after_the_end() {
    let got = act(Lane::Poisoned("goes on after its end"), |peer, it| {
        assert!(peer.start(it));
        peer.say(it, Kind::ResponseHead, END, &plain(b"right"));
        peer.say(it, Kind::ResponseBody, 0, b"more");
    });
    assert_eq!(got, right("right"));
}

#[test]
fn an_end_after_the_end() {
    let got = act(Lane::Kept, |peer, it| {
        assert!(peer.start(it));
        peer.say(it, Kind::ResponseHead, END, &plain(b"right"));
        peer.say(it, Kind::ResponseBody, END, b"");
        peer.say(it, Kind::ResponseBody, END | DONE, b"");
    });
    assert_eq!(got, right("right"));
}

#[test]
fn an_end_that_comes_too_soon() {
    let got = act(Lane::Kept, |peer, it| {
        assert!(peer.start(it));
        peer.say(it, Kind::ResponseHead, 0, &head(100, &[], b"some"));
        peer.say(it, Kind::ResponseBody, END | DONE, b"more");
    });
    assert_eq!(got, Got::Cut);
}

#[test]
fn records_after_an_abort() {
    let got = act(Lane::Kept, |peer, it| {
        assert!(peer.start(it));
        peer.say(it, Kind::ResponseAbort, 0, b"");
        peer.say(it, Kind::ResponseHead, 0, &head(-1, &[], b"never"));
        peer.say(it, Kind::ResponseBody, END, b"mind");
        peer.say(it, Kind::ResponseBody, DONE, b"");
    });
    assert_eq!(got, failed());
}

#[test]
fn records_after_an_abort_that_was_the_last_word() {
    let got = act(NOT_IN_FLIGHT, |peer, it| {
        assert!(peer.start(it));
        peer.say(it, Kind::ResponseAbort, DONE, b"");
        peer.say(it, Kind::ResponseHead, END | DONE, &plain(b"right"));
    });
    assert_eq!(got, failed());
}

#[test]
fn an_abort_after_the_end() {
    let got = act(Lane::Poisoned("goes on after its end"), |peer, it| {
        assert!(peer.start(it));
        peer.say(it, Kind::ResponseHead, END, &plain(b"right"));
        peer.say(it, Kind::ResponseAbort, DONE, b"");
    });
    assert_eq!(got, right("right"));
}

#[test]
fn what_was_said_before_all_is_cut_off_counts() {
    let server = Server::start(EngineConfig::default());
    let mut peer = Peer::attach(&server);
    let mut client = connect(&server.address);
    ask(&mut client, CLIENTS_PATH);
    let it = peer.request();
    assert!(peer.start(it));
    // Who sleeps is not looked after, and nobody rings for the answer.
    peer.lane.arm();
    peer.write(it, Kind::ResponseHead as u8, END | DONE, &plain(b"in time"));
    peer.lane.ring(0).responses.publish();
    server.engine.cut_off();
    assert_eq!(receive(&mut client).unwrap().body, b"in time");
    server.engine.lane_down(&peer.handle);
}
