//! Writes `include/toolb.h` from the ffi crate, or with `--check` says whether it is up to date.
#![forbid(unsafe_code)]

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let header = root.join("include/toolb.h");
    let config = match cbindgen::Config::from_file(root.join("ffi/cbindgen.toml")) {
        Ok(config) => config,
        Err(error) => return fail(&format!("ffi/cbindgen.toml: {error}")),
    };
    let bindings = match cbindgen::generate_with_config(root.join("ffi"), config) {
        Ok(bindings) => bindings,
        Err(error) => return fail(&format!("ffi: {error}")),
    };
    if !std::env::args().any(|argument| argument == "--check") {
        bindings.write_to_file(header);
        return ExitCode::SUCCESS;
    }
    let mut fresh = Vec::new();
    bindings.write(&mut fresh);
    match std::fs::read(&header) {
        Ok(committed) if committed == fresh => ExitCode::SUCCESS,
        _ => fail("include/toolb.h is not what the ffi crate says; run `make header`"),
    }
}

fn fail(text: &str) -> ExitCode {
    eprintln!("header: {text}");
    ExitCode::FAILURE
}
