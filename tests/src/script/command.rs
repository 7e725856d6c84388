//! The commands of a script.
//!
//! Requests. Each is numbered; `seq=N` repeats the idempotency key of an earlier one, `client=N`
//! uses another session. An answer that comes at once is shown as `= …`, a later one as `#3 …`.
//! ```text
//! create KEY [conflict=return|fail|wait] [deadline=MS] [attempts=N] [back-off=MS] [demand=N]
//!            [group=G] [require=k:v,…] [selector=M] [callback=M]      also: plan KEY …
//! set KEY NODE PID [share=TEXT] [inc=N] [epoch=N]      del KEY [inc=N]      get KEY      stale KEY
//! list [type=T] [prefix=P] [node=N] [after=KEY] [limit=N]             explain KEY
//! node NAME [capacity=N] [types=a,b] [labels=k:v,…] [ttl=MS] [inventory=KEY@INC,…]
//! attach NAME [epoch=N] [inventory=…]     update NAME [capacity=N] [labels=…] [share=TEXT]
//! deregister NAME [epoch=N]     cordon NAME     uncordon NAME     nodes
//! push NAME selector|callback TEXT     activate NAME [version=N] [config=JSON] [percent=N] [types=a,b]
//!            [guard=RULE]     rollback NAME     history NAME     shadow NAME [version=N]
//! remove NAME [version=N]     modules
//! type NAME [selector=M] [callback=M] [lost=forget|recreate] [attempts=N] [back-off=MS] [deadline=MS]
//! types     session     status
//! ```
//! What happens besides.
//! ```text
//! started KEY [pid=P]     busy KEY [CAUSE]     give-up KEY [CAUSE]     started KEY inc=N (a late one)
//! alive NAME [seq=N]      pass MS [alive=a,b: these nodes renew every second]
//! hold select|persist     release select|persist     crash     lose N (entries, in a crash)
//! disk low|ok             snapshots fail|succeed     shutdown
//! guard active|canary NAME CAUSE (its rule has come true)
//! ```
//! About the script itself.
//! ```text
//! config [snapshot-entries=N] [creates-max=N] [uncommitted-bytes-max=N]   before anything else
//! show events             changes are traced from here on
//! ```

use std::collections::{BTreeMap, BTreeSet};

use maitred_protocol::{
    ClientId, Incarnation, ModuleKind, ModuleName, NodeEpoch, NodeName, Response,
};
use maitred_replica::{Disk, Input, Spawned};

use super::format;
use super::request::request;
use super::words::{Words, key};
use crate::driver::{Driver, Seen};

/// A replica and what the script knows of it.
#[derive(Debug)]
pub struct Stage {
    driver: Option<Driver>,
    epochs: BTreeMap<NodeName, NodeEpoch>,
    beats: BTreeMap<NodeEpoch, u64>,
    waiting: BTreeSet<u64>,
    last_ticket: u64,
    show_events: bool,
}

impl Default for Stage {
    fn default() -> Self {
        Self::new()
    }
}

impl Stage {
    /// A host with the standard modules, and nothing else.
    #[must_use]
    pub fn new() -> Self {
        Self {
            driver: Some(Driver::ready(Driver::config())),
            epochs: BTreeMap::new(),
            beats: BTreeMap::new(),
            waiting: BTreeSet::new(),
            last_ticket: 0,
            show_events: false,
        }
    }

    /// Requests that have no answer yet.
    #[must_use]
    pub fn unanswered(&self) -> Vec<u64> {
        self.waiting.iter().copied().collect()
    }

    /// Carries a command out; returns what was seen.
    ///
    /// # Errors
    /// What is wrong with the command.
    pub fn command(&mut self, line: &str) -> Result<Vec<String>, String> {
        let mut words = Words::new(line);
        let verb = words.next()?;
        let before = self.last_ticket;
        let mut lines = Vec::new();
        if !self.happening(verb, &mut words, &mut lines)? {
            self.ask(verb, &mut words)?;
        }
        words.end()?;
        lines.extend(self.trace(before));
        Ok(lines)
    }

