//! The form for people: the town drawn live, with keys.

use std::{
    process::ExitCode,
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use grange_netns::{Cut, Town, WireState};

use super::{
    plan::{self, NODES, UPLINK},
    screen::{self, Choice},
    watch::Watch,
};

/// What is to be done to the town; on a thread of its own, so that the screen goes on.
enum Act {
    /// Cut a whole wire, mend a cut one.
    Wire(usize, Cut),
    MendAll,
    Restart(usize),
    KillOrStart(usize),
    Download,
}

pub(super) fn run() -> Result<ExitCode> {
    println!("Building a town of network namespaces ...");
    let town = Arc::new(plan::build()?);
    let watch = Arc::new(Watch::start(&town));
    let (acts, todo) = mpsc::channel();
    let worker = std::thread::spawn({
        let (town, watch) = (Arc::clone(&town), Arc::clone(&watch));
        move || work(&town, &watch, &todo)
    });
    // `try_init` also sets a panic hook that restores the terminal.
    let mut terminal = ratatui::try_init().context("preparing the terminal")?;
    let outcome = keys(&mut terminal, &watch, &acts);
    ratatui::restore();
    println!("Removing the town ...");
    drop(acts);
    let _ = worker.join();
    drop(watch);
    let stopped = town.stop();
    drop(town);
    outcome.and(stopped)?;
    println!("Nothing of it is left.");
    Ok(ExitCode::SUCCESS)
}

fn keys(terminal: &mut ratatui::DefaultTerminal, watch: &Watch, acts: &mpsc::Sender<Act>) -> Result<()> {
    let mut choice = Choice { node: 0, cut: Cut::Carrier };
    loop {
        let view = watch.view();
        terminal.draw(|frame| screen::draw(frame, &view, choice)).context("drawing")?;
        if !event::poll(Duration::from_millis(100)).context("reading keys")? {
            continue;
        }
        let Event::Key(key) = event::read().context("reading keys")? else { continue };
        if key.kind == KeyEventKind::Release {
            continue;
        }
        match act(key, &mut choice) {
            Pressed::Quit => return Ok(()),
            Pressed::Act(act) => acts.send(act).context("the thread that acts has ended")?,
            Pressed::Nothing => {}
        }
    }
}

enum Pressed {
    Quit,
    Act(Act),
    Nothing,
}

fn act(key: KeyEvent, choice: &mut Choice) -> Pressed {
    match key.code {
        KeyCode::Char('q') | KeyCode::Esc => return Pressed::Quit,
        KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return Pressed::Quit,
        KeyCode::Char(digit @ '1'..='8') => return Pressed::Act(Act::Wire(digit as usize - '1' as usize, choice.cut)),
        KeyCode::Char('u') => return Pressed::Act(Act::Wire(UPLINK, choice.cut)),
        KeyCode::Char('m') => return Pressed::Act(Act::MendAll),
        KeyCode::Char('r') => return Pressed::Act(Act::Restart(choice.node)),
        KeyCode::Char('k') => return Pressed::Act(Act::KillOrStart(choice.node)),
        KeyCode::Char('d') => return Pressed::Act(Act::Download),
        KeyCode::Char('s') => {
            choice.cut = match choice.cut {
                Cut::Carrier => Cut::Silent,
                Cut::Silent => Cut::Carrier,
            }
        }
        KeyCode::Right | KeyCode::Tab => choice.node = (choice.node + 1) % NODES.len(),
        KeyCode::Left | KeyCode::BackTab => choice.node = (choice.node + NODES.len() - 1) % NODES.len(),
        _ => {}
    }
    Pressed::Nothing
}

/// Starts the town, then does what the keys ask for.
fn work(town: &Town, watch: &Watch, todo: &mpsc::Receiver<Act>) {
    watch.log("the agents start");
    let formed = town.start().and_then(|start| {
        watch.town_started();
        town.wait_reachable(Duration::from_secs(30))?;
        Ok(start.elapsed())
    });
    match formed {
        Ok(took) => watch.log(format!("all pairs reach each other after {:.1} s", took.as_secs_f64())),
        Err(error) => watch.log(format!("{error:#}")),
    }
    while let Ok(act) = todo.recv() {
        if let Err(error) = perform(town, watch, &act) {
            watch.log(format!("{error:#}"));
        }
    }
}

fn perform(town: &Town, watch: &Watch, act: &Act) -> Result<()> {
    let at = Instant::now();
    match *act {
        Act::Wire(number, how) => {
            let (wire, name) = (&town.wires()[number], plan::wire_name(number));
            let text = match (wire.state(), how) {
                (WireState::Cut(_), _) => {
                    wire.mend()?;
                    "mended"
                }
                (WireState::Whole, Cut::Carrier) => {
                    wire.cut(how)?;
                    "pulled"
                }
                (WireState::Whole, Cut::Silent) => {
                    wire.cut(how)?;
                    "cut silently"
                }
            };
            watch.log(format!("> {name} {text}"));
            watch.acted(at, &name);
        }
        Act::MendAll => {
            town.wires().iter().try_for_each(grange_netns::Wire::mend)?;
            watch.log("> everything mended");
        }
        Act::Restart(number) => {
            let node = &town.nodes()[number];
            watch.log(format!("> {} restarts", node.name()));
            watch.acted(at, node.name());
            if node.is_running() {
                node.stop()?;
            }
            node.start()?;
        }
        Act::KillOrStart(number) => {
            let node = &town.nodes()[number];
            watch.acted(at, node.name());
            if node.is_running() {
                node.kill()?;
                watch.log(format!("> {} killed", node.name()));
            } else {
                watch.log(format!("> {} starts", node.name()));
                node.start()?;
            }
        }
        Act::Download => watch.toggle_download(),
    }
    Ok(())
}
