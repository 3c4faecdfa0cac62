//! The `toolb` program, as a library: the native program and the console script of the Python
//! package are the same code.
#![forbid(unsafe_code)]

mod args;
mod engine;
mod python;
mod run;
mod serve;
mod usage;
mod work;
mod workers;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{CommandFactory, FromArgMatches};

use args::{Cli, Command};

/// What runs the workers.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum WorkerCommand {
    /// A Python that is to be found: of the active environment, of a `.venv` nearby, in `PATH`.
    Find,
    /// This Python, unless `--python` names another.
    Python(PathBuf),
}

/// Does what `args` (the program's name first) say; the result is the exit code.
pub fn main(args: Vec<OsString>, worker: WorkerCommand) -> i32 {
    match try_main(&args, &worker) {
        Ok(code) => code,
        Err(why) => {
            eprintln!("toolb: {why}");
            2
        }
    }
}

/// The definition of the command line, for whoever documents or completes it.
pub fn command() -> clap::Command {
    let hide = |command: clap::Command| command.mut_args(|arg| arg.hide_env(true));
    Cli::command().mut_subcommands(hide)
}

fn try_main(args: &[OsString], worker: &WorkerCommand) -> Result<i32, String> {
    let command = usage::ignore_empty_variables(command());
    let matches = match command.try_get_matches_from(args) {
        Ok(matches) => matches,
        Err(error) if !error.use_stderr() || is_help(&error) => {
            // Nobody is there to be told if it fails.
            let _ = error.print();
            return Ok(if error.use_stderr() { 2 } else { 0 });
        }
        Err(error) => return Err(usage::explain(&error, args)),
    };
    let cli = Cli::from_arg_matches(&matches).map_err(|error| usage::explain(&error, args))?;
    match (&cli.command, matches.subcommand()) {
        (Command::Run(run), Some((_, matches))) => run::run(run, matches, worker),
        (Command::Serve(serve), Some((_, matches))) => serve::serve(serve, matches),
        (Command::Work(work), Some(_)) => work::work(work, worker),
        (_, None) => Ok(2),
    }
}

fn is_help(error: &clap::Error) -> bool {
    use clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand;
    error.kind() == DisplayHelpOnMissingArgumentOrSubcommand
}
