//! The screen: the map, who reaches whom, the Internet, what happened, and the keys.

use grange_netns::Cut;
use ratatui::{
    Frame,
    buffer::Buffer,
    layout::{Constraint, Layout, Rect},
    style::{Color, Modifier, Style},
    text::{Line, Span},
    widgets::{Block, Paragraph, Widget},
};

use super::{
    map,
    plan::{GATEWAY, LAPTOPS, NODES},
    view::{HOSTS, View, rate_text, time_text},
};

/// What the person at the keys has chosen.
#[derive(Clone, Copy, Debug)]
pub(super) struct Choice {
    /// The node that restart and kill are for.
    pub(super) node: usize,
    /// How the next cut is made.
    pub(super) cut: Cut,
}

/// Rows of the matrix with its frame and heading.
const PANEL_HEIGHT: u16 = HOSTS as u16 + 3;

/// Draws everything.
pub(super) fn draw(frame: &mut Frame<'_>, view: &View, choice: Choice) {
    let area = frame.area();
    if area.width < map::MIN_WIDTH + 2 || area.height < map::MIN_HEIGHT + PANEL_HEIGHT + 3 {
        return frame.render_widget("This window is too small: 80 by 24 will do. Quit: q", area);
    }
    let [title, map_area, panels, keys] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Min(map::MIN_HEIGHT),
        Constraint::Length(PANEL_HEIGHT),
        Constraint::Length(2),
    ])
    .areas(area);
    draw_title(view, title, frame.buffer_mut());
    // On a large screen the graph grows, but a very wide one would only be thin.
    let height = map_area.height.min(23);
    let map_area = Rect {
        x: map_area.x + 1,
        y: map_area.y + (map_area.height - height) / 2,
        width: map_area.width.saturating_sub(2),
        height,
    };
    map::draw(view, choice.node, map_area, frame.buffer_mut());
    let [matrix, rest] = Layout::horizontal([Constraint::Length(36), Constraint::Min(30)]).areas(panels);
    draw_matrix(view, matrix, frame.buffer_mut());
    draw_events(view, rest, frame.buffer_mut());
    draw_keys(choice, keys, frame.buffer_mut());
}

fn draw_title(view: &View, area: Rect, buffer: &mut Buffer) {
    let style = Style::new().fg(Color::Black).bg(Color::Green).add_modifier(Modifier::BOLD);
    buffer.set_style(area, style);
    buffer.set_string(area.x, area.y, " Grange: a town of five routers and a gateway", style);
    let time = format!("{:.0} s ", view.uptime);
    buffer.set_string(area.right().saturating_sub(time.len() as u16), area.y, time, style);
}

fn draw_matrix(view: &View, area: Rect, buffer: &mut Buffer) {
    let block = Block::bordered().title(" who reaches whom ").border_style(Style::new().fg(Color::DarkGray));
    let inner = block.inner(area);
    block.render(area, buffer);
    let names: Vec<&str> = NODES.into_iter().chain(LAPTOPS.map(|(name, _)| name)).collect();
    let column = |place: usize| inner.x + 6 + 3 * place as u16;
    for (place, name) in names.iter().chain([&"web"]).enumerate() {
        buffer.set_stringn(column(place), inner.y, name, 2, Style::new().fg(Color::Gray));
    }
    for (place, name) in names.iter().enumerate() {
        let row = inner.y + 1 + place as u16;
        buffer.set_string(inner.x + 1, row, name, Style::new().fg(Color::Gray));
        for (to, answer) in view.reach[place].iter().enumerate() {
            let (symbol, style) = match answer {
                _ if to == place => ("·", Style::new().fg(Color::DarkGray)),
                Some(_) => ("●", Style::new().fg(Color::Green)),
                None => ("○", Style::new().fg(Color::Red)),
            };
            buffer.set_string(column(to), row, symbol, style);
        }
    }
}

