//! Services on their loops: beginning, company, drain, end.

use super::*;

#[test]
fn neighbours_talk_and_so_do_timers_and_requests() {
    type Room = Arc<Mutex<Vec<StreamId>>>;
    let room: Room = Arc::default();
    let say = |context: &mut Context<'_>, room: &Room, text: &[u8]| {
        for member in room.lock().unwrap().iter() {
            context.streams().send(*member, text).unwrap();
        }
    };
    let members = room.clone();
    let probe = Probe::new(move |context, what| match what {
        What::Accept(id) => {
            members.lock().unwrap().push(id);
            say(context, &members, b"+");
        }
        What::Receive(id) => {
            let bytes = context.streams().peek(id).unwrap().to_vec();
            context.streams().consume(id, bytes.len()).unwrap();
            if bytes == b"later" {
                let members = members.clone();
                context.timer(Duration::from_millis(1), move |context| {
                    say(context, &members, b"tick");
                });
            } else {
                say(context, &members, &bytes);
            }
        }
        What::Close(id, _) => {
            members.lock().unwrap().retain(|member| *member != id);
            say(context, &members, b"-");
        }
        _ => {}
    });
    let mut routes = Routes::default();
    let members = room.clone();
    let handler = WithContext(
        move |context: &mut Context<'_>, _: &Request<'_>, response: &mut Response| {
            say(context, &members, b"request");
            response.write(b"said");
            Step::Close
        },
    );
    routes.inline.insert("GET", "/", Arc::new(handler)).unwrap();
    let mut engine = Engine::bind(one_loop(), routes, &[any_port()]).unwrap();
    let options = ServiceOptions::default();
    engine
        .add_service(Some(&any_port()), probe, options)
        .unwrap();
    engine.start().unwrap();
    let addresses = engine.addresses();
    assert!(addresses[0].starts_with("http://"), "{addresses:?}");

    let chat = addresses[1].strip_prefix("tcp://").unwrap();
    let mut first = connect(chat);
    assert_eq!(read(&mut first, 1), b"+");
    let mut second = connect(chat);
    assert_eq!(
        (read(&mut first, 1), read(&mut second, 1)),
        (b"+".into(), b"+".into())
    );
    first.write_all(b"hello").unwrap();
    assert_eq!(read(&mut first, 5), b"hello");
    assert_eq!(read(&mut second, 5), b"hello");
    second.write_all(b"later").unwrap();
    assert_eq!(read(&mut first, 4), b"tick");
    assert_eq!(read(&mut second, 4), b"tick");
    let mut web = connect(&addresses[0].replace("http://", ""));
    web.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    let mut answer = String::new();
    web.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("said"), "{answer}");
    assert_eq!(read(&mut first, 7), b"request");
    assert_eq!(read(&mut second, 7), b"request");
    drop(second);
    assert_eq!(read(&mut first, 1), b"-");
}

#[test]
fn a_stream_of_another_loop_or_of_the_past_is_refused() {
    let streams: Arc<Mutex<Vec<StreamId>>> = Arc::default();
    let (told, errors) = events();
    let all = streams.clone();
    let server = Server::start(2, move |context, what| match what {
        What::Accept(id) => all.lock().unwrap().push(id),
        What::Receive(id) => {
            let here = context.loop_index();
            let streams = context.streams();
            let mut byte = [0];
            while streams.recv(id, &mut byte).unwrap() > 0 {}
            for other in all.lock().unwrap().iter().filter(|other| **other != id) {
                let error = streams.send(*other, b"x");
                let results = [
                    streams.want(*other, Wait::Default),
                    streams.recv(*other, &mut byte).map(drop),
                    streams.peek(*other).map(drop),
                    streams.consume(*other, 0),
                    streams.close(*other),
                    streams.abort(*other),
                    streams.set_tag(*other, 1),
                    streams.tag(*other).map(drop),
                    streams.peer(*other).map(drop),
                    streams.unsent(*other).map(drop),
                ];
                assert!(results.iter().all(|result| *result == error), "{results:?}");
                assert_eq!(
                    error == Err(StreamError::WrongLoop),
                    other.loop_index() != here
                );
                told.tell(error);
            }
            streams.send(id, b"done").unwrap();
        }
        _ => {}
    });
    // The kernel shares connections out: go on until both loops have had one.
    let both =
        |streams: &[StreamId]| (0..2).all(|at| streams.iter().any(|id| id.loop_index() == at));
    while !both(&streams.lock().unwrap()) {
        let mut client = server.connect();
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(client.read(&mut [0]).unwrap(), 0);
    }
    let gone = streams.lock().unwrap().len();
    let mut client = server.connect();
    client.write_all(b"go").unwrap();
    assert_eq!(read(&mut client, 4), b"done");
    let told: Vec<_> = (0..gone).map(|_| errors.recv().unwrap()).collect();
    assert!(told.contains(&Err(StreamError::WrongLoop)), "{told:?}");
    assert!(told.contains(&Err(StreamError::Gone)), "{told:?}");
}

