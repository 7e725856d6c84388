//! What an operator may set, with its unit in its name, its default and its bounds.
//!
//! A file is TOML; every field may be left out, and a field that does not exist is refused, since a
//! misspelt limit is no limit. The caller lays its flags over what the file says and starts the
//! server, which validates the whole.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use maitred_protocol::limits::MODULE_BYTES_MAX;
use maitred_sandbox::{CompilerCommand, Limits as GuestLimits};
use maitred_storage::{SpaceLimits, SpaceProbe};
use maitred_transport::Identity;
use serde::Deserialize;

use crate::cluster_config::{FailoverConfig, RaftTimes};

/// Bytes of a module when the operator allows large ones.
const LARGE_MODULE_BYTES: u64 = 24 << 20;

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {}: {source}; check the path and its permissions", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The text is not a configuration.
    #[error("{place} is not a configuration: {problem}")]
    Syntax {
        /// The file, or `the given text`.
        place: String,
        /// What is wrong, with line and column.
        problem: String,
    },
    /// A field has no usable value.
    #[error("the setting {field} {problem}")]
    Field {
        /// Its name, as in the file.
        field: &'static str,
        /// What it must be, as the end of a sentence.
        problem: String,
    },
}

/// The settings of one host.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServerConfig {
    /// Where everything durable is kept; made when it is absent. Must be given.
    pub data_dir: PathBuf,
    /// This host's name, unique in its cluster: 1 to 64 of `A-Z a-z 0-9 . _ -`. The machine's name
    /// when empty. A data directory keeps the name that it was made with.
    pub name: String,
    /// Hosts of the cluster to belong to, as `HOST:PORT`: a host on a new data directory asks them to
    /// let it in. Without any it founds a cluster of its own.
    pub join: Vec<String>,
    /// Where peers and clients reach this host, as `HOST:PORT`; port 0 stands for the one that it
    /// listens on. The address that it listens on, if that is one.
    pub advertise: Option<String>,
    /// The UDP address for clients and nodes. `127.0.0.1:7600`; port 0 for any free one.
    pub listen: SocketAddr,
    /// The TCP address of `/metrics`, `/livez` and `/readyz`; none by default. It asks nobody who
    /// they are, so it belongs on a loopback or otherwise trusted network.
    pub http: Option<SocketAddr>,
    /// Who this host is. Must be given, unless `identity` is.
    pub tls: TlsFiles,
    /// Whether a new group gets the standard selectors, the fence `witness` and the
    /// callback `start`. True.
    pub standard_modules: bool,
    /// Whether modules of up to 24 MiB may be uploaded, as those in JavaScript and Python are;
    /// otherwise 4 MiB. False.
    pub allow_large_modules: bool,
    /// A file of public keys, as `maitred module keygen` writes them, 1 to 64: only modules that one
    /// of them has signed are taken and run, besides the standard ones. Without it, signatures are
    /// optional. None.
    pub require_signed: Option<PathBuf>,
    /// Connections at a time; more are refused. 20,000.
    pub connections_max: usize,
    /// Milliseconds that answers under way may take to be read when the host shuts down. 5,000. A
    /// client of which nothing is heard is not waited for; uploads under way are broken off.
    pub shutdown_ms: u64,
    /// Whether to start although the end of the log is damaged and acknowledged changes may be in
    /// it. Only for the last host of a group without a backup. False.
    pub accept_damaged_tail: bool,
    /// Bytes of decisions kept for `explain`; the oldest go first. 64 MiB.
    pub decisions_bytes: u64,
    /// Bytes of inputs of decisions kept for replay, while this host leads; the oldest go first. 64
    /// MiB; 0 to keep none.
    pub inputs_bytes: u64,
    /// Raft's times.
    pub raft: RaftTimes,
    /// How fast what lost nodes had is created again.
    pub failover: FailoverConfig,
    /// Whether a leader answers reads on the strength of its lease; see
    /// [`maitred_replica::Config::lease_reads`] for what that rests on. False.
    pub lease_reads: bool,
    /// The highest level of replicated commands that this host says it can carry out; lower than what
    /// the program knows keeps a way back during an upgrade.
    pub level_max: u16,
    /// Bytes a second of snapshots that are sent to other hosts. 256 MiB.
    pub bulk_bytes_per_s: u64,
    /// When snapshots are taken.
    pub snapshot: SnapshotConfig,
    /// When the disk counts as nearly full.
    pub disk: DiskConfig,
    /// What modules may use.
    pub guests: GuestConfig,
    /// Who this host is, instead of `tls`: for programs that make it up.
    #[serde(skip)]
    pub identity: Option<Identity>,
    /// How to start the process that compiles modules; by default this very program with the one
    /// argument `internal-compile`, which must call [`crate::compile_child`].
    #[serde(skip)]
    pub compiler: Option<CompilerCommand>,
    /// How the room on the disk is measured; by default the system is asked.
    #[serde(skip)]
    pub space_probe: Option<SpaceProbe>,
    /// Program and version, for `status` and for clients.
    #[serde(skip)]
    pub build: String,
}

