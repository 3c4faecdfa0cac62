//! `toolb serve` and `toolb work` from outside: an engine and its workers in programs of their own.

mod support;

use std::fs;
use std::net::TcpStream;
use std::path::PathBuf;

use support::{Folder, Server, address, answer_of, ask, body, get, kill, toolb};

/// An engine and what belongs to it.
struct Scene {
    folder: Folder,
}

impl Scene {
    fn new() -> Self {
        Self {
            folder: Folder::new(),
        }
    }

    fn bus(&self) -> PathBuf {
        self.folder.0.join("bus")
    }

    fn serve(&self, port: &str, more: &[&str]) -> Server {
        let mut command = toolb();
        command.args(["serve", "--port", port, "--bus"]);
        Server::spawn(command.arg(self.bus()).args(more))
    }

    fn work(&self, target: &str, more: &[&str]) -> Server {
        let mut command = toolb();
        command.args(["work", target, "--bus"]).arg(self.bus());
        command.env("TEST_FIFO", self.folder.fifo());
        Server::spawn(command.args(more))
    }

    /// What is left in the folder.
    fn left(&self) -> usize {
        fs::read_dir(&self.folder.0).unwrap().count()
    }
}

fn pid(address: &str) -> u32 {
    let response = get(TcpStream::connect(address).unwrap(), "/");
    body(&response).parse().unwrap()
}

#[test]
fn an_engine_and_workers_find_each_other_and_end() {
    let scene = Scene::new();
    let mut serve = scene.serve("0", &[]);
    let banner = serve.wait_for("serving on http://127.0.0.1:");
    let address = address(&banner).to_owned();
    let hint = serve.wait_for("toolb work main:app --bus ");
    assert!(hint.ends_with(scene.bus().to_str().unwrap()), "{hint}");
    // Comes before there is anybody.
    let mut early = TcpStream::connect(&address).unwrap();
    ask(&mut early, "/");
    let mut work = scene.work("echo:app", &["-w", "2"]);
    work.wait_for("2 workers ready for an engine at");
    assert!(answer_of(early).starts_with("HTTP/1.1 200 OK\r\n"));
    serve.wait_for("requests go to 2 consumers now");
    work.signal("TERM");
    let (status, rest) = work.finish();
    assert_eq!(status.code(), Some(0), "{rest}");
    assert!(!rest.contains("warning"), "{rest}");
    serve.wait_for("has left; requests wait for another consumer");
    serve.signal("TERM");
    let (status, rest) = serve.finish();
    assert_eq!(status.code(), Some(0), "{rest}");
    assert_eq!(scene.left(), 0);
}

#[test]
fn workers_outlive_the_engine_and_serve_the_next_one() {
    let scene = Scene::new();
    let mut work = scene.work("echo:app", &["--workers", "2"]);
    work.wait_for("2 workers ready");
    let mut first = scene.serve("0", &[]);
    let address = address(&first.wait_for("serving on")).to_owned();
    let (_, port) = address.rsplit_once(':').unwrap();
    first.wait_for("requests go to 2 consumers now");
    let before = pid(&address);
    first.signal("KILL");
    first.finish();
    // On the same port, in spite of what the killed one has left behind.
    let mut second = scene.serve(port, &[]);
    second.wait_for("serving on");
    second.wait_for("requests go to 2 consumers now");
    let mut known = vec![before];
    known.extend((0..8).map(|_| pid(&address)));
    known.sort_unstable();
    known.dedup();
    assert!(known.len() <= 2, "a worker was started anew: {known:?}");
    // A graceful end is no reason for them to end either.
    second.stop();
    let mut third = scene.serve(port, &[]);
    third.wait_for("requests go to 2 consumers now");
    work.stop();
    third.stop();
    assert_eq!(scene.left(), 0);
}

#[test]
fn a_worker_that_dies_is_replaced_and_its_requests_are_settled() {
    let scene = Scene::new();
    let mut serve = scene.serve("0", &[]);
    let address = address(&serve.wait_for("serving on")).to_owned();
    let mut work = scene.work("echo:app", &[]);
    let first = pid(&address);
    kill("KILL", first);
    let line = work.wait_for("another starts");
    assert!(line.contains("was ended by SIGKILL"), "{line}");
    serve.wait_for("is gone; requests wait for another consumer");
    assert_ne!(pid(&address), first);
    work.stop();
    serve.stop();
}

#[test]
fn work_that_ends_answers_what_it_has_begun() {
    let scene = Scene::new();
    scene.folder.make_fifo();
    let mut serve = scene.serve("0", &[]);
    let address = address(&serve.wait_for("serving on")).to_owned();
    let mut work = scene.work("echo:app", &[]);
    // A worker that has not yet said that it is ready is ended without much ado.
    work.wait_for("1 worker ready");
    let mut held = TcpStream::connect(&address).unwrap();
    ask(&mut held, "/hold");
    work.wait_for("holding");
    work.signal("TERM");
    work.wait_for("SIGTERM: finishing");
    fs::write(scene.folder.fifo(), "go on").unwrap();
    let answer = answer_of(held);
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert_eq!(work.finish().0.code(), Some(0));
    serve.stop();
}

