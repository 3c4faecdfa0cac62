//! `toolb run` from outside: real processes, real sockets, real signals. In place of a Python this
//! test program runs itself as the worker.

mod support;

use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Duration;

use support::{Folder, Server, address, answer_of, ask, body, get, kill, limited_toolb, toolb};

#[test]
fn serves_and_stops() {
    let mut server = Server::start(&["echo:app", "--port", "0", "--workers", "2"]);
    let banner = server.wait_for("serving echo:app on http://127.0.0.1:");
    assert!(
        banner.ends_with(&format!(
            "(2 workers, 1 loop, pid {}) - stop with Ctrl-C",
            server.child.id()
        )),
        "{banner}"
    );
    let response = get(TcpStream::connect(address(&banner)).unwrap(), "/");
    assert!(response.starts_with("HTTP/1.1 200 OK\r\n"), "{response}");
    assert!(response.contains("server: toolb\r\n"), "{response}");
    server.signal("INT");
    let (status, rest) = server.finish();
    assert_eq!(status.code(), Some(0), "{rest}");
}

#[test]
fn serves_on_a_socket_file() {
    let folder = Folder::new();
    let path = folder.0.join("app.sock");
    let socket = path.to_str().unwrap();
    let args = ["echo:app", "--uds", socket, "--uds-permissions", "600"];
    let mut server = Server::start(&args);
    server.wait_for(&format!("serving echo:app on unix:{socket} (1 worker"));
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let mut stream = UnixStream::connect(&path).unwrap();
    ask(&mut stream, "/");
    let response = answer_of(stream);
    assert!(response.starts_with("HTTP/1.1 200 OK\r\n"), "{response}");
    server.stop();
    assert!(!path.exists());
}

#[test]
fn a_worker_that_dies_is_replaced() {
    let mut server = Server::start(&["echo:app", "--port", "0"]);
    let address = address(&server.wait_for("serving")).to_owned();
    let first = body(&get(TcpStream::connect(&address).unwrap(), "/"));
    kill("KILL", first.parse().unwrap());
    let line = server.wait_for("another starts");
    let expected = format!(
        "toolb warning: worker 1 (pid {first}) was ended by SIGKILL; another starts in 100 ms"
    );
    // After the time.
    assert_eq!(line.split_once(' ').unwrap().1, expected);
    // Waits in the queue until the new one is ready.
    let second = body(&get(TcpStream::connect(&address).unwrap(), "/"));
    assert_ne!(first, second);
    server.stop();
}

#[test]
fn what_was_accepted_is_answered_before_the_end() {
    let folder = Folder::new();
    let (mut server, stream) = Server::start_and_hold(&folder, &["echo:app", "--port", "0"]);
    server.signal("TERM");
    server.wait_for("SIGTERM: finishing what has been accepted, for 30 s at most");
    fs::write(folder.fifo(), "go on").unwrap();
    let response = answer_of(stream);
    assert!(response.starts_with("HTTP/1.1 200 OK\r\n"), "{response}");
    let (status, rest) = server.finish();
    assert_eq!(status.code(), Some(0), "{rest}");
}

#[test]
fn who_waits_when_the_last_worker_dies_at_the_end_is_answered() {
    let folder = Folder::new();
    let mut server = Server::start_in(&folder, &["echo:app", "--port", "0"]);
    let address = address(&server.wait_for("serving")).to_owned();
    let worker = body(&get(TcpStream::connect(&address).unwrap(), "/"));
    let [mut held, mut waiting] = [(); 2].map(|()| TcpStream::connect(&address).unwrap());
    ask(&mut held, "/hold");
    server.wait_for("holding");
    ask(&mut waiting, "/");
    server.signal("TERM");
    server.wait_for("SIGTERM: finishing");
    // Nobody takes its place any more.
    kill("KILL", worker.parse().unwrap());
    assert!(answer_of(held).starts_with("HTTP/1.1 502 "));
    let answer = answer_of(waiting);
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer:?}");
    server.finish();
}

#[test]
fn a_second_signal_waits_for_nothing() {
    let folder = Folder::new();
    let (mut server, _stream) = Server::start_and_hold(&folder, &["echo:app", "--port", "0"]);
    server.signal("INT");
    server.wait_for("SIGINT: finishing");
    // not-sync: time is what tells a second signal from an echo of the first.
    thread::sleep(Duration::from_millis(150));
    server.signal("INT");
    // The worker shares standard error: its end is the end of both.
    let (status, rest) = server.finish();
    assert!(rest.contains("second signal: killing 1 worker"), "{rest}");
    assert_eq!(status.code(), Some(128 + 2));
}

