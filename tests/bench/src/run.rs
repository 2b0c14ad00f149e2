//! The run: measurements one after another, of each the subjects in turn.

use std::{
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

use crate::{
    args::Args,
    debian::Packages,
    machine::{self, Machine},
    measure::{MEASURES, Measure, Network, Options, Sample, Setup, Work, cipher},
    peer::{Abilities, Programs},
    report::{Report, Row, Table, Versions},
    subject::{RAW, REFERENCE, SUBJECTS, Subject},
};

/// What the benchmark finds ready.
#[derive(Clone, Debug)]
pub struct Place {
    /// The `grange` program, built for release.
    pub grange: PathBuf,
    /// Where the peers' packages are kept.
    pub peers: PathBuf,
    /// The document that [`Args::write_doc`] writes to.
    pub doc: PathBuf,
}

/// What `--only` leaves.
struct Choice {
    measures: Vec<&'static Measure>,
    subjects: Vec<&'static Subject>,
}

impl Choice {
    /// # Errors
    /// If a name is neither a measurement's nor a subject's.
    fn of(only: &[String]) -> Result<Self> {
        let measure = |name: &String| MEASURES.iter().find(|measure| measure.name == name);
        let subject = |name: &String| SUBJECTS.iter().find(|subject| subject.name == name);
        if let Some(unknown) = only.iter().find(|name| measure(name).is_none() && subject(name).is_none()) {
            bail!("no measurement and no subject is named {unknown}; `--list` names them");
        }
        let mut measures: Vec<&Measure> =
            MEASURES.iter().filter(|it| only.iter().any(|name| name == it.name)).collect();
        let mut subjects: Vec<&Subject> =
            SUBJECTS.iter().filter(|it| only.iter().any(|name| name == it.name)).collect();
        if measures.is_empty() {
            measures = MEASURES.iter().collect();
        }
        if subjects.is_empty() {
            subjects = SUBJECTS.iter().collect();
        }
        Ok(Self { measures, subjects })
    }
}

/// Names measurements and subjects.
fn list() {
    println!("measurements:");
    for measure in MEASURES {
        println!("   {:20} {}", measure.name, measure.title);
    }
    println!("subjects:");
    for subject in SUBJECTS {
        println!("   {:20} {}", subject.name, subject.title);
    }
}

/// Measures and prints. With [`Args::list`] only names what it can measure, and `place` is not asked for.
///
/// # Errors
/// What keeps all of it from running: rights, the agent, an unknown name, a file that cannot be written. What keeps one
/// subject from taking part is said in the report.
pub fn planes(args: &Args, place: impl FnOnce() -> Result<Place>) -> Result<()> {
    if args.list {
        list();
        return Ok(());
    }
    let choice = Choice::of(&args.only)?;
    let place = place()?;
    let programs = Programs {
        abilities: Abilities::of(&place.grange)?,
        packages: Packages::fetch(&place.peers)?,
        machine: Machine::look()?,
        grange: place.grange,
    };
    let versions = Versions {
        grange: machine::version(Command::new(&programs.grange).arg("--version")),
        iperf3: machine::version(Command::new("iperf3").arg("--version")),
        packages: programs.packages.versions().clone(),
    };
    let mut report = Report::new(programs.machine.clone(), versions, args.rounds, args.seconds);
    for measure in &choice.measures {
        println!("\n{}", measure.title);
        let table = match &measure.work {
            Work::Ciphers => ciphers(measure, args)?,
            Work::Network(network) => {
                let taking_part = |subject: &&&Subject| (network.who)(subject);
                let subjects: Vec<&Subject> = choice.subjects.iter().filter(taking_part).copied().collect();
                networks(measure, network, &subjects, &programs, args)?
            }
        };
        report.tables.push(table);
        // What is measured so far is safe.
        if let Some(file) = &args.json {
            report.write_json(file)?;
        }
    }
    println!("\n{}", report.markdown());
    if args.write_doc {
        report.write_doc(&place.doc)?;
    }
    Ok(())
}

fn ciphers(measure: &Measure, args: &Args) -> Result<Table> {
    let mut rows: Vec<Row> = cipher::CIPHERS.iter().map(|it| Row::new(it.name, it.title)).collect();
    for round in 1..=args.rounds {
        for (row, cipher) in rows.iter_mut().zip(&cipher::CIPHERS) {
            let busy = machine::busy(Duration::from_secs(args.patience.into()))?;
            let mut sample = cipher::round(cipher)?;
            sample.insert("busy_before", busy);
            progress(measure, round, args.rounds, row, &sample);
            row.rounds.push(Some(sample));
        }
    }
    Ok(Table::new(measure, rows))
}

fn networks(
    measure: &Measure,
    network: &Network,
    subjects: &[&Subject],
    programs: &Programs,
    args: &Args,
) -> Result<Table> {
    let mut rows: Vec<Row> = Vec::new();
    let mut setups = Vec::new();
    for subject in subjects {
        let mut row = Row::new(subject.name, subject.title);
        let start = Instant::now();
        match Setup::new(network, subject, programs) {
            Ok(setup) => {
                println!("   {} is set up ({:.1} s)", subject.name, start.elapsed().as_secs_f64());
                setups.push(Some(setup));
            }
            Err(error) => {
                println!("   {} is left out: {error:#}", subject.name);
                row.left_out = Some(one_line(&error));
                setups.push(None);
            }
        }
        rows.push(row);
    }
    let options = Options { seconds: args.seconds };
    for round in 1..=args.rounds {
        // Each round begins with another subject.
        for turn in 0..rows.len() {
            let number = (turn + round as usize) % rows.len();
            let (row, Some(setup)) = (&mut rows[number], &setups[number]) else { continue };
            let busy = machine::busy(Duration::from_secs(args.patience.into()))?;
            match (network.round)(setup, options) {
                Ok(mut sample) => {
                    sample.insert("busy_before", busy);
                    progress(measure, round, args.rounds, row, &sample);
                    row.rounds.push(Some(sample));
                }
                Err(error) => {
                    println!("   {round}/{} {}: failed: {error:#}", args.rounds, row.name);
                    row.failures.push(one_line(&error));
                    row.rounds.push(None);
                }
            }
        }
        compare(&mut rows);
    }
    for row in &mut rows {
        if row.left_out.is_none() && row.rounds.iter().all(Option::is_none) {
            row.left_out = Some(row.failures.last().cloned().unwrap_or_else(|| "no round".into()));
        }
    }
    Ok(Table::new(measure, rows))
}

/// Puts into the last round what follows from two subjects.
fn compare(rows: &mut [Row]) {
    let last = |rows: &[Row], name: &str, key: &str| {
        let row = rows.iter().find(|row| row.name == name)?;
        row.rounds.last()?.as_ref()?.get(key).copied()
    };
    let (reference, idle) = (last(rows, REFERENCE, "mbit"), last(rows, RAW, "ping_ms"));
    for row in rows {
        let raw = row.name == RAW;
        let Some(Some(sample)) = row.rounds.last_mut() else { continue };
        if let (Some(reference), Some(mbit)) = (reference, sample.get("mbit").copied()) {
            sample.insert("ratio", mbit / reference);
        }
        if let (Some(idle), Some(ping), false) = (idle, sample.get("ping_ms").copied(), raw) {
            sample.insert("added_ms", ping - idle);
        }
    }
}

fn one_line(error: &anyhow::Error) -> String {
    format!("{error:#}").split_whitespace().collect::<Vec<_>>().join(" ")
}

fn progress(measure: &Measure, round: u32, rounds: u32, row: &Row, sample: &Sample) {
    let values = measure.columns.iter().filter_map(|column| {
        let value = sample.get(column.key)?;
        Some(format!("{} {value:.*}", column.head, column.digits))
    });
    println!("   {round}/{rounds} {}: {}", row.name, values.collect::<Vec<_>>().join(", "));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_choose_within_their_kind() {
        let choice = |names: &[&str]| Choice::of(&names.iter().map(ToString::to_string).collect::<Vec<_>>());
        let all = choice(&[]).unwrap();
        assert_eq!((all.measures.len(), all.subjects.len()), (MEASURES.len(), SUBJECTS.len()));
        let some = choice(&["queue", "raw", "fastd"]).unwrap();
        assert_eq!((some.measures.len(), some.subjects.len()), (1, 2));
        assert!(choice(&["quue"]).is_err());
    }

    #[test]
    fn names_are_used_once() {
        let measures = MEASURES.iter().map(|it| it.name);
        let mut names: Vec<&str> = measures.chain(SUBJECTS.iter().map(|it| it.name)).collect();
        names.sort_unstable();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "{names:?}");
    }

    #[test]
    fn ratios_are_of_the_same_round() {
        let row = |name: &'static str, mbit: f64, ping: f64| {
            let mut row = Row::new(name, name);
            row.rounds = vec![None, Some(Sample::from([("mbit", mbit), ("ping_ms", ping)]))];
            row
        };
        let mut rows = [row(REFERENCE, 2000.0, 0.5), row("grange-aes", 6000.0, 0.25), row(RAW, 9000.0, 0.125)];
        compare(&mut rows);
        let last = |row: &Row| row.rounds[1].clone().unwrap();
        assert_eq!((last(&rows[1])["ratio"], last(&rows[1])["added_ms"]), (3.0, 0.125));
        assert_eq!(last(&rows[0])["ratio"], 1.0);
        assert!(!last(&rows[2]).contains_key("added_ms"));
    }
}
