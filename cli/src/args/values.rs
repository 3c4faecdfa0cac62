//! How single values are read.
#![forbid(unsafe_code)]

use std::path::{self, PathBuf};

use clap::builder::{PossibleValuesParser, TypedValueParser};
use toolb_core::config::{MAX_LOOPS, parse_size};
use toolb_core::log::Level;

pub(crate) fn workers(text: &str) -> Result<usize, String> {
    ranged(text, 1, 1024)
}

/// The module and the attribute of an application.
pub(crate) fn target(text: &str) -> Result<String, String> {
    let parts = text.split_once(':');
    if let Some((module, call)) = parts
        && let Some((factory, _)) = call.split_once('(')
    {
        return Err(format!(
            "expected the name of a function without a call, as in {module}:{factory} --factory"
        ));
    }
    if let Some((module, attr)) = parts
        && !module.is_empty()
        && !attr.is_empty()
        && !module.ends_with(".py")
        && !text.contains(['/', ' '])
    {
        return Ok(text.to_owned());
    }
    let (module, attr) = parts.unwrap_or((text, "app"));
    let module = module
        .trim_end_matches(".py")
        .trim_start_matches("./")
        .replace('/', ".");
    let module = if module.is_empty() { "main" } else { &module };
    let attr = if attr.is_empty() { "app" } else { attr };
    Err(format!(
        "expected a module and a name in it, such as {module}:{attr}"
    ))
}

/// A name or address, without a port.
pub(crate) fn host(text: &str) -> Result<String, String> {
    without_port(text, "--host", "--port")
}

/// The same of raw connections.
pub(crate) fn stream_host(text: &str) -> Result<String, String> {
    without_port(text, "--stream-host", "--stream-port")
}

fn without_port(text: &str, host_option: &str, port_option: &str) -> Result<String, String> {
    let bare = text.rsplit_once("//").map_or(text, |(_, rest)| rest);
    let bare = bare.trim_end_matches('/');
    let split = bare.rsplit_once(':').filter(|(host, port)| {
        let is_one = !host.contains(':') || (host.starts_with('[') && host.ends_with(']'));
        is_one && port.parse::<u16>().is_ok()
    });
    match split {
        Some((host, port)) => Err(format!(
            "expected an address alone, as in {host_option} {} {port_option} {port}",
            if host.is_empty() { "0.0.0.0" } else { host },
        )),
        None if bare != text => Err(format!(
            "expected an address alone, as in {host_option} {bare}"
        )),
        None => Ok(text.to_owned()),
    }
}

pub(crate) fn port(text: &str) -> Result<u16, String> {
    let wrong = |_| "expected 0 to 65535 (0 picks a free port)".to_owned();
    text.parse().map_err(wrong)
}

pub(crate) fn mode(text: &str) -> Result<u32, String> {
    let digits = text.strip_prefix("0o").unwrap_or(text);
    match u32::from_str_radix(digits, 8) {
        Ok(mode) if mode <= 0o777 => Ok(mode),
        _ => Err("expected octal permissions such as 660".to_owned()),
    }
}

pub(crate) fn io_threads(text: &str) -> Result<usize, String> {
    ranged(text, 1, MAX_LOOPS)
}

pub(crate) fn count(text: &str) -> Result<usize, String> {
    ranged(text, 0, 1 << 20)
}

pub(crate) fn positive(text: &str) -> Result<usize, String> {
    ranged(text, 1, i32::MAX as usize)
}

pub(crate) fn positive_u32(text: &str) -> Result<u32, String> {
    positive(text).map(|value| value as u32)
}

pub(crate) fn size(text: &str) -> Result<usize, String> {
    let size = parse_size(text).map_err(|error| error.to_string())?;
    Ok(usize::try_from(size).unwrap_or(usize::MAX))
}

fn ranged(text: &str, least: usize, most: usize) -> Result<usize, String> {
    match text.parse() {
        Ok(value) if (least..=most).contains(&value) => Ok(value),
        _ => Err(format!("expected a number from {least} to {most}")),
    }
}

pub(crate) fn level() -> impl TypedValueParser<Value = Level> {
    let names = ["critical", "error", "warning", "info", "debug", "trace"];
    PossibleValuesParser::new(names).try_map(|name| name.parse::<Level>())
}

/// A folder that is there.
pub(crate) fn folder(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    match path.is_dir() {
        true => Ok(path),
        false if path.exists() => Err("expected a folder, and this is none".to_owned()),
        false => Err("expected a folder, and there is none of that name".to_owned()),
    }
}

/// The path of a bus socket.
pub(crate) fn bus(text: &str) -> Result<PathBuf, String> {
    let expected = || "expected the path of a socket, such as /run/app/bus".to_owned();
    let path = text.strip_prefix("unix:").unwrap_or(text);
    if path.is_empty() || path.starts_with("fd:") {
        return Err(expected());
    }
    // The workers look for it from wherever they are.
    path::absolute(path).map_err(|_| expected())
}
