use clap::{CommandFactory, FromArgMatches};
use toolb_core::config::{Limits, Timeouts};
use toolb_core::engine::Listen;

use super::*;
use crate::args::{Cli, Command};
use crate::workers::worker_args;

fn parse(line: &str) -> (Run, ArgMatches) {
    let words = ["toolb", "run"].into_iter().chain(line.split_whitespace());
    let command = Cli::command();
    let matches = command.try_get_matches_from(words).unwrap();
    let Command::Run(run) = Cli::from_arg_matches(&matches).unwrap().command else {
        panic!("run");
    };
    let matches = matches.subcommand().unwrap().1.clone();
    (*run, matches)
}

fn config(line: &str) -> EngineConfig {
    let run = parse(line).0;
    engine_config(&run.engine, run.threads.io_threads.unwrap_or(1), false)
}

#[test]
fn the_defaults_are_those_of_the_engine() {
    let expected = EngineConfig {
        loops: Some(1),
        ..EngineConfig::default()
    };
    assert_eq!(config("main:app"), expected);
}

#[test]
fn workers_are_watched_unless_that_is_switched_off() {
    let watched = |line: &str| {
        let (run, matches) = parse(line);
        let worker = WorkerCommand::Python("python".into());
        let engine = options(&run, &matches, &worker).unwrap().engine;
        (engine.stuck_if_busy, engine.timeouts.stuck_grace.as_secs())
    };
    assert_eq!(watched("main:app"), (true, 10));
    let line = "main:app --timeout-worker-healthcheck 0";
    assert_eq!(watched(line), (true, 0));
}

#[test]
fn every_setting_arrives() {
    let line = "main:app --io-threads 3 --limit-request-line 4KiB --limit-request-head 32KiB \
                --limit-request-fields 50 --limit-request-body 0 --timeout-request-header 1 \
                --timeout-request-body 2s --timeout-response 3m --timeout-keep-alive 4ms \
                --timeout-graceful-shutdown 5h --timeout-send 6m --queue-size 6 --queue-timeout 7 \
                --limit-concurrency 8 --backlog 9 --no-server-header --no-date-header --access-log";
    let seconds = |count| std::time::Duration::from_secs(count);
    let expected = EngineConfig {
        loops: Some(3),
        limits: Limits {
            request_line: 4096,
            head: 32768,
            fields: 50,
            body: 0,
        },
        timeouts: Timeouts {
            request_header: seconds(1),
            request_body: seconds(2),
            response: seconds(180),
            keep_alive: std::time::Duration::from_millis(4),
            graceful_shutdown: seconds(5 * 3600),
            send_idle: seconds(6 * 60),
            ..Timeouts::default()
        },
        queue_size: 6,
        queue_timeout: seconds(7),
        limit_concurrency: Some(8),
        backlog: 9,
        server_header: None,
        date_header: false,
        access_log: true,
        ..EngineConfig::default()
    };
    assert_eq!(config(line), expected);
}

#[test]
fn the_last_of_two_opposites_counts() {
    assert!(config("main:app --no-access-log --access-log").access_log);
    assert!(!config("main:app --access-log --no-access-log").access_log);
}

#[test]
fn the_access_log_is_on_in_a_terminal() {
    assert!(engine_config(&parse("main:app").0.engine, 1, true).access_log);
    assert!(!engine_config(&parse("main:app --no-access-log").0.engine, 1, true).access_log);
}

#[test]
fn workers_come_from_the_platform_if_not_asked_for() {
    assert_eq!(worker_count(Some(3), Some("5".into())), Ok(3));
    assert_eq!(worker_count(None, Some("5".into())), Ok(5));
    assert_eq!(worker_count(None, Some("".into())), Ok(1));
    assert_eq!(worker_count(None, None), Ok(1));
    assert_eq!(
        worker_count(None, Some("many".into())),
        Err("WEB_CONCURRENCY: \"many\": expected a number from 1 to 1024".to_owned())
    );
}

#[test]
fn a_socket_file_replaces_host_and_port() {
    let (args, matches) = parse("main:app --uds /tmp/x --uds-permissions 660");
    let Ok(Listen::Uds { path, permissions }) = listener(&args.engine, &matches) else {
        panic!("a Unix socket");
    };
    assert_eq!((path.to_str(), permissions), (Some("/tmp/x"), Some(0o660)));
    let (args, matches) = parse("main:app --uds /tmp/x --port 1");
    assert_eq!(
        listener(&args.engine, &matches).unwrap_err(),
        "--uds: cannot be used with --port; leave one out"
    );
    let (args, matches) = parse("main:app --uds-permissions 660");
    assert!(listener(&args.engine, &matches).is_err());
}

#[test]
fn workers_are_told_what_to_run() {
    let (args, _) = parse("shop.web:make --factory --app-dir . --root-path /shop --loop uvloop");
    let list: Vec<_> = worker_args(&args.app, &args.engine.log)
        .into_iter()
        .map(|arg| arg.into_string().unwrap())
        .collect();
    assert_eq!(
        list.join(" "),
        "-m toolb.worker shop.web:make --loop uvloop --lifespan auto --app-dir . \
         --root-path /shop --log-level info --factory"
    );
}

#[test]
fn the_banner_counts() {
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(
        banner("main:app", "http://127.0.0.1:8000", 2, 1, 7),
        format!(
            "toolb {version} serving main:app on http://127.0.0.1:8000 (2 workers, 1 loop, pid 7) \
             - stop with Ctrl-C\n"
        )
    );
}
