//! One frame of the live table: nodes, placements, totals, keys, and the explanation on top.

use maitred_protocol::{Members, NodeRecord, Status};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Margin, Rect};
use ratatui::style::{Color, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Cell, Clear, Paragraph, Row, Table, Wrap};

use super::World;
use super::fleet::Member;
use super::live::{Popup, Screen};
use crate::host::GroupHost;
use crate::json::{self, node_state};
use crate::out::bar;
use crate::process::explain::decision;

const KEYS: &str =
    "q quit  ↑↓ node  k kill  l kill leader  d drain  s swap  e explain  space pause";

/// Colours, or none with `NO_COLOR`.
fn paint(style: Style) -> Style {
    let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    if plain {
        Style {
            fg: None,
            bg: None,
            ..style
        }
    } else {
        style
    }
}

fn colour(colour: Color) -> Style {
    paint(Style::new().fg(colour))
}

pub(crate) fn draw(frame: &mut Frame<'_>, world: &World, screen: &Screen) {
    let nodes = u16::try_from(world.fleet.members.len()).unwrap_or(64);
    let hosts = world.embedded.hosts().len();
    // One host has nobody to be compared with.
    let hosts = if hosts > 1 { hosts + 2 } else { 0 };
    let [head, group, table, totals, recent, message, keys] = Layout::vertical([
        Constraint::Length(5),
        Constraint::Length(u16::try_from(hosts).unwrap_or(0)),
        Constraint::Length(nodes.saturating_add(2).min(20)),
        Constraint::Length(4),
        Constraint::Min(3),
        Constraint::Length(1),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    let banner: Vec<Line<'_>> = world.banner().into_iter().map(Line::from).collect();
    frame.render_widget(Paragraph::new(banner), head);
    if hosts > 0 {
        draw_hosts(frame, group, world, screen.seen.members.as_ref());
    }
    draw_nodes(frame, table, world, screen);
    draw_totals(frame, totals, world, screen);
    draw_recent(frame, recent, world);
    draw_message(frame, message, world, screen);
    frame.render_widget(Paragraph::new(KEYS).style(Style::new().bold()), keys);
    if let Some(popup) = &screen.popup {
        draw_popup(frame, popup);
    }
}

fn draw_hosts(frame: &mut Frame<'_>, area: Rect, world: &World, members: Option<&Members>) {
    let header = Row::new([
        "", "HOST", "ROLE", "TERM", "LOG", "BEHIND", "HEARD", "ADDRESS",
    ]);
    let rows = world
        .embedded
        .hosts()
        .iter()
        .map(|host| host_row(host, members));
    let widths = [1, 6, 22, 6, 10, 8, 9, 22].map(Constraint::Length);
    let table = Table::new(rows, widths).header(header.style(Style::new().bold()));
    frame.render_widget(table.column_spacing(2), area);
}

fn host_row(host: &GroupHost, members: Option<&Members>) -> Row<'static> {
    let member =
        members.and_then(|members| members.items.iter().find(|one| one.host == host.number));
    let leads = host.leads();
    let (role, style) = match (host.away(), leads) {
        (Some(seconds), _) => (format!("killed, back in {seconds} s"), colour(Color::Red)),
        (None, true) => ("leader".to_owned(), colour(Color::Green)),
        (None, false) => {
            let role = member.map_or("starting", |member| json::role(member.role));
            (role.to_owned(), Style::new())
        }
    };
    let (term, commit) = members.map_or((0, 0), |members| (members.term, members.commit));
    // What was known of one that is away, or while somebody led, is no longer so.
    let known = host.is_up() && members.is_some_and(|members| members.leader.is_some());
    let progress = member.and_then(|member| member.progress).filter(|_| known);
    let matched = progress.and_then(json::has);
    let matched = if leads { Some(commit) } else { matched };
    let dash = |number: Option<String>| number.unwrap_or_else(|| "-".to_owned());
    let heard = progress.and_then(|progress| progress.heard_ms);
    Row::new([
        Cell::new(if leads { "★" } else { " " }).style(colour(Color::Green)),
        Cell::new(host.name.clone()),
        Cell::new(role).style(style),
        Cell::new(term.to_string()),
        Cell::new(dash(matched.map(|index| index.to_string()))),
        Cell::new(dash(
            matched.map(|index| commit.saturating_sub(index).to_string()),
        )),
        Cell::new(dash(
            heard
                .filter(|_| !leads)
                .map(|millis| format!("{millis} ms")),
        )),
        Cell::new(host.address.to_string()),
    ])
}

fn draw_nodes(frame: &mut Frame<'_>, area: Rect, world: &World, screen: &Screen) {
    let header = Row::new([
        "", "NODE", "ZONE", "STATE", "USED", "PROCS", "CPU", "LEASE", "PLACED",
    ])
    .style(Style::new().bold());
    // The chosen one stays in sight when there are more than fit below the header.
    let fit = usize::from(area.height.saturating_sub(1)).max(1);
    let hidden = (screen.selected + 1).saturating_sub(fit);
    let members = world.fleet.members.iter().enumerate().skip(hidden);
    let rows = members.map(|(at, member)| {
        let name = &member.spec.name;
        let record = screen
            .seen
            .nodes
            .iter()
            .find(|node| node.name.as_str() == name);
        let placed = world.stats.lock().by_node.get(name).copied().unwrap_or(0);
        node_row(member, record, placed, at == screen.selected)
    });
    let widths = [1, 8, 5, 22, 18, 6, 5, 6, 8].map(Constraint::Length);
    frame.render_widget(
        Table::new(rows, widths).header(header).column_spacing(2),
        area,
    );
}

fn node_row(
    member: &Member,
    record: Option<&NodeRecord>,
    placed: u64,
    selected: bool,
) -> Row<'static> {
    let (state, style) = state(member, record);
    let used = record.map_or(0.0, |node| {
        f64::from(node.used) / f64::from(node.capacity.max(1))
    });
    let cpu = record
        .and_then(|node| node.load.as_ref())
        .map(|(load, _)| load.cpu);
    let lease = record.map(|node| f64::from(node.lease_left_ms) / 1_000.0);
    let dash = || "-".to_owned();
    Row::new([
        Cell::new(if selected { "▶" } else { " " }),
        Cell::new(member.spec.name.clone()),
        Cell::new(member.spec.zone.clone()),
        Cell::new(state).style(style),
        Cell::new(format!("{} {:3.0} %", bar(used, 10), used * 100.0)).style(heat(used)),
        Cell::new(record.map_or_else(dash, |node| node.processes.to_string())),
        Cell::new(cpu.map_or_else(dash, |cpu| format!("{:.0} %", cpu * 100.0))),
        Cell::new(lease.map_or_else(dash, |left| format!("{left:.1} s"))),
        Cell::new(placed.to_string()),
    ])
    .style(if selected {
        Style::new().bold()
    } else {
        Style::new()
    })
}

