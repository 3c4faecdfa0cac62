//! The options, `--help` and docs/cli.md say the same.

use std::collections::BTreeMap;
use std::process::Command;

/// An option as docs/cli.md has it: default and environment variable.
type Rows = BTreeMap<String, (String, String)>;

#[test]
fn each_option_stands_in_the_docs_with_its_default_and_variable() {
    assert_eq!(from_docs("run"), from_clap("run"));
    let shared = from_docs("run");
    for command in ["serve", "work"] {
        let (own, options) = (from_docs(command), from_clap(command));
        for (option, row) in &options {
            // What is not said anew is as for `toolb run`.
            let said = own.get(option).or(shared.get(option));
            assert_eq!(said, Some(row), "{option} of toolb {command}");
        }
        let idle: Vec<_> = own
            .keys()
            .filter(|key| !options.contains_key(*key))
            .collect();
        assert!(idle.is_empty(), "toolb {command} has no {idle:?}");
    }
}

#[test]
fn variables_are_named_after_their_options() {
    for command in COMMANDS {
        for (option, (_, variable)) in from_clap(command) {
            let name = option.trim_start_matches("--").trim_start_matches("no-");
            let expected = format!("TOOLB_{}", name.to_uppercase().replace('-', "_"));
            assert_eq!(variable, expected);
        }
    }
}

#[test]
fn help_shows_each_option_with_its_default() {
    for command in COMMANDS {
        let help = definition(command).render_help().to_string();
        // The examples before them name options, too.
        let (_, help) = help.split_once("Options:\n").expect("there are options");
        let words: Vec<_> = help.split_whitespace().collect();
        let help = words.join(" ");
        for (option, (default, _)) in from_clap(command) {
            let starts = format!(" {option} ");
            let Some(at) = help.find(&starts) else {
                panic!("{option} is missing in --help");
            };
            let rest = &help[at + starts.len()..];
            let entry = &rest[..rest.find(" --").unwrap_or(rest.len())];
            let is_switch = option.starts_with("--no-") || default == "off";
            assert!(
                is_switch || entry.contains(&format!("[default: {default}]")),
                "--help says {entry:?} of {option}, its default is {default}"
            );
        }
    }
}

#[test]
fn help_begins_with_examples_and_is_grouped() {
    let cases = [
        ("run", "\n  toolb run main:app --workers 4 ", "Application:"),
        ("serve", "\n  toolb serve --port 0 --bus ", "Listening:"),
        (
            "work",
            "\n  toolb work main:app -w 4 --bus ",
            "Application:",
        ),
    ];
    for (command, example, heading) in cases {
        let help = definition(command).render_help().to_string();
        let headings = ["Usage:", "Examples:", heading, "Timeouts:", "Output:"];
        let places: Vec<_> = headings.iter().map(|heading| help.find(heading)).collect();
        assert!(places.iter().all(Option::is_some), "{places:?}");
        assert!(places.is_sorted());
        assert!(help.contains(example), "{help}");
        // Nobody has set the width: no line of ours is to be broken by hand and by machine.
        assert!(help.lines().all(|line| line.len() <= 100), "{help}");
    }
}

#[test]
fn help_is_broken_into_lines_once() {
    let commands = COMMANDS.map(definition).into_iter();
    for help in commands.chain([toolb_cli::command()]) {
        let texts = [help.get_before_help(), help.get_after_help()];
        let [examples, notes] = texts.map(|text| text.map(ToString::to_string).unwrap_or_default());
        // As narrow as a terminal usually is.
        let wide: Vec<_> = examples.lines().filter(|line| line.len() > 80).collect();
        assert!(wide.is_empty(), "{wide:?} would be broken");
        for line in notes.lines().filter(|line| !line.is_empty()) {
            assert!(line.ends_with('.'), "{line:?} is broken by hand");
        }
    }
}

#[test]
fn the_definition_is_consistent() {
    toolb_cli::command().debug_assert();
}

