//! Where hosts within this program, or started by it, have their data, and on which ports they are.
//!
//! Holds: a temporary folder goes with its run, and what a killed run left goes with the next one; the
//! hosts of a group whose data is kept have the same ports every time, since they know each other by
//! them.

use std::fs;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::context::runs;
use crate::failure::{Exit, Failure};

/// The port of `dev`, when it is free; further hosts have the next ones.
const PORT: u16 = 7600;
/// How the names of temporary folders begin; the process id follows.
const TEMPORARY: &str = "maitred-data-";
/// Remembers the ports of a group whose data is kept.
const PORTS_FILE: &str = "ports";

/// A port for each host: those of the last time; else the one that was asked for and the next ones;
/// else 7600 and the next ones if nobody has them, and any otherwise.
pub(super) fn ports(data: &Path, port: Option<u16>, count: u16) -> Result<Vec<u16>, Failure> {
    if count > 1 && data.join("VERSION").exists() {
        let message = format!("{} is the data directory of one host", data.display());
        let help = "name another folder with --data, or leave out --hosts";
        return Err(Failure::new(Exit::Conflict, "data_dir", message, help));
    }
    let kept = fs::read_to_string(data.join(PORTS_FILE)).unwrap_or_default();
    let kept: Vec<u16> = kept
        .lines()
        .filter_map(|line| line.trim().parse().ok())
        .collect();
    if count > 1 && kept.len() == usize::from(count) {
        return Ok(kept);
    }
    let row = |first: u16| (0..count).map(move |at| first.saturating_add(at));
    let free = |port: u16| UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
    Ok(match port {
        Some(0) => vec![0; count.into()],
        Some(port) => row(port).collect(),
        None if row(PORT).all(free) => row(PORT).collect(),
        None => vec![0; count.into()],
    })
}

/// Lets the next run on the same folder have the same ports.
pub(super) fn keep_ports(data: &Path, ports: impl Iterator<Item = u16>) -> Result<(), Failure> {
    let path = data.join(PORTS_FILE);
    let lines: Vec<String> = ports.map(|port| port.to_string()).collect();
    fs::write(&path, lines.join("\n") + "\n").map_err(|error| Failure::file("write", &path, &error))
}

/// A folder that goes with the run.
pub(crate) fn temporary() -> Result<tempfile::TempDir, Failure> {
    remove_abandoned(&std::env::temp_dir());
    let prefix = format!("{TEMPORARY}{}-", std::process::id());
    let folder = tempfile::Builder::new().prefix(&prefix).tempdir();
    folder.map_err(|error| Failure::file("make a folder in", &std::env::temp_dir(), &error))
}

/// Removes the folders of runs that were killed before they could: this user's own, whose process
/// is gone and whose lock nobody holds. What cannot be removed does no harm.
fn remove_abandoned(folder: &Path) {
    let user = rustix::process::getuid().as_raw();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let rest = name.to_str().and_then(|name| name.strip_prefix(TEMPORARY));
        let pid = rest.and_then(|rest| rest.split_once('-')?.0.parse().ok());
        // Not that of a link.
        let own = entry
            .metadata()
            .is_ok_and(|found| found.is_dir() && found.uid() == user);
        if own && pid.is_some_and(|pid| !runs(pid)) && nobody_holds(&entry.path()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Whether no host runs on a run's folder: on itself, or on one of the folders in it. One without
/// any lock was killed before it held anything, or is another machine's.
fn nobody_holds(folder: &Path) -> bool {
    let inner = fs::read_dir(folder).into_iter().flatten().flatten();
    let folders = inner.map(|entry| entry.path()).chain([folder.to_owned()]);
    let locks: Vec<fs::File> = folders
        .filter_map(|folder| fs::File::open(folder.join("lock")).ok())
        .collect();
    !locks.is_empty() && locks.iter().all(|lock| lock.try_lock().is_ok())
}
