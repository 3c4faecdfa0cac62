//! From the command line to the settings of an engine.
#![forbid(unsafe_code)]

use clap::ArgMatches;
use clap::parser::ValueSource;
use toolb_core::config::{EngineConfig, Limits, Timeouts};
use toolb_core::engine::Listen;

use crate::args::{EngineArgs, switch};

/// The engine's settings. `terminal`: a person sees standard output.
pub(crate) fn engine_config(args: &EngineArgs, loops: usize, terminal: bool) -> EngineConfig {
    let (limits, timeouts, output) = (&args.limits, &args.timeouts, &args.output);
    let defaults = EngineConfig::default();
    let server_header = switch(output.server_header, output.no_server_header, true);
    EngineConfig {
        loops: Some(loops),
        limits: Limits {
            request_line: limits.limit_request_line,
            head: limits.limit_request_head,
            fields: limits.limit_request_fields,
            body: limits.limit_request_body,
        },
        timeouts: Timeouts {
            request_header: timeouts.timeout_request_header,
            request_body: timeouts.timeout_request_body,
            response: timeouts.timeout_response,
            keep_alive: timeouts.timeout_keep_alive,
            graceful_shutdown: args.grace.timeout_graceful_shutdown,
            send_idle: timeouts.timeout_send,
            ..defaults.timeouts.clone()
        },
        queue_size: args.queue.queue_size,
        queue_timeout: args.queue.queue_timeout,
        limit_concurrency: args.queue.limit_concurrency,
        backlog: args.listen.backlog,
        server_header: defaults.server_header.clone().filter(|_| server_header),
        date_header: switch(output.date_header, output.no_date_header, true),
        access_log: switch(output.access_log, output.no_access_log, terminal),
        request_window: defaults.request_window,
        response_window: defaults.response_window,
        ..defaults
    }
}

/// Where it listens; `Err` is what is wrong with the usage.
pub(crate) fn listener(args: &EngineArgs, matches: &ArgMatches) -> Result<Listen, String> {
    let listen = &args.listen;
    let written = |id| matches.value_source(id) == Some(ValueSource::CommandLine);
    match &listen.uds {
        Some(path) => {
            for (id, flag) in [("host", "--host"), ("port", "--port")] {
                if written("uds") && written(id) {
                    return Err(format!("--uds: cannot be used with {flag}; leave one out"));
                }
            }
            Ok(Listen::Uds {
                path: path.clone(),
                permissions: listen.uds_permissions,
            })
        }
        None if written("uds_permissions") => {
            Err("--uds-permissions: needs --uds, the socket they are for".to_owned())
        }
        None => Ok(Listen::Tcp {
            host: listen.host.clone(),
            port: listen.port,
        }),
    }
}