fn draw_events(view: &View, area: Rect, buffer: &mut Buffer) {
    let block =
        Block::bordered().title(" the Internet, and what happened ").border_style(Style::new().fg(Color::DarkGray));
    let inner = block.inner(area);
    block.render(area, buffer);
    let sign = |good: bool, text: &str| {
        let colour = if good { Color::Green } else { Color::Red };
        Span::styled(format!("{text} "), Style::new().fg(colour).add_modifier(Modifier::BOLD))
    };
    let mut lines = vec![
        Line::from(vec![
            Span::raw(format!("{GATEWAY} offers ")),
            sign(view.gateway.0, "IPv4"),
            sign(view.gateway.1, "IPv6"),
            Span::raw("lena has "),
            sign(view.internet.0, "IPv4"),
            sign(view.internet.1, "IPv6"),
        ]),
        Line::from(format!(
            "download {}B/s   last stop {}",
            rate_text(view.download),
            view.last_gap.map_or("-".into(), time_text)
        )),
    ];
    let room = usize::from(inner.height).saturating_sub(lines.len());
    let first = view.events.len().saturating_sub(room);
    for (at, text) in &view.events[first..] {
        lines.push(Line::from(vec![
            Span::styled(format!("{at:5.1} "), Style::new().fg(Color::DarkGray)),
            Span::raw(text.as_str()),
        ]));
    }
    Paragraph::new(lines).render(inner, buffer);
}

fn draw_keys(choice: Choice, area: Rect, buffer: &mut Buffer) {
    let key = |text: &str| Span::styled(text.to_owned(), Style::new().fg(Color::Black).bg(Color::Gray));
    let mode = match choice.cut {
        Cut::Carrier => "pulled (carrier lost)",
        Cut::Silent => "silent (carrier stays)",
    };
    let node = NODES[choice.node];
    let lines = vec![
        Line::from(vec![
            key("1-8"),
            Span::raw(" cut or mend a wire  "),
            key("u"),
            Span::raw(" the uplink  "),
            key("s"),
            Span::raw(format!(" cuts are: {mode}")),
        ]),
        Line::from(vec![
            key("←→"),
            Span::raw(format!(" router: {node:<5}")),
            key("r"),
            Span::raw(" restart  "),
            key("k"),
            Span::raw(" kill or start  "),
            key("d"),
            Span::raw(" download  "),
            key("m"),
            Span::raw(" mend all  "),
            key("q"),
            Span::raw(" quit"),
        ]),
    ];
    Paragraph::new(lines).render(area, buffer);
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use grange_netns::WireState;
    use ratatui::{Terminal, backend::TestBackend};

    use super::*;

    fn picture(width: u16, height: u16, view: &View) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a test backend never fails");
        let choice = Choice { node: 0, cut: Cut::Carrier };
        terminal.draw(|frame| draw(frame, view, choice)).expect("a test backend never fails");
        let buffer = terminal.backend().buffer();
        (0..height).map(|y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>() + "\n").collect()
    }

    #[test]
    fn everything_fits_80_by_24_and_grows() {
        let mut view = View::default();
        for (number, wire) in view.wires.iter_mut().enumerate() {
            wire.linked = true;
            wire.cost = 65000 + number as u64;
            wire.rate = 99.9e6;
        }
        view.wires[2].state = WireState::Cut(Cut::Silent);
        view.reach[0][1] = Some(Duration::from_millis(1));
        view.events.push((1.0, "link mill-oak is up".into()));
        for (width, height) in [(80, 24), (132, 43), (200, 60)] {
            let picture = picture(width, height, &view);
            for text in ["[mill]", " oak ", " barn ", " pond ", " kiln ", " gate ", "lena", "tom", "the Internet"] {
                assert!(picture.contains(text), "{text} is missing at {width}x{height}:\n{picture}");
            }
            for text in
                ["1 65000 99.9M", "2 65001 99.9M", "3 silent", "4 65003", "5 65004", "6 65005", "7 65006", "8 65007"]
            {
                assert!(picture.contains(text), "{text} is missing at {width}x{height}:\n{picture}");
            }
            for text in ["u 99.9M", "link mill-oak is up", "quit", "●"] {
                assert!(picture.contains(text), "{text} is missing at {width}x{height}:\n{picture}");
            }
        }
    }

    #[test]
    fn a_tiny_window_is_no_panic() {
        for (width, height) in [(1, 1), (20, 5), (69, 30), (80, 12)] {
            picture(width, height, &View::default());
        }
    }
}
