//! Options of other servers, and what there is in their place.
#![forbid(unsafe_code)]

/// What to do instead of `option`, given with `value`, if another server knows it: the end of a line.
pub(super) fn advice(option: &str, value: Option<&str>) -> Option<String> {
    let fits = |name: &&str| match name.strip_suffix('*') {
        Some(start) => option.starts_with(start),
        None => option == *name,
    };
    let (_, advice) = WAYS.iter().find(|(names, _)| names.iter().any(fits))?;
    match (BINDS.contains(&option), value) {
        (true, Some(value)) => Some(format!("use {}", address(value))),
        _ => Some((*advice).to_owned()),
    }
}

/// The options for an address in one word, as other servers take it.
fn address(bind: &str) -> String {
    if let Some(path) = bind.strip_prefix("unix:") {
        return format!("--uds {path}");
    }
    let is_port = |text: &str| text.parse::<u16>().is_ok();
    match bind.rsplit_once(':') {
        Some(("", port)) if is_port(port) => format!("--host 0.0.0.0 --port {port}"),
        Some((host, port)) if is_port(port) && (!host.contains(':') || host.ends_with(']')) => {
            format!("--host {host} --port {port}")
        }
        _ => "--host and --port, or --uds for a Unix socket".to_owned(),
    }
}

const BINDS: [&str; 3] = ["-b", "--bind", "--insecure-bind"];

