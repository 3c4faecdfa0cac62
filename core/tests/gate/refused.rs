//! Who is sent away, and with what word.

use toolb_core::sys::eventfd::EventFd;

use super::*;

/// What the engine answers on a connection to the bus socket; `None`: it hangs up.
fn hear(socket: &Seqpacket) -> Option<Control> {
    assert!(socket.wait(Some(PATIENCE)).unwrap(), "no word came");
    let mut packet = vec![0; 65536];
    match socket.recv(&mut packet, &mut Vec::new()).unwrap() {
        0 => None,
        len => Some(Control::decode(&packet[..len]).unwrap()),
    }
}

fn hello() -> Hello {
    Hello {
        abi_min: 1,
        abi_max: 1,
        language: "rust".into(),
        name: "raw".into(),
        pool: "main".into(),
        slots: 8,
        concurrency: 8,
        window: 4,
        ..Hello::default()
    }
}

/// The text with which a packet is refused.
fn refusal(path: &Path, packets: &[Vec<u8>]) -> String {
    let socket = connect(path, PATIENCE).unwrap();
    for packet in packets {
        // It may have been refused before.
        let _ = socket.send(packet, &[]);
    }
    loop {
        match hear(&socket) {
            Some(Control::Error(text)) => {
                assert_eq!(hear(&socket), None);
                return text;
            }
            Some(Control::Welcome(_)) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn nonsense_is_refused_with_a_word_and_nobody_else_notices() {
    let folder = Folder::new();
    let path = folder.bus();
    let server = start(&at(&path));
    let good = Program::start(attach(&path), "good");
    let greet = |change: &dyn Fn(&mut Hello)| {
        let mut packet = hello();
        change(&mut packet);
        vec![Control::Hello(packet).encode()]
    };
    let twice = [greet(&|_| ()), greet(&|_| ())].concat();
    let wrong_order = [greet(&|_| ()), vec![Control::Drain { left: None }.encode()]].concat();
    let file = |owner| {
        let (slot, generation) = (0, 1);
        vec![
            Control::File {
                owner,
                slot,
                generation,
            }
            .encode(),
        ]
    };
    let cases = [
        (file(0), "before it had a lane"),
        ([greet(&|_| ()), file(0)].concat(), "without its descriptor"),
        (vec![b"GET / HTTP/1.1\r\n\r\n".to_vec()], "is not toolB's"),
        (vec![vec![0]], "shorter than its header"),
        (vec![vec![b'T'; 65_537]], "too large"),
        (vec![Control::Ready.encode()], "did not begin with a hello"),
        (twice, "hello twice"),
        (wrong_order, "only the engine says"),
        (
            greet(&|hello| hello.pool = "blue".into()),
            "the pool \"blue\"",
        ),
        (greet(&|hello| hello.generation = 3), "generation 3"),
        (greet(&|hello| hello.window = 0), "more than 0"),
        (greet(&|hello| hello.abi_min = 2), "bus ABI"),
        (
            greet(&|hello| (hello.abi_min, hello.abi_max) = (7, 9)),
            "upgrade toolb on the engine's side",
        ),
    ];
    for (packets, text) in cases {
        let refused = refusal(&path, &packets);
        assert!(refused.contains(text), "{refused} instead of {text}");
        assert_eq!(answer(ask(&server, "/")).1, "good");
    }
    drop(server);
    good.join();
}

#[test]
fn descriptors_that_nobody_asked_for_are_refused() {
    let folder = Folder::new();
    let _server = start(&at(&folder.bus()));
    let bell = EventFd::new().unwrap();
    let fd = bell.as_fd();
    let socket = connect(&folder.bus(), PATIENCE).unwrap();
    let packet = Control::Hello(hello()).encode();
    socket.send(&packet, &[fd]).unwrap();
    let Some(Control::Error(text)) = hear(&socket) else {
        panic!("welcome");
    };
    assert!(text.contains("descriptors"), "{text}");
    assert_eq!(hear(&socket), None);
    // A file that belongs to nothing is closed, one for a loop that there is not is refused.
    let socket = connect(&folder.bus(), PATIENCE).unwrap();
    socket.send(&packet, &[]).unwrap();
    assert!(matches!(hear(&socket), Some(Control::Welcome(_))));
    for owner in [0, 1] {
        let file = Control::File {
            owner,
            slot: 0,
            generation: 1,
        };
        socket.send(&file.encode(), &[fd]).unwrap();
    }
    let Some(Control::Error(text)) = hear(&socket) else {
        panic!("a file for nobody");
    };
    assert!(text.contains("a loop that there is not"), "{text}");
    // After the welcome, too.
    let socket = connect(&folder.bus(), PATIENCE).unwrap();
    socket.send(&packet, &[]).unwrap();
    assert!(matches!(hear(&socket), Some(Control::Welcome(_))));
    socket.send(&Control::Ready.encode(), &[fd, fd]).unwrap();
    assert!(matches!(hear(&socket), Some(Control::Error(_))));
    assert_eq!(hear(&socket), None);
}

#[test]
fn whoever_stays_silent_is_sent_away() {
    let folder = Folder::new();
    let path = folder.bus();
    let gate = GateOptions {
        hello_timeout: Duration::from_millis(50),
        ..at(&path)
    };
    let _server = start(&gate);
    let text = refusal(&path, &[]);
    assert!(text.contains("hello within 0.05 s"), "{text}");
}

#[test]
fn whoever_is_one_too_many_is_sent_away() {
    let folder = Folder::new();
    let path = folder.bus();
    let gate = GateOptions {
        consumers: 2,
        ..at(&path)
    };
    let server = start(&gate);
    let one = Program::start(attach(&path), "one");
    let two = Program::start(attach(&path), "two");
    let (bus, options) = (path.to_str().unwrap(), ConsumerOptions::default());
    let third = Consumer::attach(bus, &options);
    let text = third.err().unwrap().to_string();
    assert!(text.contains("there are 2 consumers already"), "{text}");
    one.order(Order::Leave);
    drop(one.join());
    let three = Program::start(
        when_there_is_room(|| Consumer::attach(bus, &options)),
        "three",
    );
    assert_eq!(answer(ask(&server, "/")).0, 200);
    drop(server);
    two.join();
    three.join();
}

#[test]
fn whoever_does_not_get_ready_is_sent_away() {
    let folder = Folder::new();
    let path = folder.bus();
    let gate = GateOptions {
        start_timeout: Duration::from_millis(50),
        ..at(&path)
    };
    let server = start(&gate);
    // The program itself knows what it waits for.
    let own = server.attach(&ConsumerOptions::default()).unwrap();
    let text = refusal(&path, &[Control::Hello(hello()).encode()]);
    assert!(text.contains("get ready within 0.05 s"), "{text}");
    let own = Program::start(own, "own");
    assert_eq!(answer(ask(&server, "/")).1, "own");
    // Whoever is ready may be idle.
    let text = refusal(&path, &[Control::Hello(hello()).encode()]);
    assert!(text.contains("get ready within 0.05 s"), "{text}");
    assert_eq!(answer(ask(&server, "/")).1, "own");
    drop(server);
    own.join();
}
