//! `cert`: a group's certificate authority and the certificates that it issues, without openssl.
//!
//! Holds: keys are written readable for their owner only, and no file is ever written over.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use maitred_transport::{Authority, CaError, IssueKind};
use serde_json::json;

use crate::connect::Shell;
use crate::context::write_secret;
use crate::failure::{Exit, Failure};

/// Make a group's certificate authority, and issue certificates with it
#[derive(Debug, Subcommand)]
pub(crate) enum Cert {
    Init(Init),
    Issue(Issue),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum KindArg {
    /// For `maitred serve`
    Host,
    /// For nodes, programs and people
    Client,
}

/// Make a new authority, with a first certificate for a host and one for a client
///
/// Writes ca.pem, ca.key, host.pem, host.key, client.pem and client.key. Whoever has ca.key can join
/// the group as anyone: keep it off the hosts. The authority is valid for ten years.
///
/// Example: maitred cert init --dir certs
#[derive(Debug, Args)]
pub(crate) struct Init {
    /// The folder to write to; made when it is not there
    #[arg(long, default_value = "certs")]
    dir: PathBuf,
    /// The authority's name, 1 to 64 bytes
    #[arg(long, default_value = "maitred group")]
    name: String,
    /// Days that the two certificates are valid, at most 3650
    #[arg(long, value_name = "DAYS", default_value_t = 365)]
    days: u32,
    /// Make only the authority
    #[arg(long)]
    ca_only: bool,
}

/// Issue a certificate with the authority in a folder: writes NAME.pem and NAME.key
///
/// Example: maitred cert issue game-7 --kind client --dir certs --days 90
#[derive(Debug, Args)]
pub(crate) struct Issue {
    /// Whom it is for; also the name of the files
    name: String,
    /// What it is for
    #[arg(long, value_enum, default_value = "client")]
    kind: KindArg,
    /// The folder with ca.pem and ca.key; the new files go there too
    #[arg(long, default_value = "certs")]
    dir: PathBuf,
    /// Days that it is valid, at most 3650
    #[arg(long, value_name = "DAYS", default_value_t = 365)]
    days: u32,
    /// A DNS name to put in as well; may be repeated. Clients of maitred need none
    #[arg(long, value_name = "NAME")]
    dns: Vec<String>,
    /// An address to put in as well; may be repeated. Clients of maitred need none
    #[arg(long, value_name = "IP")]
    ip: Vec<IpAddr>,
}

impl Cert {
    pub(crate) fn run(&self, shell: &Shell) -> Result<(), Failure> {
        match self {
            Self::Init(verb) => verb.run(shell),
            Self::Issue(verb) => verb.run(shell),
        }
    }
}

impl Init {
    fn run(&self, shell: &Shell) -> Result<(), Failure> {
        std::fs::create_dir_all(&self.dir)
            .map_err(|error| Failure::file("make the folder", &self.dir, &error))?;
        let mut names = vec!["ca"];
        if !self.ca_only {
            names.extend(["host", "client"]);
        }
        for name in &names {
            free(&self.dir, name)?;
        }
        let authority = Authority::generate(&self.name).map_err(of_authority)?;
        let mut files = write_pair(&self.dir, "ca", authority.cert_pem(), &authority.key_pem())?;
        for (name, kind) in [("host", IssueKind::Host), ("client", IssueKind::Client)] {
            if names.contains(&name) {
                let made = authority.issue(name, kind, &[], &[], self.days);
                let made = made.map_err(of_authority)?;
                files.extend(write_pair(&self.dir, name, &made.cert_pem, &made.key_pem)?);
            }
        }
        let dir = self.dir.display();
        let next = if self.ca_only {
            format!("next: maitred cert issue host --kind host --dir {dir}")
        } else {
            format!(
                "next: maitred serve --data-dir data --ca {dir}/ca.pem --cert {dir}/host.pem --key {dir}/host.key"
            )
        };
        show(shell, &files, &next)
    }
}

impl Issue {
    fn run(&self, shell: &Shell) -> Result<(), Failure> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if !self.name.chars().all(plain) || self.name.starts_with('.') || self.name.is_empty() {
            let help = "use letters, digits, '-', '_' and '.': it is also the name of the files";
            return Err(Failure::usage(
                format!("{:?} cannot be the name", self.name),
                help,
            ));
        }
        free(&self.dir, &self.name)?;
        let read = |name: &str| {
            let path = self.dir.join(name);
            let text = std::fs::read_to_string(&path);
            text.map_err(|error| {
                let mut failure = Failure::file("read the authority's", &path, &error);
                failure.help =
                    "make one with `maitred cert init`, or name its folder with --dir".to_owned();
                failure
            })
        };
        let authority =
            Authority::from_pem(&read("ca.pem")?, &read("ca.key")?).map_err(of_authority)?;
        let kind = match self.kind {
            KindArg::Host => IssueKind::Host,
            KindArg::Client => IssueKind::Client,
        };
        let made = authority.issue(&self.name, kind, &self.dns, &self.ip, self.days);
        let made = made.map_err(of_authority)?;
        let files = write_pair(&self.dir, &self.name, &made.cert_pem, &made.key_pem)?;
        let dir = self.dir.display();
        let flags = format!(
            "--ca {dir}/ca.pem --cert {dir}/{name}.pem --key {dir}/{name}.key",
            name = self.name
        );
        let next = match self.kind {
            KindArg::Host => format!("use it: maitred serve --data-dir data {flags}"),
            KindArg::Client => format!("use it: maitred status --endpoint HOST:PORT {flags}"),
        };
        show(shell, &files, &next)
    }
}

fn pair(dir: &Path, name: &str) -> [PathBuf; 2] {
    [
        dir.join(format!("{name}.pem")),
        dir.join(format!("{name}.key")),
    ]
}

fn free(dir: &Path, name: &str) -> Result<(), Failure> {
    match pair(dir, name).into_iter().find(|path| path.exists()) {
        Some(path) => Err(Failure::new(
            Exit::Conflict,
            "exists",
            format!("{} is there already", path.display()),
            "nothing is written over: take another folder or name, or move it away",
        )),
        None => Ok(()),
    }
}

fn write_pair(dir: &Path, name: &str, cert: &str, key: &str) -> Result<Vec<PathBuf>, Failure> {
    let [cert_file, key_file] = pair(dir, name);
    std::fs::write(&cert_file, cert).map_err(|error| Failure::file("write", &cert_file, &error))?;
    write_secret(&key_file, key)?;
    Ok(vec![cert_file, key_file])
}

fn show(shell: &Shell, files: &[PathBuf], next: &str) -> Result<(), Failure> {
    let names: Vec<String> = files
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    let body = json!({ "files": names });
    shell.out.show("Certificates", body, || {
        format!("wrote {}\n{next}", names.join(", "))
    })
}

pub(crate) fn of_authority(error: CaError) -> Failure {
    let text = error.to_string();
    match error {
        CaError::Tls(error) => error.into(),
        CaError::OutOfBounds { .. } => Failure::usage(text, "see `maitred cert --help`"),
        CaError::Foreign | CaError::Key(_) => Failure::new(
            Exit::Auth,
            "ca",
            text,
            "name the folder of an authority made by `maitred cert init` with --dir",
        ),
        CaError::Make(_) => Failure::new(
            Exit::Auth,
            "ca",
            text,
            "check the names and addresses that were given",
        ),
    }
}
