//! Consumers hand over files that cannot be closed: at some point each is refused more of them, and so
//! is whoever comes again, and until then they harm nobody. In a process of its own, whose descriptors
//! it counts.
#![forbid(unsafe_code)]

mod support;

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::OwnedFd;
use std::thread;
use std::time::Duration;

use support::{Echo, Server, Worker, hanging, read_response};
use toolb_core::config::EngineConfig;
use toolb_core::consumer::ConsumerOptions;
use toolb_core::sys::process;

/// Of so many one consumer may have all, and beyond so many nobody may come; docs/bus.md promises it.
const BOUND_OF_ONE: usize = 2048;
const BOUND: usize = 4096;

#[test]
fn consumers_whose_files_cannot_be_closed_are_refused_more() {
    let few = "this test needs 4,600 open files: raise the hard limit (ulimit -Hn)";
    process::raise_open_files().unwrap();
    let spare: Result<Vec<_>, _> = (0..BOUND + 500).map(|_| File::open("/dev/null")).collect();
    drop(spare.expect(few));

    let config = EngineConfig {
        loops: Some(1),
        ..EngineConfig::default()
    };
    let server = Server::start(config);
    one_consumer(&server);
    consumers_that_come_again(&server);
}

fn one_consumer(server: &Server) {
    let mut worker = server.attach(ConsumerOptions::default(), Echo::default());
    let mut other = server.attach(ConsumerOptions::default(), Echo::default());
    catch_up(server);
    let (hanging, peer) = hanging();
    let before = descriptors() - 1;

    give(server, &worker, hanging).unwrap();
    for given in 1..=BOUND_OF_ONE {
        give(server, &worker, any_file()).unwrap();
        if given % 256 == 0 || given == BOUND_OF_ONE - 1 {
            // The loop has found that nobody waits for them.
            catch_up(server);
        }
    }
    assert!(descriptors() > BOUND_OF_ONE);
    let refused = give(server, &worker, any_file());
    assert!(refused.unwrap_err().contains("cannot be closed"));
    // It is this consumer's file system that hangs, and not another's.
    give(server, &other, any_file()).unwrap();
    // With the lane nothing is lost: what waited is closed as soon as it can be.
    worker.kill(&server.engine);
    catch_up(server);
    assert!(descriptors() > BOUND_OF_ONE);
    drop(peer);
    wait_for_closing(before);
    other.kill(&server.engine);
}

/// Each as soon as the one before it was ended.
fn consumers_that_come_again(server: &Server) {
    let mut healthy = server.attach(ConsumerOptions::default(), Echo::default());
    catch_up(server);
    let before = descriptors();
    let mut peers = Vec::new();
    let refused = loop {
        match server.engine.new_lane(1, 1, 1, 0) {
            Ok(lane) => server.engine.lane_down(&lane),
            Err(error) => break error.to_string(),
        }
        let mut worker = server.attach(ConsumerOptions::default(), Echo::default());
        let (hanging, peer) = hanging();
        peers.push(peer);
        let mut given = give(server, &worker, hanging);
        for count in 0.. {
            if given.is_err() {
                break;
            }
            assert!(
                count <= BOUND_OF_ONE + 8,
                "nobody stops consumer {}",
                peers.len()
            );
            given = give(server, &worker, any_file());
            if count % 8 == 0 {
                catch_up(server);
            }
        }
        worker.kill(&server.engine);
        catch_up(server);
        assert!(descriptors() < before + BOUND + 100 + 2 * peers.len());
    };
    assert!(refused.contains("cannot be closed"), "{refused}");
    // Whoever is there goes on, with files as well.
    give(server, &healthy, any_file()).unwrap();
    catch_up(server);
    drop(peers);
    wait_for_closing(before);
    server
        .attach(ConsumerOptions::default(), Echo::default())
        .kill(&server.engine);
    healthy.kill(&server.engine);
}

fn wait_for_closing(before: usize) {
    while descriptors() > before {
        // not-sync: the pause between two looks
        thread::sleep(Duration::from_millis(5));
    }
}

/// For an exchange that there is not: nobody wants it, and so it is closed.
fn give(server: &Server, worker: &Worker, file: OwnedFd) -> Result<(), &'static str> {
    server.engine.lane_file(&worker.lane, 0, 0, u32::MAX, file)
}

fn any_file() -> OwnedFd {
    File::open("/dev/null").unwrap().into()
}

fn catch_up(server: &Server) {
    let mut client = server.connect();
    write!(client, "GET / HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    assert_eq!(read_response(&mut client).0, 200);
}

/// Those of this process, without the one that looks.
fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count() - 1
}
