//! Clients of a socket in the file system, and what becomes of its file.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

use toolb_core::config::EngineConfig;
use toolb_core::engine::{Engine, Listen, Routes, StartError};

#[test]
fn a_start_that_fails_leaves_no_socket_file() {
    let path = std::env::temp_dir().join(format!("toolb-failed-{}", std::process::id()));
    let listen = Listen::Uds {
        path: path.clone(),
        permissions: None,
    };
    // The second one finds the first in use.
    let twice = [listen.clone(), listen];
    let outcome = Engine::bind(EngineConfig::default(), Routes::default(), &twice);
    assert!(outcome.is_err());
    assert!(!path.exists());
}

#[test]
fn a_refusal_reaches_a_client_that_has_said_all_it_had_to_say() {
    let path = std::env::temp_dir().join(format!("toolb-refusal-{}", std::process::id()));
    let listen = Listen::Uds {
        path: path.clone(),
        permissions: None,
    };
    let mut config = EngineConfig::default();
    config.limits.body = 1000;
    let mut engine = Engine::bind(config, Routes::default(), &[listen]).unwrap();
    let mut stream = UnixStream::connect(path).unwrap();
    stream
        .write_all(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 100000\r\n\r\n")
        .unwrap();
    // More than is read at once: what is left unread must not become a reset.
    stream.write_all(&[b'x'; 100_000]).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    engine.start().unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
}

#[test]
fn a_unix_socket_is_its_successors_once_an_engine_drains() {
    let path = std::env::temp_dir().join(format!("toolb-successor-{}", std::process::id()));
    let start = || {
        let listen = Listen::Uds {
            path: path.clone(),
            permissions: None,
        };
        let config = EngineConfig::default();
        let mut engine = Engine::bind(config, Routes::default(), &[listen])?;
        engine.start().unwrap();
        Ok::<_, StartError>(engine)
    };
    let first = start().unwrap();
    let _client = UnixStream::connect(&path).unwrap();
    assert!(start().is_err());
    first.drain();
    while UnixStream::connect(&path).is_ok() {}
    let second = start().unwrap();
    first.stop();
    let mut stream = UnixStream::connect(&path).unwrap();
    stream
        .write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
    second.stop();
    assert!(!path.exists());
}
