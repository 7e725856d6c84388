//! The live table of `dev`: keys in, frames out, about five a second.
//!
//! Holds: the terminal is as before when this returns, and after a panic of any thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use maitred_client::Client;
use maitred_protocol::{Explanation, Members, NodeRecord, Status, TypeSpec};
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

use super::World;
use super::view;
use crate::failure::{Exit, Failure};
use crate::host::{self, Signals};

const FRAME: Duration = Duration::from_millis(200);
/// How long a message stays.
const MESSAGE: Duration = Duration::from_secs(8);

/// What the host says of itself.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    pub(crate) nodes: Vec<NodeRecord>,
    pub(crate) types: Vec<TypeSpec>,
    pub(crate) status: Option<Status>,
    pub(crate) members: Option<Members>,
    pub(crate) problem: Option<String>,
}

/// What a person looks at.
#[derive(Default)]
pub(crate) struct Screen {
    pub(crate) selected: usize,
    pub(crate) popup: Option<Popup>,
    pub(crate) seen: Seen,
    message: Option<(Instant, String)>,
}

pub(crate) enum Popup {
    Explained(Box<Explanation>),
    Text(String),
}

impl Screen {
    pub(crate) fn message(&self) -> Option<&str> {
        let (at, text) = self.message.as_ref()?;
        (at.elapsed() < MESSAGE).then_some(text.as_str())
    }

    fn say(&mut self, text: String) {
        self.message = Some((Instant::now(), text));
    }
}

/// The terminal, given back when dropped.
struct Terminal(DefaultTerminal);

impl Terminal {
    fn take() -> Result<Self, Failure> {
        // Also sets a panic hook that gives the terminal back.
        ratatui::try_init()
            .map(Self)
            .map_err(|error| unusable(&error))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

fn unusable(error: &std::io::Error) -> Failure {
    let message = format!("the terminal cannot be used: {error}");
    Failure::new(Exit::Other, "terminal", message, "run it with --headless")
}

/// Runs until `end`, a signal, or q.
pub(crate) async fn run(
    world: &mut World,
    end: Option<Instant>,
    signals: &mut Signals,
) -> Result<(), Failure> {
    let mut terminal = Terminal::take()?;
    let mut keys = Keys::listen();
    let (look, seen) = watch_host(world.client.clone());
    let mut frames = interval(FRAME);
    frames.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut screen = Screen::default();
    let done = loop {
        let key = tokio::select! {
            _ = frames.tick() => None,
            key = keys.next() => key,
            () = signals.next() => break Ok(()),
            failed = world.embedded.failed() => break Err(host::broken(&failed)),
        };
        if let Some(key) = key
            && !press(world, &mut screen, key).await
        {
            break Ok(());
        }
        if end.is_some_and(|end| end <= Instant::now()) {
            break Ok(());
        }
        if let Some(said) = world.tick().await {
            screen.say(said);
        }
        screen.seen = seen.borrow().clone();
        world.rules.see(&screen.seen.types);
        let drawn = terminal.0.draw(|frame| view::draw(frame, world, &screen));
        if let Err(error) = drawn {
            break Err(unusable(&error));
        }
    };
    look.abort();
    done
}

/// Asks the host how it is, so that a slow answer never holds up a frame.
fn watch_host(client: Client) -> (JoinHandle<()>, watch::Receiver<Seen>) {
    let (tell, seen) = watch::channel(Seen::default());
    let task = tokio::spawn(async move {
        let mut ticks = interval(FRAME);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            ticks.tick().await;
            // Any host tells who belongs to the group, also while nobody leads it.
            let members = client.members();
            let asked = async { tokio::try_join!(client.nodes(), client.types(), client.status()) };
            let (members, answer) = tokio::join!(members, asked);
            tell.send_modify(|seen| {
                if let Ok(members) = members {
                    seen.members = Some(members);
                }
                match answer {
                    Ok((mut nodes, types, status)) => {
                        nodes.sort_by(|a, b| a.name.cmp(&b.name));
                        seen.nodes = nodes;
                        seen.types = types;
                        seen.status = Some(status);
                        seen.problem = None;
                    }
                    Err(error) => seen.problem = Some(Failure::from(error).message),
                }
            });
        }
    });
    (task, seen)
}

/// Carries a key out; false: end.
async fn press(world: &mut World, screen: &mut Screen, key: KeyEvent) -> bool {
    let control = key.modifiers.contains(KeyModifiers::CONTROL);
    if screen.popup.is_some() && !(control && key.code == KeyCode::Char('c')) {
        screen.popup = None;
        return true;
    }
    let last = world.fleet.members.len().saturating_sub(1);
    match key.code {
        KeyCode::Char('c') if control => return false,
        KeyCode::Char('q') => return false,
        KeyCode::Up => screen.selected = screen.selected.saturating_sub(1),
        KeyCode::Down => screen.selected = (screen.selected + 1).min(last),
        KeyCode::Char('k') => {
            let said = world.fleet.kill(screen.selected);
            screen.say(said);
        }
        KeyCode::Char('l') => {
            let said = world.embedded.kill_leader();
            screen.say(said);
        }
        KeyCode::Char('d') => {
            let said = world.fleet.drain(screen.selected).await;
            screen.say(said);
        }
        KeyCode::Char('s') => {
            let said = world.rules.swap(&world.client).await;
            screen.say(said.unwrap_or_else(|error| Failure::from(error).message));
        }
        KeyCode::Char('e') => screen.popup = Some(explain(world).await),
        KeyCode::Char(' ') => {
            let paused = world.work.pause();
            screen.say(if paused { "paused" } else { "going on" }.to_owned());
        }
        _ => {}
    }
    true
}

async fn explain(world: &World) -> Popup {
    let last = world
        .stats
        .lock()
        .recent
        .front()
        .map(|placement| placement.key.clone());
    let Some(key) = last else {
        return Popup::Text("nothing has been placed yet".to_owned());
    };
    match world.client.explain(&key).await {
        Ok(explanation) => Popup::Explained(Box::new(explanation)),
        Err(error) => Popup::Text(format!("{key}: {}", Failure::from(error).message)),
    }
}

/// Keys, read on a thread of their own, since a terminal can only be waited for by blocking.
struct Keys {
    keys: mpsc::Receiver<KeyEvent>,
    ended: Arc<AtomicBool>,
}

impl Keys {
    fn listen() -> Self {
        let (tell, keys) = mpsc::channel(64);
        let ended = Arc::new(AtomicBool::new(false));
        let end = Arc::clone(&ended);
        std::thread::spawn(move || {
            while !end.load(Ordering::Relaxed) {
                match event::poll(Duration::from_millis(100)) {
                    Ok(false) => {}
                    Ok(true) => match event::read() {
                        Ok(Event::Key(key)) if key.kind != KeyEventKind::Release => {
                            // A person who is faster than 64 keys a frame loses some.
                            let _ = tell.try_send(key);
                        }
                        Ok(_) => {}
                        Err(_) => return,
                    },
                    Err(_) => return,
                }
            }
        });
        Self { keys, ended }
    }

    async fn next(&mut self) -> Option<KeyEvent> {
        match self.keys.recv().await {
            Some(key) => Some(key),
            // The terminal has gone; signals and time still end the run.
            None => std::future::pending().await,
        }
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
    }
}
