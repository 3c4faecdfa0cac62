//! What a handler keeps on each loop.

use super::*;

#[test]
fn a_handler_keeps_a_state_on_each_loop() {
    struct Counting(Sender<(u16, &'static str, ThreadId)>);
    struct Count {
        served: Cell<u32>,
        loop_index: u16,
        thread: ThreadId,
        events: Sender<(u16, &'static str, ThreadId)>,
    }
    impl Handler for Counting {
        fn handle(
            &self,
            context: &mut Context<'_>,
            request: &Request<'_>,
            response: &mut Response,
        ) -> Step {
            let count = request.state::<Count>().unwrap();
            assert!(request.state::<u32>().is_none());
            assert_eq!(count.thread, std::thread::current().id());
            assert_eq!(count.loop_index, context.loop_index());
            count.served.set(count.served.get() + 1);
            response.write(format!("{}:{}", count.loop_index, count.served.get()).as_bytes());
            Step::Done
        }

        fn make_state(&self, context: &mut Context<'_>) -> Option<Box<dyn Any>> {
            let loop_index = context.loop_index();
            let thread = std::thread::current().id();
            self.0.send((loop_index, "made", thread)).unwrap();
            Some(Box::new(Count {
                served: Cell::new(0),
                loop_index,
                thread,
                events: self.0.clone(),
            }))
        }
    }
    impl Drop for Count {
        fn drop(&mut self) {
            let thread = std::thread::current().id();
            self.events
                .send((self.loop_index, "dropped", thread))
                .unwrap();
        }
    }
    let (events, told) = channel();
    let handler = Arc::new(Counting(events));
    let mut routes = Routes::default();
    // Two routes of one handler share its state.
    routes.inline.insert("GET", "/a", handler.clone()).unwrap();
    routes.inline.insert("GET", "/b", handler).unwrap();
    let (engine, address) = start(routes, |_| ());
    let mut served = [0; 2];
    for number in 0..20 {
        let path = if number % 2 == 0 { "a" } else { "b" };
        let mut stream = TcpStream::connect(&address).unwrap();
        let request = format!("GET /{path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let answer = rest(stream).0;
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        let (index, count) = body.split_once(':').unwrap();
        let index: usize = index.parse().unwrap();
        served[index] += 1;
        assert_eq!(count.parse(), Ok(served[index]));
    }
    engine.stop();
    let events: Vec<_> = told.try_iter().collect();
    for index in 0..2 {
        let of_loop: Vec<_> = events.iter().filter(|event| event.0 == index).collect();
        assert_eq!(
            of_loop.iter().map(|event| event.1).collect::<Vec<_>>(),
            ["made", "dropped"]
        );
        assert_eq!(of_loop[0].2, of_loop[1].2);
    }
}
