//! What an operator may set about the host's place in its cluster: name, addresses, Raft's times, and
//! how fast a leader makes up for lost nodes.
//!
//! Names and addresses are decided here, once, before anything is opened or asked.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use maitred_protocol::HostName;
use maitred_protocol::limits::{MEMBERS_MAX, TEXT_BYTES_MAX};
use serde::Deserialize;

use crate::config::{ConfigError, ServerConfig};

/// Raft's times; they must be the same on all hosts of a cluster. See [`maitred_replica::Config`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RaftTimes {
    /// Milliseconds of a tick, 5 to 1,000. 20.
    pub tick_ms: u64,
    /// Ticks between two heartbeats, 1 to 100. 1.
    pub heartbeat_ticks: usize,
    /// Ticks without a leader before an election, at least; at most the double, by chance. At least
    /// 5 heartbeats. 10.
    pub election_ticks: usize,
    /// Milliseconds that a write to the disk may take before a leader hands over. 1,000.
    pub disk_slow_ms: u64,
}

impl Default for RaftTimes {
    fn default() -> Self {
        let defaults = maitred_replica::Config::new(1);
        Self {
            tick_ms: defaults.tick_us / 1_000,
            heartbeat_ticks: defaults.heartbeat_ticks,
            election_ticks: defaults.election_ticks,
            disk_slow_ms: defaults.disk_slow_us / 1_000,
        }
    }
}

/// How fast what lost nodes had is created again; of the host that leads, so best the same on all.
/// See [`maitred_replica::Config`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FailoverConfig {
    /// Processes of lost nodes that are created again in a second, in the whole group; as many at
    /// once. 1 to 1,000,000. 10,000.
    pub recreate_per_second: u32,
    /// The same, for each node that they are given to. 1 to 1,000,000. 1,000.
    pub recreate_per_node_per_second: u32,
    /// When more than this share of the nodes (in percent, 1 to 100; 100 switches it off), and at
    /// least 3, are lost in a window, nothing is created again for a while. 40.
    pub mass_loss_percent: u32,
    /// That window, in milliseconds; 1,000 to 600,000. 30,000.
    pub mass_loss_window_ms: u32,
    /// That while, in milliseconds from the last loss that was one too many; at most 3,600,000.
    /// 60,000.
    pub mass_loss_pause_ms: u32,
}

impl Default for FailoverConfig {
    fn default() -> Self {
        let defaults = maitred_replica::Config::new(1);
        Self {
            recreate_per_second: defaults.recreate_per_second,
            recreate_per_node_per_second: defaults.recreate_per_node_per_second,
            mass_loss_percent: defaults.mass_loss_percent,
            mass_loss_window_ms: defaults.mass_loss_window_ms,
            mass_loss_pause_ms: defaults.mass_loss_pause_ms,
        }
    }
}

impl ServerConfig {
    /// The replica's settings, for the host of this number.
    pub(crate) fn replica(
        &self,
        id: u64,
        name: HostName,
        instance: u64,
    ) -> maitred_replica::Config {
        let (times, failover) = (self.raft, self.failover);
        maitred_replica::Config {
            // Whoever founds a cluster is its first voter; the log says what came after.
            voters: vec![1],
            name,
            instance,
            level_max: self.level_max,
            build: self.build.clone(),
            tick_us: times.tick_ms.saturating_mul(1_000),
            election_ticks: times.election_ticks,
            heartbeat_ticks: times.heartbeat_ticks,
            lease_reads: self.lease_reads,
            disk_slow_us: times.disk_slow_ms.saturating_mul(1_000),
            snapshot_entries: self.snapshot.entries,
            snapshot_bytes: self.snapshot.bytes,
            recreate_per_second: failover.recreate_per_second,
            recreate_per_node_per_second: failover.recreate_per_node_per_second,
            mass_loss_percent: failover.mass_loss_percent,
            mass_loss_window_ms: failover.mass_loss_window_ms,
            mass_loss_pause_ms: failover.mass_loss_pause_ms,
            record_inputs: self.inputs_bytes > 0,
            ..maitred_replica::Config::new(id)
        }
    }

    /// Checks what is in this file.
    pub(crate) fn validate_cluster(&self) -> Result<(), ConfigError> {
        let name = self.host_name()?;
        for seed in &self.join {
            check_address(seed).map_err(|problem| bad("join", problem))?;
        }
        if self.join.len() > MEMBERS_MAX {
            return Err(bad(
                "join",
                format!("must name at most {MEMBERS_MAX} hosts"),
            ));
        }
        match &self.advertise {
            Some(address) => check_address(address).map_err(|problem| bad("advertise", problem))?,
            None if self.listen.ip().is_unspecified() && !self.join.is_empty() => {
                let problem = "must be given as HOST:PORT: the host listens on all addresses, and the others must know which one reaches it";
                return Err(bad("advertise", problem.to_owned()));
            }
            None => {}
        }
        if self.bulk_bytes_per_s < 1 << 20 {
            return Err(bad(
                "bulk_bytes_per_s",
                "must be at least 1,048,576".to_owned(),
            ));
        }
        // What is wrong with the whole is not wrong with it under the defaults of the section to blame.
        let usual = Self {
            failover: FailoverConfig::default(),
            ..self.clone()
        };
        let unusable = |why| format!("cannot be used: {why}");
        let raft = usual.replica(1, name.clone(), 1).validate();
        raft.map_err(|why| bad("raft", unusable(why)))?;
        let failover = self.replica(1, name, 1).validate();
        failover.map_err(|why| bad("failover", unusable(why)))
    }

