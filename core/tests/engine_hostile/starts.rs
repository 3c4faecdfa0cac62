//! What was sent, and what of it has started.

use super::*;

#[test]
fn a_start_out_of_order_gives_its_window_back() {
    let server = Server::start(EngineConfig::default());
    let mut peer = Peer::with_window(&server, 2);
    let mut clients = [(); 4].map(|()| connect(&server.address));
    for (number, client) in (1..).zip(&mut clients) {
        ask(client, CLIENTS_PATH);
        while server.engine.stats().requests < number {
            std::thread::yield_now();
        }
    }
    peer.request();
    // The first one stays where it is; each of the others lets the next one in.
    for _ in 1..3 {
        let it = peer.request();
        assert!(peer.start(it));
        peer.lane.ring(0).notice.bump();
        peer.publish();
    }
    peer.request();
}

#[test]
fn only_the_first_that_had_not_begun_is_given_up_with_its_workers() {
    const LANES: usize = 3;
    let server = Server::start(EngineConfig::default());
    let body = "x".repeat(16 * 1024);
    let length = body.len();
    let request = format!("POST /c HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n{body}");
    let mut peer = Peer::attach(&server);
    // As many as the lane has slots for, and one more than its ring has room for: that has not been
    // sent at all.
    let mut clients: Vec<_> = (0..16).map(|_| connect(&server.address)).collect();
    for (number, client) in (1..).zip(&mut clients) {
        client.get_mut().write_all(request.as_bytes()).unwrap();
        while server.engine.stats().requests < number {
            std::thread::yield_now();
        }
    }
    for lane in 1..=LANES {
        // All that finds room is shown at once.
        while !peer.lane.ring(0).requests.refresh().unwrap() {
            std::thread::yield_now();
        }
        server.engine.lane_down(&peer.handle);
        if lane < LANES {
            peer = Peer::attach(&server);
        }
    }
    let mut last = server.attach(ConsumerOptions::default(), support::Echo::default());
    let answers: Vec<_> = clients
        .iter_mut()
        .map(|it| receive(it).unwrap().status)
        .collect();
    assert_eq!(answers[0], 502);
    assert_eq!(answers[1..], [200; 15]);
    last.kill(&server.engine);
}