/// Files in PEM form.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TlsFiles {
    /// The certificate of the group's authority.
    pub ca: PathBuf,
    /// This host's certificate.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// A snapshot is taken when either has gone into the log since the last one.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SnapshotConfig {
    /// Entries; at least 1,000. 200,000.
    pub entries: u64,
    /// Bytes of entries; at least 1 MiB. 128 MiB.
    pub bytes: u64,
}

/// See [`SpaceLimits`], which has the defaults.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DiskConfig {
    /// Creates are shed below this many free bytes.
    pub low_bytes: u64,
    /// Creates are shed below this part of the file system, in percent; at most 50.
    pub low_percent: u8,
    /// Nothing is written below this many free bytes; at most `low_bytes`.
    pub full_bytes: u64,
}

/// The limits on modules that an operator may change; see [`GuestLimits`], which has the defaults.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GuestConfig {
    /// Bytes of all memories of one instance.
    pub memory_bytes: usize,
    /// Milliseconds for one decision.
    pub select_ms: u64,
    /// Milliseconds for making an instance, and for `describe`.
    pub describe_ms: u64,
    /// Milliseconds of computing in one spawn.
    pub spawn_ms: u64,
    /// Milliseconds of computing in one examination of a lost node.
    pub examine_ms: u64,
    /// Callbacks at work at a time, of one callback at most half of them.
    pub callback_instances: u32,
    /// Fences at work at a time, of one fence at most half of them.
    pub fence_instances: u32,
    /// Modules loaded at a time.
    pub modules: usize,
    /// Bytes of compiled modules that are kept on disk.
    pub compiled_bytes: u64,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            data_dir: PathBuf::new(),
            name: String::new(),
            join: Vec::new(),
            advertise: None,
            listen: (Ipv4Addr::LOCALHOST, 7600).into(),
            http: None,
            tls: TlsFiles::default(),
            standard_modules: true,
            allow_large_modules: false,
            require_signed: None,
            connections_max: 20_000,
            shutdown_ms: 5_000,
            accept_damaged_tail: false,
            decisions_bytes: 64 << 20,
            inputs_bytes: 64 << 20,
            raft: RaftTimes::default(),
            failover: FailoverConfig::default(),
            lease_reads: false,
            level_max: maitred_replica::LEVEL_MAX,
            bulk_bytes_per_s: 256 << 20,
            snapshot: SnapshotConfig::default(),
            disk: DiskConfig::default(),
            guests: GuestConfig::default(),
            identity: None,
            compiler: None,
            space_probe: None,
            build: concat!("maitred ", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }
}

impl Default for SnapshotConfig {
    fn default() -> Self {
        let defaults = maitred_replica::Config::new(1);
        Self {
            entries: defaults.snapshot_entries,
            bytes: defaults.snapshot_bytes,
        }
    }
}

impl Default for DiskConfig {
    fn default() -> Self {
        let defaults = SpaceLimits::default();
        Self {
            low_bytes: defaults.low_bytes,
            low_percent: defaults.low_percent,
            full_bytes: defaults.full_bytes,
        }
    }
}

impl Default for GuestConfig {
    fn default() -> Self {
        let defaults = GuestLimits::default();
        Self {
            memory_bytes: defaults.memory_bytes,
            select_ms: defaults.select_ms,
            describe_ms: defaults.describe_ms,
            spawn_ms: defaults.spawn_ms,
            examine_ms: defaults.examine_ms,
            callback_instances: defaults.callback_instances,
            fence_instances: defaults.fence_instances,
            modules: defaults.modules,
            compiled_bytes: defaults.compile.cache_bytes,
        }
    }
}

impl ServerConfig {
    /// Reads a TOML text. Bounds are checked by [`ServerConfig::validate`], once flags have been
    /// laid over it.
    ///
    /// # Errors
    /// [`ConfigError::Syntax`], with line and column.
    pub fn from_toml(text: &str) -> Result<Self, ConfigError> {
        Self::parse("the given text", text)
    }