/// Names, or with `*` how they begin, and what there is in their place. The first that fits counts.
const WAYS: &[(&[&str], &str)] = &[
    (&BINDS, "use --host and --port, or --uds for a Unix socket"),
    (
        &["-p"],
        "the port is --port; there is no file for the process id",
    ),
    (
        &["--pid", "--pid-file"],
        "there is no file for the process id: the first line tells it",
    ),
    (&["--fd"], "sockets that are open already are not taken yet"),
    (
        &["--quic-bind", "--http2*"],
        "HTTP/2 and HTTP/3 are not there yet",
    ),
    (
        &["--reload*", "--no-reload"],
        "toolb does not restart workers on change yet; other programs, such as watchfiles, can \
         restart toolb",
    ),
    (
        &["-k", "--worker-class", "--interface"],
        "leave it out: all workers run ASGI applications, and --loop chooses their event loop",
    ),
    (&["--asgi-loop"], "use --loop"),
    (&["--asgi-lifespan"], "use --lifespan"),
    (
        &["--ws*", "--no-ws", "--websocket*"],
        "WebSocket is not there yet",
    ),
    (
        &[
            "--ssl*",
            "--no-ssl*",
            "--certfile",
            "--keyfile*",
            "--ca-certs",
            "--cert-reqs",
            "--verify-mode",
            "--ciphers",
        ],
        "TLS is not there yet: put a proxy in front, as docs/deployment.md says",
    ),
    (
        &[
            "--proxy-headers",
            "--no-proxy-headers",
            "--forwarded-allow-ips",
            "--forwarder-headers",
        ],
        "X-Forwarded-For is for a middleware in the application: docs/deployment.md has one",
    ),
    (
        &["--proxy-protocol", "--proxy-allow-from"],
        "the PROXY protocol is not there yet",
    ),
    (
        &["-t", "--timeout"],
        "use --timeout-worker-healthcheck for workers that stand still, --timeout-response for \
         responses that take long",
    ),
    (
        &["--graceful-timeout", "--workers-kill-timeout"],
        "use --timeout-graceful-shutdown",
    ),
    (
        &["--keep-alive", "--http1-keep-alive"],
        "use --timeout-keep-alive",
    ),
    (&["--no-http1-keep-alive"], "use --timeout-keep-alive 0"),
    (
        &["--read-timeout"],
        "use --timeout-request-header and --timeout-request-body",
    ),
    (
        &["--http1-header-read-timeout"],
        "use --timeout-request-header",
    ),
    (
        &[
            "--max-requests*",
            "--limit-max-requests*",
            "--workers-lifetime",
            "--workers-max-rss",
        ],
        "workers are not replaced for their age or size yet",
    ),
    (
        &["--chdir", "--working-dir", "--pythonpath"],
        "use --app-dir",
    ),
    (
        &["--threads", "--blocking-threads*"],
        "leave it out: a worker runs many requests in one event loop, and --workers adds workers",
    ),
    (
        &["--runtime-*"],
        "the threads that carry connections are --io-threads",
    ),
    (
        &["--worker-connections", "--backpressure"],
        "use --limit-concurrency, for all workers together",
    ),
    (
        &["--preload"],
        "leave it out: each worker loads the application by itself",
    ),
    (
        &["-c", "--config"],
        "there is no file for settings yet: each option has a variable, such as TOOLB_PORT",
    ),
    (
        &["-e", "--env", "--env-file", "--env-files"],
        "set the variables before toolb is started",
    ),
    (
        &["--access-logfile"],
        "use --access-log, which writes to standard output",
    ),
    (
        &["--access-logformat", "--access-log-fmt"],
        "leave it out: --access-log writes the combined format",
    ),
    (
        &["--error-logfile", "--log-file", "--log-config*"],
        "leave it out: the log goes to standard error, and --log-level says how much of it",
    ),
    (
        &["-D", "--daemon"],
        "leave it out: toolb stays in the foreground, and docs/deployment.md has a systemd unit",
    ),
    (
        &["-u", "--user", "-g", "--group"],
        "start toolb as that user; docs/deployment.md has a systemd unit",
    ),
    (&["-m", "--umask"], "use --uds-permissions"),
    (&["--url-path-prefix"], "use --root-path"),
    (
        &["--http", "--http1*", "--no-http1*", "--http-parser"],
        "leave it out: toolb speaks HTTP/1.1 and 1.0 by a parser of its own",
    ),
    (
        &[
            "--h11-max-incomplete-event-size",
            "--limit-request-field_size",
        ],
        "use --limit-request-head, for all fields together",
    ),
    (
        &["--header"],
        "add fields in the application, or in the proxy in front",
    ),
    (
        &["--reset-contextvars"],
        "leave it out: each request begins with context variables of its own",
    ),
    (
        &["--respawn*", "--no-respawn*"],
        "leave it out: workers that end are always replaced",
    ),
    (
        &["--use-colors", "--no-use-colors"],
        "leave it out: the log has no colours",
    ),
    (&["--static-path*"], "static files are not served yet"),
    (
        &["--metrics*", "--no-metrics", "--statsd*"],
        "metrics are not there yet",
    ),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use clap::CommandFactory;

    use super::*;
    use crate::args::Cli;

    #[test]
    fn an_address_in_one_word_is_taken_apart() {
        let cases = [
            ("0.0.0.0:80", "--host 0.0.0.0 --port 80"),
            (":8000", "--host 0.0.0.0 --port 8000"),
            ("[::1]:8000", "--host [::1] --port 8000"),
            ("unix:/run/app.sock", "--uds /run/app.sock"),
            ("::1", "--host and --port, or --uds for a Unix socket"),
            ("fd://3", "--host and --port, or --uds for a Unix socket"),
        ];
        for (bind, expected) in cases {
            let expected = Some(format!("use {expected}"));
            assert_eq!(advice("--bind", Some(bind)), expected, "{bind}");
        }
        assert_eq!(advice("-b", None).as_deref(), Some(WAYS[0].1));
        assert_eq!(advice("--unheard-of", None), None);
    }

    #[test]
    fn advice_names_options_that_there_are_for_those_that_there_are_not() {
        let command = Cli::command();
        let own: BTreeSet<_> = command
            .find_subcommand("run")
            .into_iter()
            .flat_map(|run| run.get_arguments().filter_map(|arg| arg.get_long()))
            .map(|name| format!("--{name}"))
            .collect();
        assert!(own.contains("--port"));
        for (names, advice) in WAYS {
            for name in *names {
                assert!(!own.contains(*name), "{name} is an option");
            }
            let words = advice.split([' ', ',', ';', ':']);
            for option in words.filter(|word| word.starts_with("--")) {
                assert!(own.contains(option), "{option} is none");
            }
        }
    }
}
