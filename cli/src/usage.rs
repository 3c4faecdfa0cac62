//! Wrong usage in one line: which option, which value, what is allowed.
#![forbid(unsafe_code)]

mod elsewhere;

use std::env;
use std::error::Error as _;
use std::ffi::{OsStr, OsString};

use clap::builder::Resettable;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, CommandFactory};

use crate::args::Cli;

/// Variables that are set but empty count as if they were not set: so templates and compose files
/// leave them when there is nothing to fill in.
pub(crate) fn ignore_empty_variables(command: clap::Command) -> clap::Command {
    let is_empty = |variable: &OsStr| env::var_os(variable).is_some_and(|value| value.is_empty());
    command.mut_subcommands(|command| {
        command.mut_args(|arg| match arg.get_env().is_some_and(is_empty) {
            true => arg.env(Resettable::Reset),
            false => arg,
        })
    })
}

/// The line for an error in `args`.
pub(crate) fn explain(error: &clap::Error, args: &[OsString]) -> String {
    let value = text(error, ContextKind::InvalidValue);
    let arg = text(error, ContextKind::InvalidArg);
    let known = |name: &&str| ["run", "serve", "work"].contains(name);
    let command = args.get(1).and_then(|name| name.to_str()).filter(known);
    let command = command.unwrap_or("run");
    match error.kind() {
        ErrorKind::ValueValidation | ErrorKind::InvalidValue if value.is_empty() => {
            format!("{} needs a value{}", flag(&arg), allowed(error))
        }
        ErrorKind::ValueValidation | ErrorKind::InvalidValue => {
            let flag = flag(&arg);
            let origin = origin(flag, args);
            format!("{flag}: {value:?}{}{origin}", allowed(error))
        }
        ErrorKind::UnknownArgument if !arg.starts_with('-') => match command {
            "serve" => {
                format!("{arg}: toolb serve takes no application; toolb work {arg} brings it along")
            }
            _ => format!("{arg}: one application is served, and it has been named already"),
        },
        ErrorKind::UnknownArgument => unknown(error, flag(&arg), command, args),
        ErrorKind::MissingRequiredArgument => {
            format!("MODULE:ATTR is missing: name the application, as in toolb {command} main:app")
        }
        ErrorKind::InvalidSubcommand => {
            let given = text(error, ContextKind::InvalidSubcommand);
            match given.contains(':') {
                true => format!("unknown command {given:?}; did you mean toolb run {given}?"),
                false => format!(
                    "unknown command {given:?}; there are run, serve and work, as in toolb run main:app"
                ),
            }
        }
        ErrorKind::ArgumentConflict => {
            format!("{} may be given once only", flag(&arg))
        }
        _ => {
            let rendered = error.to_string();
            let line = rendered.lines().next().unwrap_or_default();
            line.trim_start_matches("error: ").to_owned()
        }
    }
}

/// An option that this command does not have.
fn unknown(error: &clap::Error, option: &str, command: &str, args: &[OsString]) -> String {
    let others = commands_with(option);
    if !others.is_empty() {
        let have = if others.len() == 1 { "has" } else { "have" };
        let others = others.join(" and ");
        return format!("toolb {command} has no {option}; {others} {have} it");
    }
    if let Some(advice) = elsewhere::advice(option, value_of(option, args).as_deref()) {
        // The way may be one of another command.
        let able = commands_with_all(&advice);
        let own = format!("toolb {command}");
        let is_elsewhere = advice.starts_with("use ") && !able.contains(&own);
        let place = match is_elsewhere && !able.is_empty() {
            true => format!("with {}: ", able.join(" and ")),
            false => String::new(),
        };
        return format!("unknown option {option}; {place}{advice}");
    }
    let suggested = text(error, ContextKind::SuggestedArg);
    match suggested.is_empty() {
        true => format!("unknown option {option}; toolb {command} --help shows all"),
        false => format!(
            "unknown option {option}; did you mean {}?",
            flag(&suggested)
        ),
    }
}

/// The commands that have an option.
fn commands_with(option: &str) -> Vec<String> {
    let is_it = |arg: &Arg| {
        arg.get_long()
            .is_some_and(|name| option == format!("--{name}"))
            || arg
                .get_short()
                .is_some_and(|name| option == format!("-{name}"))
    };
    let program = Cli::command();
    let commands = program.get_subcommands();
    commands
        .filter(|command| command.get_arguments().any(is_it))
        .map(|command| format!("toolb {}", command.get_name()))
        .collect()
}

/// The commands that have all options which a text names.
fn commands_with_all(text: &str) -> Vec<String> {
    let words = text.split([' ', ',', ';', ':']);
    let mut named = words.filter(|word| word.starts_with("--")).peekable();
    let Some(first) = named.peek() else {
        return Vec::new();
    };
    let mut able = commands_with(first);
    for option in named {
        let having = commands_with(option);
        able.retain(|command| having.contains(command));
    }
    able
}

/// What an unknown option was given: after an equals sign, or as the next word.
fn value_of(option: &str, args: &[OsString]) -> Option<String> {
    let mut words = args.iter().map(|arg| arg.to_string_lossy());
    let found = words.find(|word| {
        let rest = word.strip_prefix(option);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('='))
    })?;
    match found.split_once('=') {
        Some((_, value)) => Some(value.to_owned()),
        None => words
            .next()
            .filter(|word| !word.starts_with('-'))
            .map(Into::into),
    }
}

/// What may stand there, with a colon before it.
fn allowed(error: &clap::Error) -> String {
    match error.source().map(ToString::to_string) {
        Some(text) if text == "value was not a boolean" => {
            return ": expected true or false".to_owned();
        }
        Some(text) => return format!(": {text}"),
        None => {}
    }
    match error.get(ContextKind::ValidValue) {
        Some(ContextValue::Strings(values)) => match values.as_slice() {
            [first @ .., last] if !first.is_empty() => {
                format!(": expected {} or {last}", first.join(", "))
            }
            _ => String::new(),
        },
        _ => String::new(),
    }
}

/// Where a value came from, if not from the command line.
fn origin(flag: &str, args: &[OsString]) -> String {
    let Some(name) = flag.strip_prefix("--") else {
        return String::new();
    };
    let by_letter = letter_of(name).is_some_and(|letter| {
        let short = format!("-{letter}");
        args.iter()
            .any(|arg| arg.to_string_lossy().starts_with(&short))
    });
    if by_letter || is_given(flag, args) {
        return String::new();
    }
    format!(" (from TOOLB_{})", name.to_uppercase().replace('-', "_"))
}

/// `w` of `workers`.
fn letter_of(name: &str) -> Option<char> {
    let program = Cli::command();
    let mut all = program
        .get_subcommands()
        .flat_map(clap::Command::get_arguments);
    all.find(|arg| arg.get_long() == Some(name))?.get_short()
}

fn is_given(flag: &str, args: &[OsString]) -> bool {
    args.iter().any(|arg| {
        let arg = arg.to_string_lossy();
        arg == flag
            || arg
                .strip_prefix(flag)
                .is_some_and(|rest| rest.starts_with('='))
    })
}

/// `--port` of `--port <PORT>`; a positional argument without its brackets.
fn flag(arg: &str) -> &str {
    let first = arg.split([' ', '=']).next().unwrap_or(arg);
    first.trim_matches(['<', '>', '[', ']'])
}

fn text(error: &clap::Error, kind: ContextKind) -> String {
    match error.get(kind) {
        Some(ContextValue::String(text)) => text.clone(),
        Some(ContextValue::Strings(texts)) => texts.first().cloned().unwrap_or_default(),
        _ => String::new(),
    }
}
