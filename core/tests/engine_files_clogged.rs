//! A consumer hands over files that cannot be closed: at some point it is refused more of them, and
//! until then they harm nobody. In a process of its own, whose descriptors it counts.
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

/// So many may wait to be closed; docs/bus.md promises it.
const BOUND: usize = 4096;

#[test]
fn a_consumer_whose_files_cannot_be_closed_is_refused_more() {
    let few = "this test needs 4,400 open files: raise the hard limit (ulimit -Hn)";
    process::raise_open_files().unwrap();
    let spare: Result<Vec<_>, _> = (0..BOUND + 300).map(|_| File::open("/dev/null")).collect();
    drop(spare.expect(few));

    let config = EngineConfig {
        loops: Some(1),
        ..EngineConfig::default()
    };
    let server = Server::start(config);
    let mut worker = server.attach(ConsumerOptions::default(), Echo::default());
    let mut other = server.attach(ConsumerOptions::default(), Echo::default());
    catch_up(&server);
    let (hanging, peer) = hanging();
    let before = descriptors() - 1;

    give(&server, &worker, hanging).unwrap();
    for given in 1..=BOUND {
        give(&server, &worker, any_file()).unwrap();
        if given % 256 == 0 || given == BOUND - 1 {
            // The loop has found that nobody waits for them.
            catch_up(&server);
        }
    }
    assert!(descriptors() > BOUND);
    let refused = give(&server, &worker, any_file());
    assert!(refused.unwrap_err().contains("cannot be closed"));
    // It is this consumer's file system that hangs, and not another's.
    give(&server, &other, any_file()).unwrap();
    // With the lane nothing is lost: what waited is closed as soon as it can be.
    worker.kill(&server.engine);
    catch_up(&server);
    assert!(descriptors() > BOUND);
    drop(peer);
    while descriptors() > before {
        // not-sync: the pause between two looks
        thread::sleep(Duration::from_millis(5));
    }
    other.kill(&server.engine);
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
