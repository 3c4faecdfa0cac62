//! `toolb serve`.
#![forbid(unsafe_code)]

use std::io::{self, IsTerminal};
use std::path::Path;
use std::process;

use clap::ArgMatches;
use clap::parser::ValueSource;
use toolb_core::config::default_bus_path;
use toolb_core::engine::Listen;
use toolb_core::log::{self, Level};
use toolb_core::server::{self, Event, GateOptions, ServeOptions};

use crate::args::{Serve, StreamPool};
use crate::engine::{engine_config, listener};

/// Serves until a signal ends it; `Err` is what is wrong with the usage.
pub(crate) fn serve(args: &Serve, matches: &ArgMatches) -> Result<i32, String> {
    let loops = args.consumers.io_threads;
    let mut engine = engine_config(&args.engine, loops, io::stdout().is_terminal());
    engine.limit_streams = args.streams.limit_streams;
    engine.timeouts.stream_idle = args.streams.timeout_stream_idle;
    engine.validate().map_err(|error| format!("--{error}"))?;
    let listeners = vec![listener(&args.engine, matches)?];
    let bus = args.bus.bus.clone().unwrap_or_else(default_bus_path);
    let mut gate = GateOptions::new(Some(bus));
    gate.consumers = args.consumers.limit_consumers;
    log::set_level(args.engine.log.log_level);
    let options = ServeOptions {
        engine,
        listeners,
        streams: stream_listeners(&args.streams, matches)?,
        gate,
    };
    Ok(server::serve(options, |event| tell(&event)).exit_code())
}

/// Where raw connections come; `Err` is what is wrong with the usage.
fn stream_listeners(args: &StreamPool, matches: &ArgMatches) -> Result<Vec<Listen>, String> {
    let is_written = matches.value_source("stream_host") == Some(ValueSource::CommandLine);
    if is_written && args.stream_port.is_none() {
        return Err("--stream-host: needs --stream-port".to_owned());
    }
    let tcp = args.stream_port.map(|port| Listen::Tcp {
        host: args.stream_host.clone(),
        port,
    });
    let uds = args.stream_uds.clone().map(|path| Listen::Uds {
        path,
        permissions: None,
    });
    Ok(tcp.into_iter().chain(uds).collect())
}

fn tell(event: &Event) {
    match event {
        Event::Open {
            addresses,
            bus,
            loops,
        } if log::is_enabled(Level::Info) => {
            let text = banner(addresses, bus, *loops, process::id());
            log::say(&text);
        }
        event => event.log(),
    }
}

/// Where it serves, and what to start next.
fn banner(addresses: &[String], bus: &Path, loops: usize, pid: u32) -> String {
    let plural = if loops == 1 { "" } else { "s" };
    let path = shell_word(&bus.to_string_lossy());
    let option = match bus == default_bus_path() {
        true => String::new(),
        false => format!(" --bus {path}"),
    };
    format!(
        "toolb {} serving on {} ({loops} loop{plural}, pid {pid}) - stop with Ctrl-C\n\
         Nobody answers yet. In another terminal: toolb work main:app{option}\n\
         Programs in other languages: TOOLB_BUS={path} ./program\n",
        env!("CARGO_PKG_VERSION"),
        addresses.join(", "),
    )
}

/// As a person would type it.
fn shell_word(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@%,=".contains(c);
    match text.chars().all(plain) {
        true => text.to_owned(),
        false => format!("'{}'", text.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_banner_says_what_to_type_next() {
        let version = env!("CARGO_PKG_VERSION");
        let addresses = ["http://127.0.0.1:8000".to_owned()];
        let path = Path::new("/run/my app/bus");
        assert_eq!(
            banner(&addresses, path, 1, 7),
            format!(
                "toolb {version} serving on http://127.0.0.1:8000 (1 loop, pid 7) - stop with Ctrl-C\n\
                 Nobody answers yet. In another terminal: toolb work main:app --bus '/run/my app/bus'\n\
                 Programs in other languages: TOOLB_BUS='/run/my app/bus' ./program\n"
            )
        );
        let usual = default_bus_path();
        let text = banner(&addresses, &usual, 2, 7);
        assert!(text.contains("toolb work main:app\n"), "{text}");
        assert!(text.contains(&*usual.to_string_lossy()), "{text}");
    }

    #[test]
    fn quotes_are_quoted() {
        assert_eq!(shell_word("/a'b"), r"'/a'\''b'");
    }
}