    /// Reads a TOML file, as [`ServerConfig::from_toml`].
    ///
    /// # Errors
    /// [`ConfigError::File`] and [`ConfigError::Syntax`].
    pub fn from_file(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::File {
            path: path.to_owned(),
            source,
        })?;
        Self::parse(&path.display().to_string(), &text)
    }

    fn parse(place: &str, text: &str) -> Result<Self, ConfigError> {
        toml::from_str(text).map_err(|error| ConfigError::Syntax {
            place: place.to_owned(),
            problem: error.to_string(),
        })
    }

    /// Checks every bound.
    ///
    /// # Errors
    /// [`ConfigError::Field`] names the setting and what it must be.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let tls = &self.tls;
        let given = |path: &Path| self.identity.is_some() || !path.as_os_str().is_empty();
        let (snapshot, disk) = (&self.snapshot, &self.disk);
        let rules: [(bool, &'static str, &str); 12] = [
            (
                !self.data_dir.as_os_str().is_empty(),
                "data_dir",
                "must be given: the directory for everything durable",
            ),
            (
                given(&tls.ca),
                "tls.ca",
                "must be given: the certificate of the group's authority",
            ),
            (
                given(&tls.cert),
                "tls.cert",
                "must be given: this host's certificate",
            ),
            (
                given(&tls.key),
                "tls.key",
                "must be given: the key of this host's certificate",
            ),
            (self.connections_max > 0, "connections_max", "must not be 0"),
            (
                self.shutdown_ms <= 600_000,
                "shutdown_ms",
                "must be at most 600,000",
            ),
            (
                self.decisions_bytes >= 1 << 20,
                "decisions_bytes",
                "must be at least 1,048,576",
            ),
            (
                self.inputs_bytes == 0 || self.inputs_bytes >= 1 << 20,
                "inputs_bytes",
                "must be at least 1,048,576, or 0 for none",
            ),
            (
                snapshot.entries >= 1_000,
                "snapshot.entries",
                "must be at least 1,000",
            ),
            (
                snapshot.bytes >= 1 << 20,
                "snapshot.bytes",
                "must be at least 1,048,576",
            ),
            (
                disk.low_percent <= 50,
                "disk.low_percent",
                "must be at most 50",
            ),
            (
                disk.full_bytes <= disk.low_bytes,
                "disk.full_bytes",
                "must be at most disk.low_bytes",
            ),
        ];
        if let Some((_, field, problem)) = rules.into_iter().find(|(holds, ..)| !holds) {
            let problem = problem.to_owned();
            return Err(ConfigError::Field { field, problem });
        }
        self.validate_cluster()?;
        self.guest_limits()
            .check()
            .map_err(|error| ConfigError::Field {
                field: "guests",
                problem: format!("cannot be used: {error}"),
            })
    }

    /// Bytes of a module that may be uploaded.
    #[must_use]
    pub(crate) fn upload_bytes(&self) -> u64 {
        let _: () = const { assert!(LARGE_MODULE_BYTES <= MODULE_BYTES_MAX) };
        if self.allow_large_modules {
            LARGE_MODULE_BYTES
        } else {
            GuestLimits::default().upload_bytes
        }
    }

    pub(crate) fn guest_limits(&self) -> GuestLimits {
        let mut limits = GuestLimits::default();
        let guests = &self.guests;
        limits.upload_bytes = self.upload_bytes();
        limits.memory_bytes = guests.memory_bytes;
        limits.select_ms = guests.select_ms;
        limits.describe_ms = guests.describe_ms;
        // What a lane runs a rehearsal runs, though counting fuel slows it down.
        let calls_ms = guests.select_ms.saturating_add(guests.describe_ms);
        limits.rehearsal_ms = limits.rehearsal_ms.max(calls_ms.saturating_mul(3));
        limits.spawn_ms = guests.spawn_ms;
        limits.examine_ms = guests.examine_ms;
        limits.callback_instances = guests.callback_instances;
        limits.fence_instances = guests.fence_instances;
        limits.modules = guests.modules;
        limits.compile.cache_bytes = guests.compiled_bytes;
        limits
    }

    pub(crate) fn space_limits(&self) -> SpaceLimits {
        SpaceLimits {
            low_bytes: self.disk.low_bytes,
            low_percent: self.disk.low_percent,
            full_bytes: self.disk.full_bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_lane_allows_a_rehearsal_has_time_for() {
        let slow = "data_dir = \"/d\"\n[guests]\nselect_ms = 50\ndescribe_ms = 1000";
        let limits = ServerConfig::from_toml(slow).unwrap().guest_limits();
        assert_eq!(limits.rehearsal_ms, 3_150);
        limits.check().unwrap();
    }

    #[test]
    fn a_file_may_say_little_and_nothing_unknown() {
        let config = ServerConfig::from_toml(
            "data_dir = \"/d\"\n[tls]\nca = \"a\"\ncert = \"b\"\nkey = \"c\"\n[guests]\nselect_ms = 7",
        )
        .unwrap();
        config.validate().unwrap();
        assert_eq!(config.guest_limits().select_ms, 7);
        assert_eq!(
            config.guest_limits().describe_ms,
            GuestLimits::default().describe_ms
        );
        let error = ServerConfig::from_toml("data_dri = \"/d\"").unwrap_err();
        assert!(error.to_string().contains("data_dri"), "{error}");
    }

    #[test]
    fn what_is_missing_or_out_of_bounds_is_named() {
        let named = |text: &str| match ServerConfig::from_toml(text).unwrap().validate() {
            Err(ConfigError::Field { field, .. }) => field,
            other => panic!("{other:?}"),
        };
        assert_eq!(named(""), "data_dir");
        assert_eq!(named("data_dir = \"/d\""), "tls.ca");
        let whole = "data_dir = \"/d\"\n[tls]\nca = \"a\"\ncert = \"b\"\nkey = \"c\"\n";
        assert_eq!(
            named(&format!("{whole}[disk]\nlow_bytes = 1")),
            "disk.full_bytes"
        );
        assert_eq!(named(&format!("{whole}[guests]\nselect_ms = 0")), "guests");
    }
}
