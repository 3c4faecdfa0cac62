//! Connections that a service makes.

use super::*;

#[test]
fn outgoing_connections_are_served_like_those_that_came() {
    let echoes = Server::start(1, |context, what| {
        if let What::Receive(id) = what {
            echo(context, id);
        }
    });
    let target = Target::Tcp(echoes.address.parse().unwrap());
    // What comes from one side goes to the other; a stream's tag is the number of its partner.
    let proxy = Server::start(2, move |context, what| {
        let streams = context.streams();
        match what {
            What::Accept(id) => {
                let tag = id.raw() as usize;
                let other = streams
                    .connect(&target, Duration::from_secs(60), tag)
                    .unwrap();
                streams.set_tag(id, other.raw() as usize).unwrap();
            }
            What::Receive(id) => {
                let other = StreamId::from_raw(streams.tag(id).unwrap() as u64);
                let bytes = streams.peek(id).unwrap().to_vec();
                streams.consume(id, bytes.len()).unwrap();
                streams.send(other, &bytes).unwrap();
            }
            What::Close(id, _) => {
                let other = StreamId::from_raw(streams.tag(id).unwrap() as u64);
                let _ = streams.close(other);
            }
            _ => {}
        }
    });
    let mut clients: Vec<_> = (0..20).map(|_| proxy.connect()).collect();
    clients.iter_mut().for_each(ping);
    clients.iter_mut().for_each(ping);
    drop(clients);
    assert_eq!(proxy.engine.stats().streams_connected, 20);
}

#[test]
fn a_connection_that_cannot_be_made_is_told_once() {
    let closed = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    // A queue that is full: whoever comes now is left waiting.
    let full = &Listener::tcp(([127, 0, 0, 1], 0).into(), 1, 0).unwrap()[0];
    let full_address = full.local_tcp().unwrap();
    let _waiting: Vec<_> = (0..8)
        .map(|_| Socket::connect_tcp(full_address).unwrap())
        .collect();
    let (told, failures) = events();
    let server = Server::start(1, move |context, what| {
        let streams = context.streams();
        match what {
            What::Receive(id) => {
                let mut order = [0; 16];
                let len = streams.recv(id, &mut order).unwrap();
                let (target, timeout) = match &order[..len] {
                    b"refused" => (Target::Tcp(closed), 60_000),
                    b"missing" => (Target::Unix("/nonexistent/socket".into()), 60_000),
                    b"long" => (Target::Unix("x".repeat(200).into()), 60_000),
                    b"late" => (Target::Tcp(full_address), 20),
                    _ => (Target::Tcp(full_address), 60_000),
                };
                let timeout = Duration::from_millis(timeout);
                let new = streams.connect(&target, timeout, 7).unwrap();
                streams.send(new, b"queued").unwrap_or_default();
                if order.starts_with(b"given up") {
                    streams.close(new).unwrap();
                    streams.close(new).unwrap();
                }
            }
            What::ConnectFail(id, error) => {
                assert_eq!(streams.tag(id), Ok(7));
                told.tell(error);
            }
            What::Connect(id) => unreachable!("{id:?} is connected"),
            _ => {}
        }
    });
    let order = |order: &[u8]| {
        server.connect().write_all(order).unwrap();
        failures.recv().unwrap()
    };
    assert_eq!(order(b"refused"), io::ErrorKind::ConnectionRefused);
    assert_eq!(order(b"missing"), io::ErrorKind::NotFound);
    assert_eq!(order(b"late"), io::ErrorKind::TimedOut);
    let given_up = io::Error::from_raw_os_error(toolb_core::sys::socket::CANCELLED).kind();
    assert_eq!(order(b"given up"), given_up);
    assert_eq!(order(b"long"), io::ErrorKind::InvalidInput);
    let mut client = server.connect();
    client.write_all(b"stop").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
    server.engine.stop();
    assert_eq!(failures.recv().unwrap(), given_up);
    assert!(failures.try_recv().is_err());
    assert_eq!(server.engine.stats().streams_connected, 0);
}

/// A handler whose state on each loop begins with a connection to a queue that is full.
struct Early(SocketAddr);

impl Handler for Early {
    fn handle(&self, _: &mut Context<'_>, _: &Request<'_>, _: &mut Response) -> Step {
        Step::Done
    }

    fn make_state(&self, context: &mut Context<'_>) -> Option<Box<dyn Any>> {
        let timeout = Duration::from_secs(60);
        let to = Target::Tcp(self.0);
        context.streams().connect(&to, timeout, 0).unwrap();
        None
    }
}

#[test]
fn a_connection_that_the_state_of_a_route_begins_has_its_time_too() {
    let full = &Listener::tcp(([127, 0, 0, 1], 0).into(), 1, 0).unwrap()[0];
    let address = full.local_tcp().unwrap();
    let waiting: Vec<_> = (0..8)
        .map(|_| Socket::connect_tcp(address).unwrap())
        .collect();
    let (told, seen) = events();
    let mut routes = Routes::default();
    let early = Arc::new(Early(address));
    routes.inline.insert("GET", "/", early).unwrap();
    let mut engine = Engine::bind(one_loop(), routes, &[]).unwrap();
    let service = Probe::new(move |_: &mut Context<'_>, what| match what {
        What::Init => told.tell(None),
        What::Connect(_) => told.tell(Some(None)),
        What::ConnectFail(_, error) => told.tell(Some(Some(error))),
        _ => {}
    });
    engine
        .add_service(None, service, ServiceOptions::default())
        .unwrap();
    engine.start().unwrap();
    assert_eq!(seen.recv().unwrap(), None);
    // There is room, and the kernel tries again.
    drop(waiting);
    let told = loop {
        while full.accept().unwrap().is_some() {}
        match seen.try_recv() {
            Ok(told) => break told,
            Err(_) => std::thread::yield_now(),
        }
    };
    assert_eq!(told, Some(None));
}