#[test]
fn who_comes_from_another_server_is_told_of_options_that_there_are() {
    let own = from_clap("run");
    let is_own = |option: &str| own.contains_key(option) || option == "-w";
    let mut seen = 0;
    let page = page("migrating.md");
    for line in page.lines().skip_while(|line| *line != "## uvicorn") {
        let cells: Vec<_> = line.split('|').collect();
        let [_, theirs, ours, ..] = cells[..] else {
            continue;
        };
        for option in options(ours) {
            assert!(is_own(option), "{option}: {line}");
        }
        // What they have and we have not is answered with a way, not only with the way to --help.
        for option in options(theirs).filter(|option| !is_own(option)) {
            let toolb = env!("CARGO_BIN_EXE_toolb");
            let output = Command::new(toolb)
                .args(["run", "main:app", option])
                .output();
            let said = String::from_utf8(output.expect("it runs").stderr).expect("text");
            let start = format!("toolb: unknown option {option}; ");
            assert!(said.starts_with(&start), "{said}");
            assert!(!said.contains("--help") && !said.contains("mean"), "{said}");
            seen += 1;
        }
    }
    assert!(seen > 50, "{seen}");
}

/// The options among the code in a cell of a table.
fn options(cell: &str) -> impl Iterator<Item = &str> {
    let code = cell.split('`').skip(1).step_by(2);
    code.flat_map(|code| code.split([' ', '=']))
        .filter(|word| word.starts_with('-'))
}

fn page(name: &str) -> String {
    let path = format!("{}/../docs/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(path).expect("the page is there")
}

const COMMANDS: [&str; 3] = ["run", "serve", "work"];

fn definition(command: &str) -> clap::Command {
    let mut all = toolb_cli::command();
    all.build();
    let found = all.find_subcommand(command);
    found.expect("there is such a command").clone()
}

fn from_clap(command: &str) -> Rows {
    let command = definition(command);
    let mut rows = Rows::new();
    for arg in command.get_arguments() {
        let Some(long) = arg.get_long() else {
            continue;
        };
        if long == "help" {
            continue;
        }
        let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
        let written = help
            .split_once("[default: ")
            .and_then(|(_, rest)| rest.strip_suffix(']'));
        let declared = arg.get_default_values().first();
        let declared = declared.map(|value| value.to_string_lossy().into_owned());
        let default = match (written, declared) {
            (Some(text), _) => text.to_owned(),
            (None, Some(text)) if text == "false" => "off".to_owned(),
            (None, Some(text)) => text,
            (None, None) => panic!("--{long} does not tell its default"),
        };
        let variable = arg
            .get_env()
            .map(|name| name.to_string_lossy().into_owned());
        rows.insert(format!("--{long}"), (default, variable.unwrap_or_default()));
    }
    // Both halves of a switch share a row of the docs.
    for option in rows.keys().cloned().collect::<Vec<_>>() {
        if let Some(name) = option.strip_prefix("--no-") {
            let row = rows[&format!("--{name}")].clone();
            rows.insert(option, row);
        }
    }
    rows
}

/// The rows below the heading of a command.
fn from_docs(command: &str) -> Rows {
    let text = page("cli.md");
    let mut rows = Rows::new();
    let heading = format!("## `toolb {command}");
    let section = text.lines().skip_while(|line| !line.starts_with(&heading));
    let section = section.skip(1).take_while(|line| !line.starts_with("## "));
    for line in section.filter(|line| line.starts_with("| `--")) {
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        let [_, options, default, variable, meaning, _] = cells[..] else {
            panic!("not four columns: {line}");
        };
        assert!(meaning.ends_with('.'), "no sentence: {line}");
        for option in options.split(", ") {
            let option = option.trim_matches('`');
            let name = option.split(' ').next().unwrap_or(option);
            let row = (
                default.trim_matches('`').to_owned(),
                variable.trim_matches('`').to_owned(),
            );
            let before = rows.insert(name.to_owned(), row);
            assert!(before.is_none(), "{name} stands there twice");
        }
    }
    rows
}