#[test]
fn the_time_to_finish_is_limited() {
    let folder = Folder::new();
    let args = [
        "echo:app",
        "--port",
        "0",
        "--timeout-graceful-shutdown",
        "200ms",
    ];
    let (server, _stream) = Server::start_and_hold(&folder, &args);
    server.signal("TERM");
    let (status, rest) = server.finish();
    let text =
        "1 worker did not finish within 0.2 s and is killed; --timeout-graceful-shutdown gives";
    assert!(rest.contains(text), "{rest}");
    assert_eq!(status.code(), Some(1));
}

#[test]
fn workers_do_not_outlive_a_killed_server() {
    let mut server = Server::start(&["echo:app", "--port", "0", "--workers", "3"]);
    server.wait_for("serving");
    server.signal("KILL");
    // Standard error ends when the last of them has gone.
    server.finish();
}

#[test]
fn an_application_that_cannot_start_ends_it_all_with_one_line() {
    let cases = [
        (
            "broken:app",
            "toolb error: cannot start: no module named \"broken\"; look at --app-dir\n",
        ),
        (
            "exits:app",
            "could not start the application; its message stands above\n",
        ),
        (
            "ends:app",
            "exited with code 1 before it was ready; if it has no module toolb",
        ),
    ];
    for (target, text) in cases {
        let server = Server::start(&[target, "--port", "0", "--workers", "3"]);
        let (status, output) = server.finish();
        assert_eq!(status.code(), Some(3), "{output}");
        assert!(output.contains(text), "{output}");
        let errors = output.matches("toolb error:").count();
        assert_eq!(errors, 1, "{output}");
    }
}

#[test]
fn what_to_do_about_what_cannot_be_had_depends_on_why() {
    let mut missing = toolb();
    missing.args(["run", "--python", "/nowhere/python"]);
    let mut limited = limited_toolb("-n 60");
    limited.args(["run", "--workers", "60", "--io-threads", "1"]);
    let mut more_limited = limited_toolb("-n 20");
    more_limited.args(["run", "--io-threads", "32"]);
    let files = "raise the limit on open files (ulimit -n)";
    let python = "choose a Python with --python";
    for (command, what, right, wrong) in [
        (&mut missing, " cannot be started: ", python, "ulimit"),
        (&mut limited, " cannot be started: ", files, "--"),
        (&mut more_limited, " cannot listen on ", files, "--"),
    ] {
        let command = command.args(["echo:app", "--port", "0"]);
        let (status, output) = Server::spawn(command).finish();
        assert_eq!(status.code(), Some(3), "{output}");
        let error = output.lines().find(|line| line.contains("toolb error:"));
        let error = error.unwrap_or_default();
        assert!(error.contains(what), "{output}");
        assert!(error.contains(right) && !error.contains(wrong), "{output}");
    }
}

#[test]
fn a_port_that_is_taken_ends_it_with_one_line() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let (status, output) = Server::start(&["echo:app", "--port", &port]).finish();
    assert_eq!(status.code(), Some(3));
    assert_eq!(output.lines().count(), 1, "{output}");
    assert!(output.contains(&format!("127.0.0.1:{port}")), "{output}");
    assert!(output.contains("--port"), "{output}");
}

