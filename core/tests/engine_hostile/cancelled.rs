//! Records that say that an exchange was cancelled, and answers to what was called back.

use super::*;

#[test]
fn cancelled_without_having_been_called_back() {
    let got = act(NOT_CANCELLED, |peer, it| {
        peer.say(it, Kind::Cancelled, DONE, b"");
    });
    assert_eq!(got, Got::Elsewhere);
}

#[test]
fn cancelled_after_its_start() {
    for aux in [0, 1] {
        let got = act(NOT_CANCELLED, |peer, it| {
            assert!(peer.start(it));
            peer.say(RecordHeader { aux, ..it }, Kind::Cancelled, DONE, b"");
        });
        assert_eq!(got, died());
    }
}

#[test]
fn cancelled_in_the_middle_of_its_response() {
    for aux in [0, 1] {
        let got = act(NOT_CANCELLED, |peer, it| {
            assert!(peer.start(it));
            peer.say(it, Kind::ResponseHead, 0, &head(100, &[], b"some"));
            peer.say(RecordHeader { aux, ..it }, Kind::Cancelled, DONE, b"");
        });
        assert_eq!(got, Got::Cut);
    }
}

#[test]
fn cancelled_twice() {
    let server = Server::start(EngineConfig::default());
    let mut peer = Peer::attach(&server);
    let mut leaver = connect(&server.address);
    ask(&mut leaver, "/");
    let it = peer.request();
    drop(leaver);
    while !peer.lane.cancelled(it.slot, it.generation) {
        std::thread::yield_now();
    }
    peer.say(it, Kind::Cancelled, DONE, b"");
    peer.say(it, Kind::Cancelled, DONE, b"");
    until(&server, |event| match event {
        ControlEvent::Poisoned { .. } => ControlFlow::Break(()),
        other => panic!("{other:?}"),
    });
}

/// A server that has called a request back from one lane and had it answered by the other; what the
/// first says to that.
fn act_when_called_back(misbehave: impl FnOnce(&mut Peer, RecordHeader)) {
    let server = Server::start(EngineConfig::default());
    let mut peer = Peer::attach(&server);
    let mut client = connect(&server.address);
    ask(&mut client, CLIENTS_PATH);
    let it = peer.request();
    let mut beside = server.attach(ConsumerOptions::default(), support::Echo::default());
    assert_eq!(receive(&mut client).unwrap().body, b"GET /c? ");
    misbehave(&mut peer, it);
    server.engine.lane_down(&peer.handle);
    until(&server, |event| match event {
        ControlEvent::Released { .. } => ControlFlow::Break(()),
        other => panic!("{other:?}"),
    });
    assert_eq!(server.engine.stats().poisoned, 0);
    ask(&mut client, "/next");
    assert_eq!(receive(&mut client).unwrap().body, b"GET /next? ");
    beside.kill(&server.engine);
}

#[test]
fn called_back_and_answered_all_the_same() {
    act_when_called_back(|peer, it| {
        assert!(!peer.start(it));
        peer.say(it, Kind::ResponseHead, END | DONE, &plain(b"too late"));
    });
    act_when_called_back(|peer, it| {
        peer.say(it, Kind::ResponseHead, 0, &head(-1, &[], b"too"));
        peer.say(it, Kind::ResponseBody, END, b"late");
        peer.say(it, Kind::ResponseBody, DONE, b"");
    });
}

#[test]
fn called_back_and_aborted_or_cancelled_as_if_it_had_run() {
    act_when_called_back(|peer, it| peer.say(it, Kind::ResponseAbort, DONE, b""));
    act_when_called_back(|peer, it| {
        peer.say(RecordHeader { aux: 1, ..it }, Kind::Cancelled, DONE, b"");
    });
}

#[test]
fn what_has_answered_without_a_start_is_not_called_back() {
    let server = Server::start(EngineConfig::default());
    let mut peer = Peer::attach(&server);
    let [mut first, mut second] = [(); 2].map(|()| connect(&server.address));
    ask(&mut first, CLIENTS_PATH);
    peer.request();
    ask(&mut second, CLIENTS_PATH);
    let it = peer.request();
    peer.say(it, Kind::ResponseHead, 0, &head(6, &[], b"one"));
    assert!(!second.fill_buf().unwrap().is_empty());
    // not-sync: by then both have waited long enough to be called back
    std::thread::sleep(Duration::from_millis(10));
    // The first one is overdue in front of a lane that has room, and the second is behind it.
    let mut beside = server.attach(ConsumerOptions::default(), support::Echo::default());
    assert_eq!(receive(&mut first).unwrap().body, b"GET /c? ");
    peer.say(it, Kind::ResponseBody, END | DONE, b"two");
    assert_eq!(receive(&mut second).unwrap().body, b"onetwo");
    beside.kill(&server.engine);
}
