//! The end of a worker whose engine has gone while the application blocks.
#![forbid(unsafe_code)]

use std::{io, process, thread, time::Duration};

use toolb_core::consumer::HangUp;

/// Ends this process if it still runs some time after the engine has gone. The thread needs nothing
/// of Python: it works while a handler holds up the loop, or the interpreter's lock.
pub(crate) fn watch(hang_up: HangUp) -> io::Result<()> {
    let watch = move || {
        if hang_up.wait().is_err() {
            return;
        }
        thread::sleep(PATIENCE);
        let line = format!(
            "toolb.worker: process {} was still busy {} s after its server had gone, and is ended\n",
            process::id(),
            PATIENCE.as_secs()
        );
        hang_up.end_process(&line, ENGINE_GONE);
    };
    thread::Builder::new()
        .name("toolb-orphan".to_owned())
        .stack_size(STACK)
        .spawn(watch)
        .map(drop)
}

/// More than GRACE of `toolb/worker.py` for a hang-up and CANCEL_GRACE of `toolb/_finish.py`
/// together.
const PATIENCE: Duration = Duration::from_secs(5);
/// The exit code of that name in `toolb/worker.py`.
const ENGINE_GONE: i32 = 1;
const STACK: usize = 64 << 10;