#[test]
fn a_service_begins_and_ends_once_on_each_loop() {
    let (told, seen) = events();
    let server = Server::start(3, move |context, what| {
        let (name, streams) = match what {
            What::Init => ("init", context.streams().len()),
            What::Drain => ("drain", 0),
            What::Exit => ("exit", 0),
            _ => return,
        };
        told.tell((name, context.loop_index()));
        assert_eq!(streams, 0);
        let to = Target::Unix("/nonexistent".into());
        if name == "exit" {
            let refused = context.streams().connect(&to, Duration::ZERO, 0);
            assert_eq!(refused, Err(StreamError::Gone));
        }
    });
    let all = |expected: &str| {
        let mut loops: Vec<_> = (0..3)
            .map(|_| seen.recv().unwrap())
            .map(|(name, index)| {
                assert_eq!(name, expected);
                index
            })
            .collect();
        loops.sort_unstable();
        assert_eq!(loops, [0, 1, 2]);
    };
    all("init");
    server.engine.drain();
    all("drain");
    server.engine.control_events().wait(None).unwrap();
    assert_eq!(server.engine.next_control_event(), Some(ControlEvent::Idle));
    server.engine.stop();
    all("exit");
    server.engine.stop();
    assert!(seen.try_recv().is_err());
}

#[test]
fn a_drain_waits_for_streams_and_lets_them_say_goodbye() {
    let members: Arc<Mutex<Vec<StreamId>>> = Arc::default();
    let server = Server::start(1, move |context, what| match what {
        What::Accept(id) => {
            members.lock().unwrap().push(id);
            context.streams().send(id, b"welcome").unwrap();
        }
        What::Drain => {
            for member in members.lock().unwrap().iter() {
                context.streams().send(*member, b"goodbye").unwrap();
                context.streams().close(*member).unwrap();
            }
        }
        _ => {}
    });
    let mut client = server.connect();
    assert_eq!(read(&mut client, 7), b"welcome");
    server.engine.drain();
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, b"goodbye");
    assert!(TcpStream::connect(&server.address).is_err());
    drop(client);
    server.engine.control_events().wait(None).unwrap();
    assert_eq!(server.engine.next_control_event(), Some(ControlEvent::Idle));
}

#[test]
fn a_callback_that_takes_too_long_is_counted() {
    let config = EngineConfig {
        callback_budget: Duration::from_millis(2),
        ..one_loop()
    };
    let server = Server::with(config, ServiceOptions::default(), |context, what| {
        if let What::Receive(id) = what {
            let begun = Instant::now();
            if context.streams().peek(id) == Ok(b"work") {
                while begun.elapsed() < Duration::from_millis(3) {}
            }
            echo(context, id);
        }
    });
    let mut client = server.connect();
    client.write_all(b"work").unwrap();
    assert_eq!(read(&mut client, 4), b"work");
    // The loop counts after the echo is queued, so one more round tells that it has.
    ping(&mut client);
    assert!(server.engine.stats().stream_overruns >= 1);
}

#[test]
fn pinned_loops_stay_on_their_cpus() {
    let config = EngineConfig {
        loops: Some(2),
        pin_loops: true,
        ..EngineConfig::default()
    };
    let cpus = affinity::allowed().unwrap();
    let (told, seen) = events();
    let server = Server::with(config, ServiceOptions::default(), move |context, what| {
        let index = usize::from(context.loop_index());
        assert_eq!(
            affinity::current(),
            Some(cpus[index % cpus.len()]),
            "{what:?}"
        );
        if let What::Receive(id) = what {
            echo(context, id);
            told.tell(index);
        }
    });
    let mut loops = [false; 2];
    while loops != [true; 2] {
        ping(&mut server.connect());
        loops[seen.recv().unwrap()] = true;
    }
}

#[test]
fn those_that_wait_when_the_engine_drains_are_told_before_the_drain() {
    let welcome = Arc::new(Mutex::new(0));
    let (told, seen) = events();
    let members = welcome.clone();
    let server = Server::with(
        one_loop(),
        ServiceOptions::default(),
        move |context, what| {
            match what {
                What::Receive(id) => {
                    // Holds the loop until the test has connected more and asked it to drain.
                    told.tell(0);
                    drop(members.lock().unwrap());
                    echo(context, id);
                }
                What::Accept(_) => told.tell(1),
                What::Drain => told.tell(2),
                _ => {}
            }
        },
    );
    let mut first = server.connect();
    assert_eq!(seen.recv().unwrap(), 1);
    let held = welcome.lock().unwrap();
    first.write_all(b"hold").unwrap();
    assert_eq!(seen.recv().unwrap(), 0);
    let _more = [server.connect(), server.connect()];
    server.engine.drain();
    drop(held);
    let order: Vec<_> = (0..3).map(|_| seen.recv().unwrap()).collect();
    assert_eq!(order, [1, 1, 2]);
}