#[test]
fn wrong_usage_names_option_value_and_what_is_allowed() {
    let cases: [(&[&str], &str); 27] = [
        (
            &["run", "main:app", "--port", "-1"],
            "toolb: --port: \"-1\": expected 0 to 65535 (0 picks a free port)\n",
        ),
        (
            &["run", "main:app", "--app-dir", "/no/such/folder"],
            "toolb: --app-dir: \"/no/such/folder\": expected a folder, and there is none of that name\n",
        ),
        (
            &["run", "main:app", "--timeout-send", "0"],
            "toolb: --timeout-send: must be more than 0\n",
        ),
        (
            &["serve", "main:app"],
            "toolb: main:app: toolb serve takes no application; toolb work main:app brings it along\n",
        ),
        (
            &["serve", "--stream-host", "::1"],
            "toolb: --stream-host: needs --stream-port\n",
        ),
        (
            &["serve", "--limit-streams", "0"],
            "toolb: --limit-streams: \"0\": expected a number from 1 to 2147483647\n",
        ),
        (
            &["serve", "--workers", "2"],
            "toolb: toolb serve has no --workers; toolb run and toolb work have it\n",
        ),
        (
            &["work"],
            "toolb: MODULE:ATTR is missing: name the application, as in toolb work main:app\n",
        ),
        (
            &["work", "main:app", "--bus", "fd:3"],
            "toolb: --bus: \"fd:3\": expected the path of a socket, such as /run/app/bus\n",
        ),
        (
            &["run", "main:app", "--port", "99999"],
            "toolb: --port: \"99999\": expected 0 to 65535 (0 picks a free port)\n",
        ),
        (
            &["run", "main:app", "--loop", "fast"],
            "toolb: --loop: \"fast\": expected auto, asyncio or uvloop\n",
        ),
        (
            &["run", "main:app", "--timeout-response", "soon"],
            "toolb: --timeout-response: \"soon\": expected a duration such as 90, 90s, 1m, 2h, 1d or 500ms\n",
        ),
        (
            &["run", "main:app", "--prot", "1"],
            "toolb: unknown option --prot; did you mean --port?\n",
        ),
        (
            &["serve", "--timeout-worker-healthcheck", "3"],
            "toolb: toolb serve has no --timeout-worker-healthcheck; toolb run and toolb work have it\n",
        ),
        (
            &["run", "main:app", "-b", "0.0.0.0:80"],
            "toolb: unknown option -b; use --host 0.0.0.0 --port 80\n",
        ),
        (
            &["run", "main:app", "--bind=unix:/run/app.sock"],
            "toolb: unknown option --bind; use --uds /run/app.sock\n",
        ),
        (
            &["run", "main:app", "-k", "uvicorn.workers.UvicornWorker"],
            "toolb: unknown option -k; leave it out: all workers run ASGI applications, and --loop chooses their event loop\n",
        ),
        (
            &["work", "main:app", "--bind", ":80"],
            "toolb: unknown option --bind; with toolb run and toolb serve: use --host 0.0.0.0 --port 80\n",
        ),
        (
            &["work", "main:app", "--graceful-timeout", "5"],
            "toolb: unknown option --graceful-timeout; use --timeout-graceful-shutdown\n",
        ),
        (
            &["run", "main:create_app()"],
            "toolb: MODULE:ATTR: \"main:create_app()\": expected the name of a function without a call, as in main:create_app --factory\n",
        ),
        (
            &["run", "main:app", "--host=127.0.0.1:80"],
            "toolb: --host: \"127.0.0.1:80\": expected an address alone, as in --host 127.0.0.1 --port 80\n",
        ),
        (
            &["serve", "--stream-host", "http://[::1]:7777/"],
            "toolb: --stream-host: \"http://[::1]:7777/\": expected an address alone, as in --stream-host [::1] --stream-port 7777\n",
        ),
        (
            &["run", "main.py:app"],
            "toolb: MODULE:ATTR: \"main.py:app\": expected a module and a name in it, such as main:app\n",
        ),
        (
            &["run", "main.py"],
            "toolb: MODULE:ATTR: \"main.py\": expected a module and a name in it, such as main:app\n",
        ),
        (
            &["run"],
            "toolb: MODULE:ATTR is missing: name the application, as in toolb run main:app\n",
        ),
        (
            &["main:app"],
            "toolb: unknown command \"main:app\"; did you mean toolb run main:app?\n",
        ),
        (
            &["run", "main:app", "--limit-request-line", "20KiB"],
            "toolb: --limit-request-line: 20480 is more than limit-request-head (16384), of which the request line is a part\n",
        ),
    ];
    for (args, text) in cases {
        let output = toolb().args(args).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stderr), text);
        assert_eq!(output.status.code(), Some(2));
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn the_environment_is_the_default_and_is_named_when_wrong() {
    let output = toolb()
        .args(["run", "main:app"])
        .env("TOOLB_PORT", "none")
        .output()
        .unwrap();
    let text =
        "toolb: --port: \"none\": expected 0 to 65535 (0 picks a free port) (from TOOLB_PORT)\n";
    assert_eq!(String::from_utf8_lossy(&output.stderr), text);
    let output = toolb()
        .args(["run", "main:app", "-w", "2.5"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("2.5") && !text.contains("TOOLB"), "{text}");
    let output = toolb()
        .args(["run", "main:app"])
        .env("WEB_CONCURRENCY", "0")
        .output()
        .unwrap();
    let text = "toolb: WEB_CONCURRENCY: \"0\": expected a number from 1 to 1024\n";
    assert_eq!(String::from_utf8_lossy(&output.stderr), text);
    // Empty is not set: the port is the usual one, and what is wrong is something else.
    let output = toolb()
        .args(["run", "main:app", "--workers", "0"])
        .env("TOOLB_PORT", "")
        .env("TOOLB_APP_DIR", "")
        .env("TOOLB_ACCESS_LOG", "")
        .output()
        .unwrap();
    let text = "toolb: --workers: \"0\": expected a number from 1 to 1024\n";
    assert_eq!(String::from_utf8_lossy(&output.stderr), text);
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn version() {
    let output = toolb().arg("--version").output().unwrap();
    let text = format!("toolb {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(String::from_utf8_lossy(&output.stdout), text);
    assert_eq!(output.status.code(), Some(0));
}

/// Not a test: what a server under test starts as its worker.
#[test]
fn worker() {
    support::worker::main();
}
