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
    let if_ended = if_ended(&python, around.own, Path::new("."));
    server::WorkerCommand {
        program: python.into_os_string(),
        args: worker_args(app, log),
        if_not_run: Some("choose a Python with --python or TOOLB_PYTHON".to_owned()),
        if_ended,
    }
}

/// What to try if `python` ends before the worker is ready. `own`: it has the package; `here`: where
/// it looks for modules first.
fn if_ended(python: &Path, own: Option<&Path>, here: &Path) -> Option<String> {
    let hidden_by = ["toolb.py", "toolb/__init__.py"].into_iter().find(|name| {
        // Where our own package stands it hides nothing.
        here.join(name).exists() && !here.join("toolb/worker.py").exists()
    });
    if let Some(name) = hidden_by {
        return Some(format!(
            "{name} in this folder hides the package toolb from Python: rename it, or start toolb in \
             another folder and name this one with --app-dir"
        ));
    }
    if own == Some(python) {
        return None;
    }
    let python = python.display();
    Some(format!(
        "if it has no module toolb, build toolB's wheel as docs/getting-started.md says and install \
         it with {python} -m pip install, or choose another Python with --python"
    ))
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

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_python_that_ended_is_told_of_what_it_may_lack() {
        let folder = env::temp_dir().join(format!("toolb-workers-{}", std::process::id()));
        let package = folder.join("toolb");
        fs::create_dir_all(&package).unwrap();
        let (python, other) = (Path::new("/opt/python"), Path::new("/own/python"));
        let hint = |own| if_ended(python, own, &folder);

        // A folder alone hides no package.
        let text = hint(Some(other)).unwrap();
        assert!(text.contains("docs/getting-started.md"), "{text}");
        assert!(text.contains("/opt/python -m pip install"), "{text}");
        assert!(
            !text.contains("pip install toolb"),
            "nothing of that name is published"
        );
        assert_eq!(hint(None), Some(text));
        assert_eq!(hint(Some(python)), None);

        fs::write(package.join("__init__.py"), "").unwrap();
        let text = hint(Some(python)).unwrap();
        assert!(
            text.starts_with("toolb/__init__.py in this folder hides"),
            "{text}"
        );
        fs::write(package.join("worker.py"), "").unwrap();
        assert_eq!(hint(Some(python)), None);
        fs::remove_dir_all(&folder).unwrap();
    }
}