fn state(member: &Member, record: Option<&NodeRecord>) -> (String, Style) {
    match (member.away(), record) {
        (Some(seconds), Some(_)) => (format!("killed, back in {seconds} s"), colour(Color::Red)),
        (Some(seconds), None) => (format!("gone, back in {seconds} s"), colour(Color::Red)),
        (None, None) => ("registering".to_owned(), colour(Color::Yellow)),
        (None, Some(node)) => match node_state(node) {
            "draining" => (
                format!("draining, {} left", node.processes),
                colour(Color::Yellow),
            ),
            other @ ("drained" | "cordoned" | "damped") => {
                (other.to_owned(), colour(Color::Yellow))
            }
            "suspect" => ("suspect".to_owned(), colour(Color::Red)),
            other => (other.to_owned(), colour(Color::Green)),
        },
    }
}

fn heat(used: f64) -> Style {
    colour(match used {
        used if used > 0.9 => Color::Red,
        used if used > 0.7 => Color::Yellow,
        _ => Color::Green,
    })
}

fn draw_totals(frame: &mut Frame<'_>, area: Rect, world: &World, screen: &Screen) {
    let tally = world.stats.lock();
    let status = screen.seen.status.as_ref();
    let running = status.map_or_else(
        || "?".to_owned(),
        |status| {
            format!(
                "{} running, {} starting, {} pending",
                status.running, status.starting, status.pending
            )
        },
    );
    let millis = |quantile| tally.creates_us.value_at_quantile(quantile) as f64 / 1_000.0;
    let failures = Span::styled(
        format!("{} failed", tally.failures),
        if tally.failures > 0 {
            colour(Color::Red)
        } else {
            Style::new()
        },
    );
    let counts = Line::from(vec![
        Span::raw(format!("{} creates, ", tally.creates)),
        failures,
        Span::raw(format!(
            ", {} by a fallback   p50 {:.1} ms   p99 {:.1} ms",
            tally.fallbacks,
            millis(0.5),
            millis(0.99),
        )),
    ]);
    let processes = Line::from(vec![
        Span::raw(format!("processes: {running}")),
        Span::styled(
            status.map_or_else(String::new, waiting),
            colour(Color::Yellow),
        ),
    ]);
    let rules = Line::from(format!("selectors: {}", world.rules.text()));
    frame.render_widget(Paragraph::new(vec![counts, processes, rules]), area);
}

