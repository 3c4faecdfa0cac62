//! From the command line to worker processes.
#![forbid(unsafe_code)]

use std::env;
use std::ffi::OsString;
use std::path::Path;

use clap::ValueEnum;
use toolb_core::server;

use crate::WorkerCommand;
use crate::args::{App, Log, name_of, workers};
use crate::python::{self, Surroundings};

/// `--workers`, `WEB_CONCURRENCY`, or 1.
pub(crate) fn worker_count(
    asked: Option<usize>,
    platform: Option<OsString>,
) -> Result<usize, String> {
    match (asked, platform) {
        (Some(count), _) => Ok(count),
        (None, Some(text)) if !text.is_empty() => {
            let text = text.to_string_lossy();
            workers(&text).map_err(|why| format!("WEB_CONCURRENCY: {text:?}: {why}"))
        }
        _ => Ok(1),
    }
}

/// How to start a worker.
pub(crate) fn command(app: &App, log: &Log, worker: &WorkerCommand) -> server::WorkerCommand {
    let active = env::var_os("VIRTUAL_ENV");
    let around = Surroundings {
        own: match worker {
            WorkerCommand::Python(path) => Some(path),
            WorkerCommand::Find => None,
        },
        active: active.as_deref(),
        app_dir: &app.app_dir,
    };
    let python = python::find(app.python.as_deref(), &around, Path::exists);
    let if_ended = format!(
        "if it has no module toolb, install it with {} -m pip install toolb or choose another \
         Python with --python",
        python.display()
    );
    server::WorkerCommand {
        program: python.into_os_string(),
        args: worker_args(app, log),
        if_not_run: Some("choose a Python with --python or TOOLB_PYTHON".to_owned()),
        if_ended: Some(if_ended),
    }
}

pub(crate) fn worker_args(app: &App, log: &Log) -> Vec<OsString> {
    fn choice(value: impl ValueEnum) -> OsString {
        name_of(value).into()
    }
    let mut list: Vec<OsString> = vec![
        "-m".into(),
        "toolb.worker".into(),
        app.target.clone().into(),
        "--loop".into(),
        choice(app.event_loop),
        "--lifespan".into(),
        choice(app.lifespan),
        "--app-dir".into(),
        app.app_dir.clone().into(),
        "--root-path".into(),
        app.root_path.clone().into(),
        "--log-level".into(),
        log.log_level.name().into(),
    ];
    if app.factory {
        list.push("--factory".into());
    }
    list
}
