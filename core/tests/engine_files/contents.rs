//! What clients get of a file: all of it, a part, or word that it is none.

use std::io::Read;

use toolb_core::sys::memory;

use super::*;

#[test]
fn files_and_parts_of_them_come_whole() {
    let content = content(3_000_000);
    files_come_whole(&file_of(&content), &content);
}

/// Of such a file the kernel does not say beforehand whether a read would wait, so that the file
/// thread has to do it.
#[test]
fn files_that_the_file_thread_reads_come_whole() {
    let content = content(3_000_000);
    let file = File::from(memory::create(c"test", content.len()).unwrap());
    (&file).write_all(&content).unwrap();
    files_come_whole(&file, &content);
}

fn files_come_whole(file: &File, content: &[u8]) {
    let fixture = Fixture::new(file);
    assert!(fixture.fetch("/file") == (200, content.to_vec()));
    assert!(fixture.fetch("/file?2999990") == (200, content[2_999_990..].to_vec()));
    assert!(fixture.fetch("/file?100,5000,206") == (206, content[100..5100].to_vec()));
    assert_eq!(fixture.fetch("/file?3000000"), (200, Vec::new()));
    let mut client = fixture.ask("/file?10,3000000");
    assert_eq!(read_response(&mut client), (416, b"3000000".to_vec()));
    fixture.end();
}

#[test]
fn the_connection_goes_on_after_a_file() {
    let content = content(700_000);
    let fixture = Fixture::new(&file_of(&content));
    let mut client = fixture.server.connect();
    for target in ["/file", "/x", "/file?1", "/file?1,2", "/y"] {
        ask_on(&mut client, target);
    }
    for expected in [&content[..], b"/x", &content[1..], &content[1..3], b"/y"] {
        if expected.first() != Some(&b'/') {
            let (packet, file) = fixture.worker.take_file();
            let engine = &fixture.server.engine;
            fixture.worker.give_file(engine, &packet, file);
        }
        let (status, body) = read_response(&mut client);
        assert!(status == 200 && body == expected, "{} bytes", body.len());
    }
    fixture.end();
}

#[test]
fn head_and_not_modified_have_no_body() {
    let fixture = Fixture::new(&file_of(&content(100_000)));
    for (method, query, length) in [("HEAD", "0,100000", true), ("GET", "0,100000,304", false)] {
        let mut client = fixture.server.connect();
        write!(
            client,
            "{method} /file?{query} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
        )
        .unwrap();
        let (packet, file) = fixture.worker.take_file();
        let engine = &fixture.server.engine;
        fixture.worker.give_file(engine, &packet, file);
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert!(answer.ends_with("\r\n\r\n"), "{answer}");
        assert!(answer.contains("x-file: yes"), "{answer}");
        assert_eq!(answer.contains("content-length: 100000"), length);
    }
    fixture.end();
}

#[test]
fn what_is_no_file_or_too_short_becomes_a_500() {
    let fixture = Fixture::new(&file_of(&content(50_000)));
    let engine = &fixture.server.engine;
    let folder = File::open(std::env::temp_dir()).unwrap();
    let (pipe, _writer) = std::io::pipe().unwrap();
    let shorter = file_of(&content(49_999));
    let strange: [OwnedFd; 3] = [folder.into(), pipe.into(), shorter.into()];
    for file in strange {
        let mut client = fixture.ask("/file");
        let (packet, _) = fixture.worker.take_file();
        fixture.worker.give_file(engine, &packet, file);
        assert_eq!(read_response(&mut client).0, 500);
        ask_on(&mut client, "/still");
        assert_eq!(read_response(&mut client), (200, b"/still".to_vec()));
    }
    fixture.end();
}

#[test]
fn a_file_that_shrinks_is_never_mistaken_for_a_whole_one() {
    let file = temporary();
    file.set_len(64 << 20).unwrap();
    let fixture = Fixture::new(&file);
    let mut client = fixture.ask("/file");
    let (packet, taken) = fixture.worker.take_file();
    fixture
        .worker
        .give_file(&fixture.server.engine, &packet, taken);
    let mut first = [0; 1000];
    client.read_exact(&mut first).unwrap();
    assert!(first.starts_with(b"HTTP/1.1 200 OK\r\n"));
    file.set_len(1000).unwrap();
    let mut rest = Vec::new();
    let end = client.read_to_end(&mut rest);
    assert!(end.is_err(), "{} bytes, and a good end", rest.len());
    assert!(rest.len() < 64 << 20);
    fixture.catch_up();
    fixture.end();
}

#[test]
fn a_file_that_grows_is_sent_as_it_was_announced() {
    let content = content(3_000_000);
    let mut file = file_of(&content);
    let fixture = Fixture::new(&file);
    let mut client = fixture.ask("/file");
    ask_on(&mut client, "/next");
    let (packet, taken) = fixture.worker.take_file();
    file.seek(std::io::SeekFrom::End(0)).unwrap();
    file.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
    fixture
        .worker
        .give_file(&fixture.server.engine, &packet, taken);
    let mut first = vec![0; 1000];
    client.read_exact(&mut first).unwrap();
    file.write_all(&content).unwrap();
    let announced = b"content-length: 3000000\r\n";
    let head = first.windows(4).position(|end| end == b"\r\n\r\n").unwrap() + 4;
    assert!(
        first[..head]
            .windows(announced.len())
            .any(|at| at == announced)
    );
    let mut rest = vec![0; content.len() - (first.len() - head)];
    client.read_exact(&mut rest).unwrap();
    assert!([&first[head..], &rest].concat() == content);
    assert_eq!(read_response(&mut client), (200, b"/next".to_vec()));
    fixture.end();
}
