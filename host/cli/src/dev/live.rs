//! The live table of `dev`: keys in, frames out, about five a second.
//!
//! Holds: the terminal is as before when this returns, and after a panic of any thread; no frame and
//! no key ever waits for an answer of a host.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use maitred_client::{Client, Error};
use maitred_protocol::{Explanation, Members, NodeRecord, Status, TypeSpec};
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{MissedTickBehavior, interval};

use super::World;
use super::fleet::Drained;
use super::rules::Swapped;
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
    /// Asked, and not answered yet.
    Asking(String),
    Explained(Box<Explanation>),
    Text(String),
}

/// What a key asked for, answered.
enum Answer {
    Explained(Popup),
    Drained(Result<Drained, String>),
    Swapped(Result<Swapped, Error>),
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
    let mut asked = JoinSet::new();
    let done = loop {
        let key = tokio::select! {
            _ = frames.tick() => None,
            key = keys.next() => key,
            Some(answer) = asked.join_next() => {
                if let Ok(answer) = answer {
                    take(world, &mut screen, answer);
                }
                None
            }
            () = signals.next() => break Ok(()),
            failed = world.embedded.failed() => break Err(host::broken(&failed)),
        };
        if let Some(key) = key
            && !press(world, &mut screen, &mut asked, key)
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

/// Asks the hosts how they are, so that a slow answer never holds up a frame. What any host can tell,
/// also while nobody leads, is asked apart from what takes a leader.
fn watch_host(client: Client) -> (JoinHandle<((), ())>, watch::Receiver<Seen>) {
    let (tell, seen) = watch::channel(Seen::default());
    let task = tokio::spawn(async move {
        tokio::join!(watch_group(&client, &tell), watch_rest(&client, &tell))
    });
    (task, seen)
}

async fn watch_group(client: &Client, tell: &watch::Sender<Seen>) {
    let mut ticks = interval(FRAME);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        let (members, status) = tokio::join!(client.members(), client.status());
        tell.send_modify(|seen| {
            seen.members = members.ok().or(seen.members.take());
            seen.status = status.ok().or(seen.status.take());
        });
    }
}

async fn watch_rest(client: &Client, tell: &watch::Sender<Seen>) {
    let mut ticks = interval(FRAME);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        let answer = tokio::try_join!(client.nodes(), client.types());
        tell.send_modify(|seen| match answer {
            Ok((mut nodes, types)) => {
                nodes.sort_by(|a, b| a.name.cmp(&b.name));
                seen.nodes = nodes;
                seen.types = types;
                seen.problem = None;
            }
            Err(error) => seen.problem = Some(Failure::from(error).message),
        });
    }
}

/// Carries a key out; false: end. What takes a host's answer is asked for, and taken later.
fn press(
    world: &mut World,
    screen: &mut Screen,
    asked: &mut JoinSet<Answer>,
    key: KeyEvent,
) -> bool {
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
        KeyCode::Char('d' | 's' | 'e') if !asked.is_empty() => {
            screen.say("the last question is not answered yet".to_owned());
        }
        KeyCode::Char('d') => {
            if let Some(drain) = world.fleet.drain(screen.selected) {
                asked.spawn(async { Answer::Drained(drain.await) });
                screen.say("asking…".to_owned());
            }
        }
        KeyCode::Char('s') => {
            let swap = world.rules.swap(world.client.clone());
            asked.spawn(async { Answer::Swapped(swap.await) });
            screen.say("asking…".to_owned());
        }
        KeyCode::Char('e') => screen.popup = Some(explain(world, asked)),
        KeyCode::Char(' ') => {
            let paused = world.work.pause();
            screen.say(if paused { "paused" } else { "going on" }.to_owned());
        }
        _ => {}
    }
    true
}

/// Takes an answer in.
fn take(world: &mut World, screen: &mut Screen, answer: Answer) {
    let said = match answer {
        Answer::Explained(popup) => {
            // Unless nobody waits for it any more.
            if matches!(screen.popup, Some(Popup::Asking(_))) {
                screen.popup = Some(popup);
            }
            return;
        }
        Answer::Drained(Ok(drained)) => world.fleet.drained(&drained),
        Answer::Drained(Err(problem)) => problem,
        Answer::Swapped(Ok(swapped)) => world.rules.swapped(swapped),
        Answer::Swapped(Err(error)) => Failure::from(error).message,
    };
    screen.say(said);
}

/// Asks for the last placement's explanation; what is shown until it comes.
fn explain(world: &World, asked: &mut JoinSet<Answer>) -> Popup {
    let last = world
        .stats
        .lock()
        .recent
        .front()
        .map(|placement| placement.key.clone());
    let Some(key) = last else {
        return Popup::Text("nothing has been placed yet".to_owned());
    };
    let asking = Popup::Asking(format!("asking why {key} is where it is…"));
    let client = world.client.clone();
    asked.spawn(async move {
        Answer::Explained(match client.explain(&key).await {
            Ok(explanation) => Popup::Explained(Box::new(explanation)),
            Err(error) => Popup::Text(format!("{key}: {}", Failure::from(error).message)),
        })
    });
    asking
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
