//! What an exchange holds until its file has come, and that all of it is free again.

use std::io::{ErrorKind, Read};
use std::thread;

use toolb_core::engine::Snapshot;

use super::support::Random;
use super::*;

#[test]
fn a_file_that_does_not_come_keeps_its_slot() {
    two_files_that_do_not_come(None, 2);
}

#[test]
fn a_file_that_does_not_come_keeps_its_place_in_the_pool() {
    two_files_that_do_not_come(Some(2), 8);
}

/// There is room for two.
fn two_files_that_do_not_come(limit_concurrency: Option<usize>, slots: u16) {
    let config = EngineConfig {
        loops: Some(1),
        limit_concurrency,
        queue_size: 0,
        ..EngineConfig::default()
    };
    let content = content(1000);
    let options = ConsumerOptions {
        slots,
        ..ConsumerOptions::default()
    };
    let fixture = Fixture::with(&file_of(&content), config, options);
    let engine = &fixture.server.engine;
    let first = fixture.ask("/file");
    drop(fixture.worker.take_file());
    let mut second = fixture.ask("/file");
    let (two, file) = fixture.worker.take_file();
    // The consumer is done with both.
    let refused = || read_response(&mut fixture.ask("/x")).0 == 503;
    for _ in 0..20 {
        assert!(refused());
    }
    drop(first);
    while refused() {}
    fixture.catch_up();
    fixture.worker.give_file(engine, &two, file);
    assert!(read_response(&mut second) == (200, content));
    // All of it is free again.
    for _ in 0..5 {
        assert!(fixture.fetch("/file").0 == 200);
    }
    fixture.end();
}

#[test]
fn a_client_that_leaves_in_the_middle_harms_nobody() {
    let file = temporary();
    file.set_len(64 << 20).unwrap();
    let fixture = Fixture::new(&file);
    for _ in 0..3 {
        let mut client = fixture.ask("/file");
        let (packet, taken) = fixture.worker.take_file();
        fixture
            .worker
            .give_file(&fixture.server.engine, &packet, taken);
        client.read_exact(&mut [0; 1000]).unwrap();
    }
    fixture.catch_up();
    fixture.end();
}

#[test]
fn whatever_becomes_of_files_what_they_held_is_free_again() {
    const ROOM: u16 = 4;
    let config = EngineConfig {
        loops: Some(1),
        limit_concurrency: Some(usize::from(ROOM)),
        queue_size: 0,
        ..EngineConfig::default()
    };
    let options = ConsumerOptions {
        slots: ROOM,
        ..ConsumerOptions::default()
    };
    let content = content(2_000_000);
    let fixture = Fixture::with(&file_of(&content), config, options);
    let engine = &fixture.server.engine;
    let give = |packet: &Control, file| fixture.worker.give_file(engine, packet, file);
    let settle = || {
        // A place is free as soon as its connection is closed.
        let is_open = |stats: Snapshot| stats.accepted > stats.closed;
        while is_open(engine.stats()) {
            thread::yield_now();
        }
    };
    let mut random = Random(7);
    for _ in 0..300 {
        settle();
        let mut client = fixture.ask("/file");
        let (packet, file) = fixture.worker.take_file();
        if random.below(2) == 0 {
            // The record has come.
            fixture.catch_up();
        }
        match random.below(5) {
            0 => {
                give(&packet, file.try_clone().unwrap());
                give(&packet, file);
                assert!(read_response(&mut client) == (200, content.clone()));
            }
            1 => {
                give(&packet, File::open("/dev/null").unwrap().into());
                assert_eq!(read_response(&mut client).0, 500);
            }
            2 => {
                give(&packet, file);
                let len = 1 + random.below(1_000_000) as usize;
                client.read_exact(&mut vec![0; len]).unwrap();
            }
            3 => {
                drop(client);
                give(&packet, file);
            }
            // It never comes.
            _ => drop((client, file)),
        }
    }
    settle();
    let mut clients: Vec<_> = (0..ROOM).map(|_| fixture.ask("/file")).collect();
    // Each of these has a place, and nobody else.
    assert_eq!(read_response(&mut fixture.ask("/other")).0, 503);
    for client in &mut clients {
        client.set_nonblocking(true).unwrap();
        let answer = client.read(&mut [0]).map_err(|error| error.kind());
        assert_eq!(answer, Err(ErrorKind::WouldBlock));
        client.set_nonblocking(false).unwrap();
    }
    let files: Vec<_> = (0..ROOM).map(|_| fixture.worker.take_file()).collect();
    for (packet, file) in files {
        give(&packet, file);
    }
    for mut client in clients {
        assert!(read_response(&mut client) == (200, content.clone()));
    }
    fixture.end();
}
