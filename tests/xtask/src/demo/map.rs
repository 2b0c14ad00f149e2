//! The drawn graph of the town.

use std::ops::RangeInclusive;

use grange_netns::{Cut, WireState};
use ratatui::{
    buffer::Buffer,
    layout::Rect,
    style::{Color, Modifier, Style},
};

use super::{
    plan::{NODES, UPLINK},
    view::{View, WireView, rate_text},
};

/// The least area that the graph fits.
pub(super) const MIN_WIDTH: u16 = 76;
pub(super) const MIN_HEIGHT: u16 = 9;

/// Where things stand. Columns are centres of names, rows those of the three storeys.
struct Places {
    columns: [u16; 4],
    top: u16,
    middle: u16,
    bottom: u16,
}

/// Draws the graph into an area of at least [`MIN_WIDTH`] by [`MIN_HEIGHT`]; the selected node is marked.
pub(super) fn draw(view: &View, selected: usize, area: Rect, buffer: &mut Buffer) {
    let at = |share: u16| area.x + (u32::from(area.width) * u32::from(share) / 100) as u16;
    let places = Places {
        columns: [at(19), at(35), at(60), at(76)],
        top: area.y,
        middle: area.y + (area.height - 2) / 2,
        bottom: area.bottom() - 2,
    };
    let [mill, left, right, gate] = places.columns;
    let (top, middle, bottom) = (places.top, places.middle, places.bottom);
    let wires = &view.wires;

    // lena, tom and the Internet stand outside the mesh.
    let lan = Style::new().fg(Color::Gray);
    horizontal(buffer, area.x + 5..=mill - 4, middle, "─", lan);
    buffer.set_string(area.x, middle, "lena", Style::new().add_modifier(Modifier::BOLD));
    buffer.set_string(left, bottom + 1, "└─ ", lan);
    buffer.set_string(left + 3, bottom + 1, "tom", Style::new().add_modifier(Modifier::BOLD));

    let name = "the Internet";
    let internet = area.right() - name.len() as u16;
    wire_horizontal(buffer, &wires[UPLINK], gate + 3..=internet - 2, middle);
    let style = if view.gateway.0 || view.gateway.1 { Color::Green } else { Color::Red };
    buffer.set_string(internet, middle, name, Style::new().fg(style).add_modifier(Modifier::BOLD));
    label(buffer, &wires[UPLINK], "u", Side::Right(internet), middle - 1, false);

    // The elbows of mill and gate.
    for (number, column, row, inner) in
        [(0, mill, top, left), (1, mill, bottom, left), (4, gate, top, right), (5, gate, bottom, right)]
    {
        let wire = &wires[number];
        let rows = if row < middle { row + 1..=middle - 1 } else { middle + 1..=row - 1 };
        wire_vertical(buffer, wire, column, rows);
        let columns = if inner > column { column + 1..=inner - 4 } else { inner + 4..=column - 1 };
        wire_horizontal(buffer, wire, columns, row);
        let corner = match (inner > column, row < middle) {
            (true, true) => ['┌', '┏'],
            (true, false) => ['└', '┗'],
            (false, true) => ['┐', '┓'],
            (false, false) => ['┘', '┛'],
        };
        let (style, line) = look(wire);
        let symbol = corner[usize::from(line == Line::Bold)];
        buffer.set_string(column, row, symbol.to_string(), style);
        let side = if inner > column { Side::Left(column - 2) } else { Side::Right(column + 2) };
        let text_row = if row < middle { top.midpoint(middle) } else { bottom.midpoint(middle).max(middle + 1) };
        label(buffer, wire, &(number + 1).to_string(), side, text_row, true);
    }
    for (number, row) in [(2, top), (3, bottom)] {
        wire_horizontal(buffer, &wires[number], left + 4..=right - 4, row);
        label(buffer, &wires[number], &(number + 1).to_string(), Side::Centre(left.midpoint(right)), row, true);
    }
    for (number, column, side, row) in
        [(6, left, Side::Right(left + 2), middle - 1), (7, right, Side::Left(right - 2), middle + 1)]
    {
        wire_vertical(buffer, &wires[number], column, top + 1..=bottom - 1);
        label(buffer, &wires[number], &(number + 1).to_string(), side, row, true);
    }

    let spots = [(mill, middle), (left, top), (left, bottom), (right, top), (right, bottom), (gate, middle)];
    for (number, (column, row)) in spots.into_iter().enumerate() {
        node(buffer, view, number, number == selected, column, row);
    }
}

