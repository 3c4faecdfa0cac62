//! Serves by any program that attaches as a consumer: starts so many of it, and anew when one dies.
//!
//! `serve_program [uds=PATH] [workers=N] [loops=N] PROGRAM [ARGUMENT]...` says where it
//! listens, and ends with a signal. For tests of consumers in other languages.
#![forbid(unsafe_code)]

use std::env;
use std::io::{self, Write};
use std::process::ExitCode;

use toolb_core::config::EngineConfig;
use toolb_core::engine::Listen;
use toolb_core::server::{self, RunOptions, WorkerCommand};

fn main() -> ExitCode {
    let mut engine = EngineConfig::default();
    let mut listen = Listen::Tcp {
        host: String::from("127.0.0.1"),
        port: 0,
    };
    let mut workers = 1;
    let mut args = env::args_os().skip(1).peekable();
    while let Some((name, value)) = args
        .peek()
        .and_then(|word| word.to_str())
        .and_then(|word| word.split_once('='))
    {
        match (name, value.parse()) {
            ("uds", _) => {
                listen = Listen::Uds {
                    path: value.into(),
                    permissions: None,
                };
            }
            ("workers", Ok(count)) => workers = count,
            ("loops", Ok(count)) => engine.loops = Some(count),
            _ => return usage(),
        }
        args.next();
    }
    let Some(program) = args.next() else {
        return usage();
    };
    let command = WorkerCommand {
        program,
        args: args.collect(),
        ..WorkerCommand::default()
    };
    let mut options = RunOptions::new(engine, vec![listen], command);
    options.workers = workers;
    let outcome = server::run(options, |event| {
        // Whoever reads this may have gone.
        let _ = writeln!(io::stdout(), "{event}");
    });
    ExitCode::from(outcome.exit_code() as u8)
}

fn usage() -> ExitCode {
    eprintln!("usage: serve_program [uds=PATH] [workers=N] [loops=N] PROGRAM [ARGUMENT]...");
    ExitCode::from(2)
}
