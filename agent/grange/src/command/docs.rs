//! `grange completions` and `grange man`

use std::{io, path::Path};

use clap::CommandFactory;

use crate::{
    cli::Cli,
    failure::{Code, Failure},
    output::print,
};

/// Prints completions.
pub(crate) fn completions(shell: clap_complete::Shell) -> Result<(), Failure> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "grange", &mut text);
    print(&String::from_utf8_lossy(&text))
}

/// Prints the manual page, or writes those of all commands into a directory.
pub(crate) fn man(dir: Option<&Path>) -> Result<(), Failure> {
    let Some(dir) = dir else {
        let mut text = Vec::new();
        clap_mangen::Man::new(Cli::command()).render(&mut text).map_err(|error| page(&error))?;
        return print(&String::from_utf8_lossy(&text));
    };
    clap_mangen::generate_to(Cli::command(), dir).map_err(|error| Failure::write(dir, &error))
}

fn page(error: &io::Error) -> Failure {
    Failure::new(Code::Other, format!("the manual page could not be made: {error}."))
}
