//! The `toolb` program.
#![forbid(unsafe_code)]

use std::env;
use std::process;

use toolb_cli::WorkerCommand;

fn main() {
    process::exit(toolb_cli::main(
        env::args_os().collect(),
        WorkerCommand::Find,
    ));
}
