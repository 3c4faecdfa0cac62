//! A file and the record that speaks of it come by different ways: in either order, late, or never.

use super::support::hanging;
use super::*;

#[test]
fn a_record_waits_for_its_file_and_holds_nobody_up() {
    let content = content(50_000);
    let fixture = Fixture::new(&file_of(&content));
    let mut client = fixture.ask("/file");
    let (packet, file) = fixture.worker.take_file();
    fixture.catch_up();
    // Others are answered by files meanwhile.
    assert!(fixture.fetch("/file?1") == (200, content[1..].to_vec()));
    fixture
        .worker
        .give_file(&fixture.server.engine, &packet, file);
    assert!(read_response(&mut client) == (200, content));
    fixture.end();
}

#[test]
fn a_file_waits_for_its_record() {
    let content = content(50_000);
    let file = file_of(&content);
    let fixture = Fixture::new(&file);
    let mut client = fixture.ask("/slow");
    let id = fixture.begun.recv().unwrap();
    let packet = Control::File {
        owner: 0,
        slot: id.slot,
        generation: id.generation,
    };
    let engine = &fixture.server.engine;
    // The second takes the place of the first, and neither is kept for another exchange.
    let other = temporary();
    fixture.worker.give_file(engine, &packet, other.into());
    let file = file.try_clone().unwrap();
    fixture.worker.give_file(engine, &packet, file.into());
    let strange = Control::File {
        owner: 0,
        slot: id.slot,
        generation: id.generation + 1,
    };
    fixture
        .worker
        .give_file(engine, &strange, temporary().into());
    fixture.go_on.send(()).unwrap();
    assert!(read_response(&mut client) == (200, content));
    fixture.catch_up();
    fixture.end();
}

#[test]
fn a_consumer_that_dies_before_its_file_comes_is_a_502() {
    let fixture = Fixture::new(&file_of(&content(50_000)));
    let mut client = fixture.ask("/file");
    drop(fixture.worker.take_file());
    fixture.catch_up();
    let mut worker = fixture.worker;
    worker.kill(&fixture.server.engine);
    assert_eq!(read_response(&mut client).0, 502);
}

#[test]
fn a_file_that_nobody_waits_for_any_more_is_closed() {
    let fixture = Fixture::new(&file_of(&content(50_000)));
    let client = fixture.ask("/file");
    let (packet, _) = fixture.worker.take_file();
    fixture.catch_up();
    drop(client);
    fixture.catch_up();
    let (file, mut closed) = std::io::pipe().unwrap();
    let engine = &fixture.server.engine;
    fixture.worker.give_file(engine, &packet, file.into());
    fixture.catch_up();
    // In a moment nobody has its other end any more; until then there is room, or the pipe waits.
    while closed.write_all(b"x").is_ok() {}
    fixture.end();
}

/// Closing such a socket waits for its peer, as any call may on a file of a file system that hangs.
#[test]
fn a_descriptor_that_hangs_holds_up_nobody_else() {
    let content = content(50_000);
    let file = file_of(&content);
    let fixture = Fixture::new(&file);
    let engine = &fixture.server.engine;
    let mut slow = fixture.ask("/slow");
    let id = fixture.begun.recv().unwrap();
    let (hanging, peer) = hanging();
    let for_nobody = Control::File {
        owner: 0,
        slot: id.slot,
        generation: id.generation + 1,
    };
    fixture.worker.give_file(engine, &for_nobody, hanging);
    // The lane that does not stand still gets what comes now.
    let (handler, ..) = Files::new(&file);
    let mut other = fixture.server.attach(ConsumerOptions::default(), handler);
    for _ in 0..3 {
        let mut client = fixture.ask("/file");
        let (packet, taken) = other.take_file();
        other.give_file(engine, &packet, taken);
        assert!(read_response(&mut client) == (200, content.clone()));
    }
    // Its own files wait behind it, and come then.
    fixture.go_on.send(()).unwrap();
    let (packet, taken) = fixture.worker.take_file();
    fixture.worker.give_file(engine, &packet, taken);
    fixture.catch_up();
    drop(peer);
    assert!(read_response(&mut slow) == (200, content));
    other.kill(engine);
    fixture.end();
}