    /// The host's name: as set, or the machine's.
    pub(crate) fn host_name(&self) -> Result<HostName, ConfigError> {
        if self.name.is_empty() {
            let system = rustix::system::uname();
            let machine = system.nodename().to_string_lossy();
            return Ok(usable(&machine));
        }
        HostName::new(self.name.as_str())
            .map_err(|_| bad("name", "must be 1 to 64 of A-Z a-z 0-9 . _ -".to_owned()))
    }

    /// Where peers and clients reach the host, which has the port `local`.
    pub(crate) fn advertised(&self, local: SocketAddr) -> String {
        if let Some(address) = &self.advertise {
            return match address.strip_suffix(":0") {
                Some(host) => format!("{host}:{}", local.port()),
                None => address.clone(),
            };
        }
        if !local.ip().is_unspecified() {
            return local.to_string();
        }
        let here: IpAddr = match local.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        };
        let address = SocketAddr::from((here, local.port())).to_string();
        tracing::warn!(
            %address,
            "others are told an address of this machine only, because the host listens on all; set advertise before hosts join"
        );
        address
    }
}

fn bad(field: &'static str, problem: String) -> ConfigError {
    ConfigError::Field { field, problem }
}

/// A machine's name as a host's: what does not belong is replaced.
fn usable(machine: &str) -> HostName {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let name: String = machine
        .chars()
        .map(|c| if fits(c) { c } else { '-' })
        .take(64)
        .collect();
    HostName::new(name).unwrap_or_else(|_| HostName::new("host").expect("letters are a name"))
}

fn check_address(address: &str) -> Result<(), String> {
    let port = match address.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() => port.parse::<u16>().ok(),
        _ => None,
    };
    if port.is_none() || address.len() > TEXT_BYTES_MAX {
        return Err(format!(
            "must be HOST:PORT of at most {TEXT_BYTES_MAX} bytes, and is {address:?}"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Result<ServerConfig, ConfigError> {
        let config = ServerConfig::from_toml(text)?;
        config.validate_cluster().map(|()| config)
    }

    fn named(text: &str) -> &'static str {
        match config(text) {
            Err(ConfigError::Field { field, .. }) => field,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_contradicts_itself_is_named() {
        assert_eq!(named("name = \"a b\""), "name");
        assert_eq!(named("join = [\"nowhere\"]"), "join");
        assert_eq!(
            named("join = [\"a:1\"]\nlisten = \"0.0.0.0:7600\""),
            "advertise"
        );
        assert_eq!(named("advertise = \":7600\""), "advertise");
        assert_eq!(named("level_max = 99"), "raft");
        assert_eq!(named("[raft]\nheartbeat_ticks = 3"), "raft");
        assert_eq!(named("bulk_bytes_per_s = 0"), "bulk_bytes_per_s");
        assert_eq!(named("[failover]\nmass_loss_percent = 0"), "failover");
        config("join = [\"a:1\"]\nlisten = \"0.0.0.0:7600\"\nadvertise = \"b:7600\"").unwrap();
    }

    #[test]
    fn what_nobody_records_is_not_gathered() {
        let gathers = |text: &str| {
            let config = config(text).unwrap();
            let name = config.host_name().unwrap();
            config.replica(1, name, 1).record_inputs
        };
        assert!(gathers(""));
        assert!(!gathers("inputs_bytes = 0"));
    }

    #[test]
    fn the_replica_gets_what_is_set() {
        let text = "[failover]\nrecreate_per_second = 5\nrecreate_per_node_per_second = 4\nmass_loss_percent = 30\nmass_loss_window_ms = 2000\nmass_loss_pause_ms = 1";
        let config = config(text).unwrap();
        let replica = config.replica(1, config.host_name().unwrap(), 1);
        let set = (
            replica.recreate_per_second,
            replica.recreate_per_node_per_second,
            replica.mass_loss_percent,
            replica.mass_loss_window_ms,
            replica.mass_loss_pause_ms,
        );
        assert_eq!(set, (5, 4, 30, 2_000, 1));
    }

    #[test]
    fn a_host_tells_an_address_that_others_can_use() {
        let told = |text: &str, local: &str| {
            let config = config(text).unwrap();
            config.advertised(local.parse().unwrap())
        };
        assert_eq!(told("", "10.0.0.7:7600"), "10.0.0.7:7600");
        assert_eq!(told("", "0.0.0.0:7601"), "127.0.0.1:7601");
        assert_eq!(told("", "[::]:7601"), "[::1]:7601");
        assert_eq!(
            told("advertise = \"eu.example:0\"", "[::]:7609"),
            "eu.example:7609"
        );
    }

    #[test]
    fn a_machines_name_becomes_a_hosts() {
        assert_eq!(usable("rack 7/a").as_str(), "rack-7-a");
        assert_eq!(usable("").as_str(), "host");
        assert_eq!(usable(&"x".repeat(300)).as_str().len(), 64);
    }
}
