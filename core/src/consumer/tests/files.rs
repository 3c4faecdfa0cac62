//! Answers by file: what goes over the socket and what through the ring.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::{AsFd, OwnedFd};

use super::*;
use crate::{message::FileHead, sys::memory};

impl Engine {
    /// The next packet and the files that came with it.
    fn parcel(&self) -> (Control, Vec<OwnedFd>) {
        let (mut packet, mut fds) = (vec![0; MAX_CONTROL_PACKET], Vec::new());
        self.socket.wait(None).unwrap();
        let len = self.socket.recv(&mut packet, &mut fds).unwrap();
        (Control::decode(&packet[..len]).unwrap(), fds)
    }
}

fn file_of(content: &[u8]) -> File {
    let mut file = File::from(memory::create(c"test", content.len()).unwrap());
    file.write_all(content).unwrap();
    file
}

fn respond(consumer: &mut Consumer, id: ExchangeId, file: &File) -> Result<(), FileError> {
    let fields: [(&[u8], &[u8]); 1] = [(b"content-type", b"text/plain")];
    consumer.respond_file(id, 200, fields.into_iter(), file.as_fd(), 2, Some(3), true)
}

#[test]
fn the_descriptor_and_the_record_go_their_ways() {
    let (mut engine, mut consumer) = pair();
    let id = engine.get(3);
    take(&mut consumer);
    respond(&mut consumer, id, &file_of(b"abcdefgh")).unwrap();
    assert_eq!(consumer.in_flight(), 0);
    let (packet, mut fds) = engine.parcel();
    let expected = Control::File {
        owner: 0,
        slot: 3,
        generation: id.generation,
    };
    assert_eq!((packet, fds.len()), (expected, 1));
    let mut file = File::from(fds.remove(0));
    file.rewind().unwrap();
    let mut content = String::new();
    file.read_to_string(&mut content).unwrap();
    assert_eq!(content, "abcdefgh");
    let got = engine.only();
    assert_eq!(got.kind(), Kind::ResponseFile);
    let all = flags::END | flags::DONE | flags::FD_FOLLOWS | flags::MUST_UNDERSTAND;
    assert_eq!(got.header.flags, all);
    let head = FileHead::decode(&got.payload).unwrap();
    assert_eq!((head.offset, head.length), (2, 3));
    assert_eq!(head.head.fields().count(), 1);
    assert!(matches!(
        respond(&mut consumer, id, &file),
        Err(FileError::Respond(RespondError::Unknown))
    ));
}

#[test]
fn what_is_refused_leaves_the_exchange_as_it_was() {
    let (mut engine, mut consumer) = pair();
    let id = engine.get(0);
    take(&mut consumer);
    let file = file_of(b"abcd");
    let beyond = respond(&mut consumer, id, &file);
    assert!(matches!(beyond, Err(FileError::Beyond(4))), "{beyond:?}");
    let folder = File::open(std::env::temp_dir()).unwrap();
    let unusable = respond(&mut consumer, id, &folder);
    assert!(matches!(unusable, Err(FileError::Unusable(_))));
    consumer.takes_files = false;
    let file = file_of(b"abcdefgh");
    let unsupported = respond(&mut consumer, id, &file);
    assert!(matches!(unsupported, Err(FileError::Unsupported)));
    consumer.takes_files = true;
    head(&mut consumer, id, b"", false, false);
    let late = respond(&mut consumer, id, &file);
    assert!(matches!(
        late,
        Err(FileError::Respond(RespondError::HeadAlreadySent))
    ));
    consumer.abort(id);
    assert_eq!(engine.drain().len(), 2);
}

#[test]
fn files_wait_for_room_on_the_socket_and_keep_the_loop_awake() {
    let slots = 2000;
    let (mut engine, mut consumer) = pair_with(Geometry {
        rings: 1,
        slots,
        ..Geometry::default()
    });
    let file = file_of(b"abcdefgh");
    let mut ids = Vec::new();
    for slot in 0..slots {
        ids.push(engine.get(slot));
        take(&mut consumer);
        respond(&mut consumer, ids[usize::from(slot)], &file).unwrap();
        assert_eq!(engine.drain().len(), 1);
    }
    assert!(!consumer.parcels.is_empty(), "the socket took all of them");
    assert!(!consumer.arm());
    // Whoever left now would take the files along.
    assert_eq!(consumer.in_flight(), consumer.parcels.len());
    assert!(consumer.is_answering());
    for id in &ids {
        let (packet, fds) = engine.parcel();
        let expected = Control::File {
            owner: 0,
            slot: id.slot,
            generation: id.generation,
        };
        assert_eq!((packet, fds.len()), (expected, 1));
        poll(&mut consumer);
    }
    assert!(consumer.parcels.is_empty());
    assert!(consumer.arm());
    assert_eq!(consumer.in_flight(), 0);
}

#[test]
fn a_response_by_file_waits_for_room_in_the_ring() {
    let (mut engine, mut consumer) = pair_with(Geometry {
        rings: 1,
        slots: 64,
        response_capacity: 4096,
        ..Geometry::default()
    });
    let file = file_of(b"abcdefgh");
    for slot in 0..64 {
        let id = engine.get(slot);
        take(&mut consumer);
        respond(&mut consumer, id, &file).unwrap();
        engine.parcel();
    }
    assert!(consumer.in_flight() > 0, "the ring took all of them");
    let mut got = Vec::new();
    while got.len() < 64 {
        let more = engine.drain();
        assert!(!more.is_empty() || consumer.in_flight() > 0);
        got.extend(more);
        poll(&mut consumer);
    }
    assert!(got.iter().all(|got| got.kind() == Kind::ResponseFile));
    assert_eq!(consumer.in_flight(), 0);
}