/// What is said of lost nodes, when there is something to say.
fn waiting(status: &Status) -> String {
    let mut text = String::new();
    if status.lost > 0 {
        text += &format!(
            ", {} lost nodes with {} keys held",
            status.lost, status.held
        );
    }
    if status.recreation_paused.is_some() {
        text += ", recreation paused";
    }
    text
}

fn draw_recent(frame: &mut Frame<'_>, area: Rect, world: &World) {
    let header = Row::new(["RECENT PLACEMENTS", "NODE", "BY", "DECISION", "CREATE"])
        .style(Style::new().bold());
    let tally = world.stats.lock();
    let rows = tally
        .recent
        .iter()
        .take(usize::from(area.height))
        .map(|placement| {
            let by = if placement.fallback {
                Cell::new(format!("⚠ {}", placement.by)).style(colour(Color::Red))
            } else {
                Cell::new(placement.by.clone())
            };
            Row::new([
                Cell::new(placement.key.to_string()),
                Cell::new(format!("→ {}", placement.node)),
                by,
                Cell::new(format!("{} µs", placement.micros)),
                Cell::new(format!("{:.1} ms", placement.took.as_secs_f64() * 1_000.0)),
            ])
        });
    let widths = [26, 12, 24, 10, 10].map(Constraint::Length);
    frame.render_widget(
        Table::new(rows, widths).header(header).column_spacing(2),
        area,
    );
}

fn draw_message(frame: &mut Frame<'_>, area: Rect, world: &World, screen: &Screen) {
    let last_error = world.stats.lock().last_error.clone();
    let (text, style) = match (&screen.seen.problem, screen.message(), last_error) {
        _ if !world.embedded.hosts().iter().any(GroupHost::leads) => {
            let status = screen.seen.status.as_ref();
            let why = status.and_then(|status| status.no_leader.as_deref());
            let why = why.unwrap_or("an election is under way");
            (format!("nobody leads: {why}"), colour(Color::Red))
        }
        (Some(problem), ..) => (format!("the host: {problem}"), colour(Color::Red)),
        (None, Some(message), _) => (message.to_owned(), colour(Color::Cyan)),
        (None, None, _) if world.work.is_paused() => {
            ("paused: space goes on".to_owned(), colour(Color::Yellow))
        }
        (None, None, Some(error)) => (format!("last failure: {error}"), colour(Color::Red)),
        (None, None, None) => (String::new(), Style::new()),
    };
    let first = text.lines().next().unwrap_or_default().to_owned();
    frame.render_widget(Paragraph::new(first).style(style), area);
}

fn draw_popup(frame: &mut Frame<'_>, popup: &Popup) {
    let area = frame.area().inner(Margin::new(4, 3));
    let (title, text) = match popup {
        Popup::Asking(text) | Popup::Text(text) => (" explain ".to_owned(), text.clone()),
        Popup::Explained(explanation) => {
            let record = &explanation.record;
            let why = crate::process::placed(&record.why);
            let table = explanation.evidence.as_ref().map_or_else(
                || "the host no longer has what the decision was made from".to_owned(),
                decision,
            );
            (
                format!(" why {} is on {} ", record.key, record.node),
                format!("by {why}\n\n{table}"),
            )
        }
    };
    let block = Block::bordered()
        .title(title)
        .title_bottom(" any key closes ");
    frame.render_widget(Clear, area);
    frame.render_widget(
        Paragraph::new(text).wrap(Wrap { trim: false }).block(block),
        area,
    );
}