fn node(buffer: &mut Buffer, view: &View, number: usize, selected: bool, column: u16, row: u16) {
    let shown = &view.nodes[number];
    let on_way = view.way.iter().any(|name| name == NODES[number]);
    let colour = match (shown.answers, shown.running, on_way) {
        (true, _, true) => Color::Cyan,
        (true, _, false) => Color::Green,
        (false, true, _) => Color::Yellow,
        (false, false, _) => Color::Red,
    };
    let mut style = Style::new().fg(Color::Black).bg(colour).add_modifier(Modifier::BOLD);
    if selected {
        style = style.add_modifier(Modifier::UNDERLINED);
    }
    let text = if selected { format!("[{}]", NODES[number]) } else { format!(" {} ", NODES[number]) };
    buffer.set_string(column - text.len() as u16 / 2, row, text, style);
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Line {
    Thin,
    Bold,
    Broken,
}

/// Colour and kind of line of a wire.
fn look(wire: &WireView) -> (Style, Line) {
    match (wire.state, wire.linked) {
        (WireState::Whole, true) if wire.used => {
            (Style::new().fg(Color::Cyan).add_modifier(Modifier::BOLD), Line::Bold)
        }
        (WireState::Whole, true) => (Style::new().fg(Color::Green), Line::Thin),
        (WireState::Whole, false) => (Style::new().fg(Color::DarkGray), Line::Broken),
        // Cut, and the agents have not noticed yet.
        (WireState::Cut(_), true) => (Style::new().fg(Color::Yellow), Line::Broken),
        (WireState::Cut(Cut::Carrier), false) => (Style::new().fg(Color::Red), Line::Broken),
        (WireState::Cut(Cut::Silent), false) => (Style::new().fg(Color::Magenta), Line::Broken),
    }
}

fn horizontal(buffer: &mut Buffer, columns: RangeInclusive<u16>, row: u16, symbol: &str, style: Style) {
    for column in columns {
        buffer.set_string(column, row, symbol, style);
    }
}

fn wire_horizontal(buffer: &mut Buffer, wire: &WireView, columns: RangeInclusive<u16>, row: u16) {
    let (style, line) = look(wire);
    let symbol = ["─", "━", "╌"][line as usize];
    horizontal(buffer, columns, row, symbol, style);
}

fn wire_vertical(buffer: &mut Buffer, wire: &WireView, column: u16, rows: RangeInclusive<u16>) {
    let (style, line) = look(wire);
    let symbol = ["│", "┃", "╎"][line as usize];
    for row in rows {
        buffer.set_string(column, row, symbol, style);
    }
}

/// Where a label stands: its last column, its first, or its middle.
#[derive(Clone, Copy)]
enum Side {
    Left(u16),
    Right(u16),
    Centre(u16),
}

/// Key, cost and traffic of a wire, or how it is cut.
fn label(buffer: &mut Buffer, wire: &WireView, key: &str, side: Side, row: u16, cost: bool) {
    let text = match (wire.state, wire.linked) {
        (WireState::Cut(Cut::Carrier), _) => " pulled".into(),
        (WireState::Cut(Cut::Silent), _) => " silent".into(),
        (WireState::Whole, false) => " no link".into(),
        (WireState::Whole, true) if cost => format!(" {} {}", wire.cost, rate_text(wire.rate)),
        (WireState::Whole, true) => format!(" {}", rate_text(wire.rate)),
    };
    let width = (key.len() + text.len()) as u16;
    let column = match side {
        Side::Left(last) => (last + 1).saturating_sub(width),
        Side::Right(first) => first,
        Side::Centre(middle) => middle.saturating_sub(width / 2),
    };
    let (style, _) = look(wire);
    if matches!(side, Side::Centre(_)) {
        buffer.set_string(column.saturating_sub(1), row, " ", style);
        buffer.set_string(column + width, row, " ", style);
    }
    buffer.set_string(
        column,
        row,
        key,
        Style::new().fg(Color::White).add_modifier(Modifier::BOLD | Modifier::REVERSED),
    );
    buffer.set_string(column + key.len() as u16, row, text, style);
}