#[test]
fn without_workers_requests_wait_and_are_then_refused() {
    let scene = Scene::new();
    let mut serve = scene.serve("0", &["--queue-timeout", "100ms"]);
    let address = address(&serve.wait_for("serving on")).to_owned();
    let response = get(TcpStream::connect(&address).unwrap(), "/");
    assert!(response.starts_with("HTTP/1.1 503 "), "{response}");
    assert!(response.contains("\r\nretry-after: "), "{response}");
    serve.signal("INT");
    assert_eq!(serve.finish().0.code(), Some(0));
}

#[test]
fn a_second_engine_on_the_bus_is_refused_with_one_line() {
    let scene = Scene::new();
    let mut first = scene.serve("0", &[]);
    first.wait_for("serving on");
    let pid = first.child.id();
    let (status, output) = scene.serve("0", &[]).finish();
    assert_eq!(status.code(), Some(3));
    assert_eq!(output.lines().count(), 1, "{output}");
    assert!(
        output.contains(&format!("another engine (pid {pid}) has it")),
        "{output}"
    );
    assert!(output.contains("--bus"), "{output}");
    first.stop();
    assert_eq!(scene.left(), 0);
}

#[test]
fn the_default_bus_is_in_the_folder_of_the_session() {
    let scene = Scene::new();
    let start = |arguments: &[&str]| {
        let mut command = toolb();
        command.env("XDG_RUNTIME_DIR", &scene.folder.0);
        Server::spawn(command.args(arguments))
    };
    let mut serve = start(&["serve", "--port", "0"]);
    let address = address(&serve.wait_for("serving on")).to_owned();
    let hint = serve.wait_for("In another terminal");
    assert!(hint.ends_with("toolb work main:app"), "{hint}");
    assert!(scene.folder.0.join("toolb/bus").exists());
    let work = start(&["work", "echo:app"]);
    pid(&address);
    serve.stop();
    assert_eq!(scene.left(), 0, "the folder is gone, too");
    work.stop();
}

#[test]
fn what_is_taken_is_told_with_the_option_that_chooses_another() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let (scene, other) = (Scene::new(), Scene::new());
    let mut busy = other.serve("0", &[]);
    busy.wait_for("serving on");
    let cases: [(&Scene, &str, &[&str], &str); 3] = [
        (&scene, &port, &[], "another with --port (0 picks"),
        (
            &scene,
            "0",
            &["--stream-port", &port],
            "another with --stream-port (0 picks",
        ),
        (&other, "0", &[], "choose another path (--bus)"),
    ];
    for (scene, port, more, text) in cases {
        let (status, output) = scene.serve(port, more).finish();
        assert_eq!(status.code(), Some(3), "{output}");
        assert!(output.contains(text), "{output}");
    }
    busy.stop();
}

#[test]
fn an_application_that_cannot_start_ends_work_with_one_line() {
    let scene = Scene::new();
    let cases = [
        (
            "broken:app",
            "toolb error: cannot start: no module named \"broken\"; look at --app-dir\n",
        ),
        (
            "exits:app",
            "could not start the application; its message stands above\n",
        ),
    ];
    for (target, text) in cases {
        let (status, output) = scene.work(target, &["-w", "2"]).finish();
        assert_eq!(status.code(), Some(3), "{output}");
        assert!(output.contains(text), "{output}");
        assert_eq!(output.matches("toolb error:").count(), 1, "{output}");
    }
}

#[test]
fn a_path_that_is_no_bus_ends_work_with_one_line() {
    let scene = Scene::new();
    let _other = std::os::unix::net::UnixListener::bind(scene.bus()).unwrap();
    let mut work = scene.work("echo:app", &[]);
    // This worker says that it is ready before it looks; the real one looks first.
    let line = work.wait_for("is no bus");
    assert!(line.contains("toolb serve"), "{line}");
    work.signal("TERM");
    work.finish();
}

#[test]
fn workers_do_not_outlive_a_killed_supervisor() {
    let scene = Scene::new();
    let mut serve = scene.serve("0", &[]);
    serve.wait_for("serving on");
    let work = scene.work("echo:app", &["-w", "2"]);
    serve.wait_for("requests go to 2 consumers now");
    work.signal("KILL");
    // Standard error ends when the last of them has gone.
    work.finish();
    serve.wait_for("requests wait for another consumer");
    serve.stop();
}

/// Not a test: what `toolb work` starts as a worker.
#[test]
fn worker() {
    support::worker::main();
}
