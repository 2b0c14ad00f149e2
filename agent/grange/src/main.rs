//! The agent that turns a neighbourhood's routers into one town network, and its command line.
#![forbid(unsafe_code)]

mod agent;
mod cli;
mod command;
mod config;
mod control;
mod failure;
mod interfaces;
mod lock;
mod log;
mod output;
mod report;
mod state;

use std::{fs, io, path::Path, process::ExitCode};

use clap::Parser;

use crate::{
    cli::{Cli, Command, Global},
    config::{Config, Overrides},
    failure::{Code, Failure},
    output::{Output, note},
    state::Places,
};

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            note(format_args!("grange: {failure}"));
            ExitCode::from(failure.code as u8)
        }
    }
}

fn run(cli: &Cli) -> Result<(), Failure> {
    let places = places(&cli.global);
    let output = Output::new(cli.global.json);
    match &cli.command {
        Command::Run => {
            let config = configuration(&cli.global, &places)?;
            log::start(&config.log_level.value);
            agent::run(&places, &config)
        }
        Command::Status => command::status::run(&places, &output),
        Command::Links => command::links::run(&places, &output),
        Command::Seals => command::seals::run(&places, &output),
        Command::Routes => command::routes::run(&places, &output),
        Command::Trace { destination } => command::trace::run(&places, &output, destination),
        Command::Key { new } => command::key::run(&places, &output, *new),
        Command::Town(ask) => command::town::run(&places, &output, ask),
        Command::Config { example: true } => command::config::example(),
        Command::Config { example: false } => command::config::run(&configuration(&cli.global, &places)?, &output),
        Command::Completions { shell } => command::docs::completions(*shell),
        Command::Man { dir } => command::docs::man(dir.as_deref()),
    }
}

/// The places that flags name, or else the environment.
fn places(global: &Global) -> Places {
    let named = |flag: &Option<std::path::PathBuf>, variable: &str| {
        flag.clone().or_else(|| std::env::var_os(variable).filter(|value| !value.is_empty()).map(Into::into))
    };
    Places::new(
        Path::new("/"),
        named(&global.state_dir, "GRANGE_STATE_DIR"),
        named(&global.runtime_dir, "GRANGE_RUNTIME_DIR"),
        named(&global.config, "GRANGE_CONFIG"),
    )
}

fn configuration(global: &Global, places: &Places) -> Result<Config, Failure> {
    let path = &places.config;
    let text = match fs::read_to_string(path) {
        Ok(text) => Some(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound && !places.config_named => None,
        Err(error) => {
            let todo = match error.kind() {
                io::ErrorKind::NotFound => {
                    "Name one that exists, or leave --config and GRANGE_CONFIG out: every setting has a default."
                }
                io::ErrorKind::InvalidData => "It must be text in UTF-8.",
                _ => "Look at its mode and its filesystem.",
            };
            return Err(Failure::new(
                Code::Config,
                format!("the configuration file {} could not be read: {error}. {todo}", path.display()),
            ));
        }
    };
    let environment = |name: &str| std::env::var(name).ok();
    let overrides = Overrides { environment: &environment, flags: &global.set };
    config::read(text.as_deref().map(|text| (path.as_path(), text)), &overrides).map_err(|problems| {
        Failure::new(
            Code::Config,
            format!(
                "the configuration is not right, so nothing was started or changed:\n{problems}\n\
                     Correct it and try again; `grange config --example` shows every setting and what it takes."
            ),
        )
    })
}