    fn driver(&mut self) -> Result<&mut Driver, String> {
        self.driver
            .as_mut()
            .ok_or_else(|| "the host is down".to_owned())
    }

    /// What was seen since the last command; `before` is the last ticket of the one before.
    fn trace(&mut self, before: u64) -> Vec<String> {
        let Some(driver) = &mut self.driver else {
            return Vec::new();
        };
        let mut lines = Vec::new();
        for seen in std::mem::take(&mut driver.seen) {
            if let Seen::Reply(ticket, response) = &seen {
                self.waiting.remove(ticket);
                if let Response::Session(client) = **response {
                    driver.client = client;
                }
            }
            format::seen(&seen, before, self.show_events, &mut lines);
        }
        for ticket in self.waiting.range(before + 1..) {
            lines.push(format!("#{ticket} waits"));
        }
        for node in driver.replica.registry().nodes() {
            self.epochs.insert((*node.name).clone(), node.epoch());
        }
        lines
    }

    /// What is not a request; false when the verb is none of these.
    fn happening(
        &mut self,
        verb: &str,
        words: &mut Words<'_>,
        lines: &mut Vec<String>,
    ) -> Result<bool, String> {
        match verb {
            "started" | "busy" | "unanswered" | "give-up" => self.spawned(verb, words)?,
            "alive" => {
                let name: NodeName = words.next_as()?;
                let sequence = words.take("seq")?;
                self.alive(&name, sequence)?;
            }
            "pass" => {
                let ms = words.next_as()?;
                self.pass(ms, &words.list("alive")?)?;
            }
            "hold" | "release" => self.hold(verb == "hold", words.next()?)?,
            "crash" => self.crash(0, lines)?,
            "lose" => self.crash(words.next_as()?, lines)?,
            "disk" => {
                let low = words.next()? == "low";
                let disk = if low { Disk::Low(3 << 20) } else { Disk::Ok };
                self.driver()?.step(Input::Disk(disk));
            }
            "snapshots" => self.driver()?.disc.full = words.next()? == "fail",
            "shutdown" => self.driver()?.step(Input::Shutdown),
            "guard" => self.guard(words)?,
            "config" => self.configure(words)?,
            "show" => self.show_events = words.next()? == "events",
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// The rule of what decides now has come true, as whoever watches says.
    fn guard(&mut self, words: &mut Words<'_>) -> Result<(), String> {
        let (which, name): (&str, ModuleName) = (words.next()?, words.next_as()?);
        let cause = words.rest();
        let registry = self.driver()?.replica.registry();
        let watched = match which {
            "canary" => registry.canary_module(&name),
            _ => registry.active_module(&name, ModuleKind::Selector).ok(),
        };
        let activated = watched.ok_or_else(|| format!("{name} has none"))?.activated;
        // It is said again for as long as it is so.
        for _ in 0..2 {
            let (name, cause) = (name.clone(), cause.clone());
            self.driver()?.step(Input::Guarded {
                name,
                activated,
                cause,
            });
        }
        Ok(())
    }

    fn configure(&mut self, words: &mut Words<'_>) -> Result<(), String> {
        let mut config = Driver::config();
        let entries = words.take("snapshot-entries")?;
        config.snapshot_entries = entries.unwrap_or(config.snapshot_entries);
        config.creates_max = words.take("creates-max")?.unwrap_or(config.creates_max);
        let bytes = words.take("uncommitted-bytes-max")?;
        config.uncommitted_bytes_max = bytes.unwrap_or(config.uncommitted_bytes_max);
        self.driver = Some(Driver::ready(config));
        Ok(())
    }

    fn spawned(&mut self, verb: &str, words: &mut Words<'_>) -> Result<(), String> {
        let key = key(words.next()?)?;
        let late: Option<u64> = words.take("inc")?;
        let pid: Option<String> = words.take("pid")?;
        let cause = words.rest();
        let result = match verb {
            "started" => Spawned::Started {
                pid: pid.unwrap_or_else(|| "p".to_owned()),
                share: Vec::new(),
            },
            "busy" | "unanswered" => Spawned::Elsewhere(cause),
            _ => Spawned::GiveUp(cause),
        };
        let over = verb != "started" && verb != "unanswered";
        let driver = self.driver()?;
        if let Some(incarnation) = late.map(Incarnation) {
            driver.step(Input::Spawned {
                key,
                incarnation,
                result,
                over,
            });
        } else if !driver.spawned(&key, result, over) {
            return Err(format!("{key} is not being started"));
        }
        Ok(())
    }

    fn alive(&mut self, name: &NodeName, sequence: Option<u64>) -> Result<(), String> {
        let epoch = self.epochs.get(name).copied().unwrap_or_default();
        let beat = self.beats.entry(epoch).or_insert(0);
        *beat = sequence.unwrap_or(*beat + 1);
        let beat = *beat;
        self.driver()?.keep_alive(epoch, beat);
        Ok(())
    }

    fn pass(&mut self, ms: u64, alive: &[NodeName]) -> Result<(), String> {
        if alive.is_empty() {
            self.driver()?.pass(ms);
            return Ok(());
        }
        let mut left = ms;
        while left > 0 {
            let part = left.min(1_000);
            self.driver()?.pass(part);
            left -= part;
            for name in alive {
                self.alive(name, None)?;
            }
        }
        // These are the script's own doing; only what is out of the ordinary is shown.
        let is_usual = |seen: &Seen| matches!(seen, Seen::Ack(ack) if ack.alive);
        self.driver()?.seen.retain(|seen| !is_usual(seen));
        Ok(())
    }

    fn hold(&mut self, hold: bool, what: &str) -> Result<(), String> {
        let driver = self.driver()?;
        match (what, hold) {
            ("select", true) => driver.hold_select = true,
            ("select", false) => driver.release_selects(),
            ("stop", true) => driver.hold_stop = true,
            ("stop", false) => driver.release_stops(),
            ("persist", true) => driver.hold_persist = true,
            ("persist", false) => driver.release_persists(),
            _ => return Err(format!("what is {what}?")),
        }
        Ok(())
    }

    fn crash(&mut self, lost: usize, lines: &mut Vec<String>) -> Result<(), String> {
        let Some(mut driver) = self.driver.take() else {
            return Err("the host is down".to_owned());
        };
        driver.disc.lose_entries(lost);
        for ticket in std::mem::take(&mut self.waiting) {
            lines.push(format!("#{ticket} is not answered"));
        }
        match driver.crash() {
            Ok(driver) => self.driver = Some(driver),
            Err(error) => lines.push(format!("refuses to start: {error}")),
        }
        Ok(())
    }

    /// A request.
    fn ask(&mut self, verb: &str, words: &mut Words<'_>) -> Result<(), String> {
        self.last_ticket += 1;
        let ticket = self.last_ticket;
        let of: Option<u64> = words.take("seq")?;
        let sequence = 100 + of.unwrap_or(ticket);
        let client: Option<u64> = words.take("client")?;
        let client = client.map_or(self.driver()?.client, ClientId);
        if verb == "push" {
            let (name, kind, text) = (words.next_as()?, words.next()?, words.rest());
            let kind = match kind {
                "selector" => ModuleKind::Selector,
                _ => ModuleKind::Callback,
            };
            self.waiting.insert(ticket);
            self.driver()?.push(ticket, sequence, name, kind, &text);
            return Ok(());
        }
        let request = request(verb, client, &self.epochs, words)?;
        request.check().map_err(|error| error.to_string())?;
        self.waiting.insert(ticket);
        self.driver()?.request(ticket, sequence, request);
        Ok(())
    }
}
