//! A group of hosts as processes, each behind a relay of its own, and what tests do with it.
//!
//! Only so many groups run at a time, however many tests do: the machine is small, and a host
//! that gets no time to run is another test. When a test fails, the ends of all hosts' logs are
//! shown.

mod diary;
pub(crate) mod game;
pub(crate) mod load;
mod machine;

use std::path::Path;
use std::time::{Duration, Instant};

use maitred_client::{Client, Identity};
use maitred_protocol::{HostName, MemberRole, Members, Status};
use maitred_tests::relay::{Faults, Lane, Who};
use maitred_transport::{Authority, IssueKind};
use tokio::sync::{Semaphore, SemaphorePermit};

pub(crate) use machine::Machine;

/// How long anything may take that is waited for; generous, because machines that run tests are
/// busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);
/// Between two looks at what is waited for.
pub(crate) const LOOK: Duration = Duration::from_millis(20);

/// Groups that run at a time.
static GROUPS: Semaphore = Semaphore::const_new(2);

/// The seed of a test: `SEED`, or another one in every run.
pub(crate) fn seed() -> u64 {
    let given = std::env::var("SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or_else(|| std::process::id().into());
    println!("SEED={seed} replays the choices");
    seed
}

/// What a group is started with.
#[derive(Default)]
pub(crate) struct Options {
    /// Flags of each host in turn; none for those that are not named.
    pub(crate) flags: Vec<Vec<String>>,
    /// A configuration file for all of them.
    pub(crate) config: Option<&'static str>,
}

/// How a program ended, and what it said.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ended {
    /// Its answer as a document; it must have succeeded.
    pub(crate) fn json(&self) -> serde_json::Value {
        assert_eq!(self.code, Some(0), "{self:?}");
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

pub(crate) struct Group {
    pub(crate) machines: Vec<Machine>,
    pub(crate) authority: Authority,
    seed: u64,
    config: Option<&'static str>,
    folder: tempfile::TempDir,
    _permit: SemaphorePermit<'static>,
}

impl Group {
    /// Starts three hosts: the first founds a cluster, the others join it. All vote when it returns.
    pub(crate) async fn start(seed: u64, options: Options) -> Self {
        Self::start_of(3, seed, options).await
    }

    pub(crate) async fn start_of(hosts: usize, seed: u64, options: Options) -> Self {
        let permit = GROUPS.acquire().await.unwrap();
        let begun = Instant::now();
        let authority = Authority::generate("test group").unwrap();
        let mut group = Self {
            machines: Vec::new(),
            authority,
            seed,
            config: options.config,
            folder: tempfile::tempdir().unwrap(),
            _permit: permit,
        };
        group.write_client_files();
        if let Some(config) = group.config {
            std::fs::write(group.folder.path().join("hosts.toml"), config).unwrap();
        }
        for (index, name) in ["a", "b", "c", "d", "e"]
            .into_iter()
            .take(hosts)
            .enumerate()
        {
            let at = group.add(name).await;
            let flags = options.flags.get(index).cloned().unwrap_or_default();
            group.machines[at].flags.extend(flags);
            group.machines[at].spawn();
        }
        let client = group.client().await;
        group.whole(&client).await;
        group.modules_are_active(&client).await;
        println!("{hosts} hosts are up after {:.1?}", begun.elapsed());
        group
    }

    /// Another machine, whose host is not started. It is to join those that there are.
    pub(crate) async fn add(&mut self, name: &str) -> usize {
        let index = self.machines.len();
        let seed = self.seed.wrapping_add(index as u64);
        let mut machine = Machine::new(self.folder.path(), name, &self.authority, seed).await;
        if index > 0 {
            machine.flags = self.joins(index);
        }
        if self.config.is_some() {
            let path = self.folder.path().join("hosts.toml");
            let path = path.to_str().unwrap().to_owned();
            machine.flags.extend(["--config".to_owned(), path]);
        }
        self.machines.push(machine);
        index
    }

    /// The flags with which that machine's host joins the others.
    pub(crate) fn joins(&self, at: usize) -> Vec<String> {
        let others = self.addresses().into_iter().enumerate();
        let others = others.filter(|(other, _)| *other != at);
        let others: Vec<String> = others.map(|(_, address)| address).collect();
        vec!["--join".to_owned(), others.join(",")]
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn addresses(&self) -> Vec<String> {
        let machines = self.machines.iter();
        machines
            .map(|machine| machine.address().to_string())
            .collect()
    }

    fn write_client_files(&self) {
        let issued = self
            .authority
            .issue("test", IssueKind::Client, &[], &[], 2)
            .unwrap();
        let path = |name: &str| self.folder.path().join(name);
        std::fs::write(path("ca.pem"), self.authority.cert_pem()).unwrap();
        std::fs::write(path("client.pem"), issued.cert_pem).unwrap();
        std::fs::write(path("client.key"), issued.key_pem).unwrap();
    }

    pub(crate) fn identity(&self) -> Identity {
        self.authority
            .identity("test", IssueKind::Client, 2)
            .unwrap()
    }

    /// A client that waits for as long as the test does.
    pub(crate) async fn client(&self) -> Client {
        self.client_within(PATIENCE).await
    }

    /// A client whose requests may take so long.
    pub(crate) async fn client_within(&self, timeout: Duration) -> Client {
        self.connect(self.addresses(), timeout).await
    }

    /// A client of one machine, which may be of another cluster.
    pub(crate) async fn client_of(&self, machine: &Machine) -> Client {
        let address = machine.address().to_string();
        self.connect(vec![address], PATIENCE).await
    }

    async fn connect(&self, endpoints: Vec<String>, timeout: Duration) -> Client {
        let client = Client::builder()
            .endpoints(endpoints)
            .identity(self.identity())
            .connect_timeout(PATIENCE)
            .request_timeout(timeout)
            .create_timeout(timeout)
            .connect();
        client.await.unwrap_or_else(|error| panic!("{error}"))
    }

    /// Runs the program as an operator would, against all hosts that there are.
    pub(crate) async fn cli(&self, args: &[&str]) -> Ended {
        self.operator(args).await
    }

    /// The same for one who goes on while the group is changed.
    pub(crate) fn operator(&self, args: &[&str]) -> impl Future<Output = Ended> + Send + use<> {
        let path = |name: &str| self.folder.path().join(name);
        let mut command = tokio::process::Command::new(crate::host::program());
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("MAITRED_") {
                command.env_remove(name);
            }
        }
        command
            .args(args)
            .args(["-o", "json", "--timeout", "60s"])
            .args(["--endpoint", &self.addresses().join(",")])
            .arg("--ca")
            .arg(path("ca.pem"))
            .arg("--cert")
            .arg(path("client.pem"))
            .arg("--key")
            .arg(path("client.key"))
            .env("XDG_CONFIG_HOME", path("config"))
            .env("XDG_RUNTIME_DIR", path("run"))
            .env("NO_COLOR", "1")
            .stdin(std::process::Stdio::null())
            .kill_on_drop(true);
        let what = args.join(" ");
        async move {
            let output = tokio::time::timeout(PATIENCE, command.output()).await;
            let output = output.unwrap_or_else(|_| panic!("{what} does not end"));
            let output = output.unwrap();
            Ended {
                code: output.status.code(),
                out: String::from_utf8(output.stdout).unwrap(),
                err: String::from_utf8(output.stderr).unwrap(),
            }
        }
    }

    /// What the running hosts say of themselves, in the order of the machines; none for those that
    /// do not answer.
    pub(crate) async fn statuses(&self, client: &Client) -> Vec<Option<Status>> {
        let mut all = client.status_all().await;
        let mut take = |machine: &Machine| {
            let address = machine.address().to_string();
            let one = all.iter_mut().find(|one| one.endpoint == address)?;
            one.status.as_ref().ok().cloned()
        };
        self.machines.iter().map(&mut take).collect()
    }

    /// Waits until every host that runs votes, all follow the same leader, and each has applied what
    /// was committed when this was asked; the leader's machine, and what they say.
    pub(crate) async fn whole(&self, client: &Client) -> (usize, Vec<Status>) {
        let mut goal = None;
        let begun = Instant::now();
        loop {
            let statuses = self.statuses(client).await;
            if let Some(found) = self.is_whole(&statuses, &mut goal) {
                return found;
            }
            let late = begun.elapsed() > PATIENCE;
            assert!(!late, "the hosts do not find together: {statuses:#?}");
            tokio::time::sleep(LOOK).await;
        }
    }

    fn is_whole(
        &self,
        statuses: &[Option<Status>],
        goal: &mut Option<u64>,
    ) -> Option<(usize, Vec<Status>)> {
        let machines = self.machines.iter().zip(statuses);
        let running = machines.filter(|(machine, _)| machine.runs());
        let running: Option<Vec<Status>> = running.map(|(_, status)| status.clone()).collect();
        let running = running?;
        let leads = |status: &&Status| status.role == "leader";
        let leader = running.iter().filter(leads).max_by_key(|one| one.term)?;
        let goal = *goal.get_or_insert(leader.commit);
        let follows = |status: &Status| {
            status.leader == Some(leader.host)
                && status.term == leader.term
                && ["leader", "follower"].contains(&status.role.as_str())
                && status.applied >= goal
        };
        let voters = leader.members.iter();
        let voters = voters.filter(|member| member.role == MemberRole::Voter);
        // One that is only being let in does not follow in the leader's own eyes.
        let all_vote = voters.count() >= running.len();
        if !all_vote || !running.iter().all(follows) {
            return None;
        }
        let is_leader =
            |status: &Option<Status>| status.as_ref().is_some_and(|one| one.host == leader.host);
        let at = statuses.iter().position(is_leader)?;
        Some((at, running))
    }

    async fn modules_are_active(&self, client: &Client) {
        let begun = Instant::now();
        loop {
            let modules = client.modules().await.unwrap_or_default();
            let active = modules.iter().filter(|module| module.active.is_some());
            if active.count() >= 6 {
                return;
            }
            let late = begun.elapsed() > PATIENCE;
            assert!(
                !late,
                "the standard modules do not become active: {modules:?}"
            );
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Waits until the members are as wished.
    pub(crate) async fn members(
        &self,
        client: &Client,
        what: &str,
        wished: impl Fn(&Members) -> bool,
    ) -> Members {
        let begun = Instant::now();
        loop {
            let members = client.members().await;
            if let Ok(members) = &members
                && wished(members)
            {
                return members.clone();
            }
            let late = begun.elapsed() > PATIENCE;
            assert!(!late, "{what}: {members:#?}");
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Cuts both ways between two hosts.
    pub(crate) fn cut(&self, one: usize, other: usize) {
        for (dialed, dials) in [(one, other), (other, one)] {
            let source = Who::Source(self.machines[dials].source());
            let relay = &self.machines[dialed].relay;
            relay.faults(source, Faults::both(Lane::dead()));
        }
    }

    /// Cuts the way from one host to another, and not the way back. What one sends to the other goes over
    /// connections that either has dialed. Cut one way at a time between two hosts.
    pub(crate) fn cut_way(&self, from: usize, to: usize) {
        let [sender, receiver] = [from, to].map(|at| &self.machines[at]);
        let dialed = Faults {
            to_target: Lane::dead(),
            ..Faults::default()
        };
        let source = Who::Source(sender.source());
        receiver.relay.faults(source, dialed);
        let answered = Faults {
            from_target: Lane::dead(),
            ..Faults::default()
        };
        let source = Who::Source(receiver.source());
        sender.relay.faults(source, answered);
    }

    /// The same for everybody, on all ways.
    pub(crate) fn everywhere(&self, lane: Lane) {
        for machine in &self.machines {
            machine.relay.faults(Who::Everyone, Faults::both(lane));
        }
    }

    pub(crate) fn heal(&self) {
        self.machines
            .iter()
            .for_each(|machine| machine.relay.heal());
    }
}

/// A host's name.
pub(crate) fn host_name(name: &str) -> HostName {
    HostName::new(name).unwrap()
}

impl Drop for Group {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for machine in &self.machines {
                println!("{}", machine.log());
            }
        }
    }
}
