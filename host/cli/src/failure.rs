//! What went wrong, in the form a person and a script can use: exit code, code word, what happened,
//! what to do, and whether trying again makes sense.
//!
//! Holds: no text of rustls, wasmtime or the system reaches a person without a line that says what
//! to do. This is the only place that knows the exit codes; what the client's errors mean is in
//! [`crate::refusal`].

use std::fmt;

use maitred_protocol::InvalidName;
use maitred_transport::{BindError, TlsError};
use serde_json::{Value, json};

/// How the program ends; scripts rely on these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    Other = 1,
    Usage = 2,
    NotFound = 3,
    Conflict = 4,
    NoPlacement = 5,
    Unavailable = 6,
    Auth = 7,
    Module = 8,
    /// Something has to be installed first.
    Toolchain = 9,
}

/// A failed verb.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    /// A word for scripts, `[a-z_]+`.
    pub(crate) code: &'static str,
    pub(crate) message: String,
    pub(crate) help: String,
    pub(crate) retryable: bool,
    /// More, for scripts only.
    pub(crate) details: Option<Box<Value>>,
}

impl Failure {
    pub(crate) fn new(
        exit: Exit,
        code: &'static str,
        message: impl Into<String>,
        help: impl Into<String>,
    ) -> Self {
        Self {
            exit,
            code,
            message: message.into(),
            help: help.into(),
            retryable: false,
            details: None,
        }
    }

    /// A wrong command line that clap cannot see.
    pub(crate) fn usage(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self::new(Exit::Usage, "usage", message, help)
    }

    /// A file that cannot be read or written.
    pub(crate) fn file(doing: &str, path: &std::path::Path, error: &std::io::Error) -> Self {
        Self::new(
            Exit::Other,
            "file",
            format!("cannot {doing} {}: {error}", path.display()),
            "check that the path exists, that it may be used, and that the disk has room",
        )
    }

    /// A text of ours in the form `what is wrong; what to do`, as the libraries write them.
    pub(crate) fn advised(exit: Exit, code: &'static str, text: &str, help: &str) -> Self {
        match text.split_once("; ") {
            Some((message, advice)) => Self::new(exit, code, message, advice),
            None => Self::new(exit, code, text, help),
        }
    }

    pub(crate) fn retryable(mut self) -> Self {
        self.retryable = true;
        self
    }

    pub(crate) fn with(mut self, details: Value) -> Self {
        self.details = Some(Box::new(details));
        self
    }

    /// The document that scripts get on stderr.
    pub(crate) fn to_json(&self) -> Value {
        let mut document = json!({
            "v": 1,
            "kind": "Error",
            "code": self.code,
            "exit": self.exit as u8,
            "message": self.message,
            "help": self.help,
            "retryable": self.retryable,
        });
        if let Some(details) = &self.details {
            document["details"] = (**details).clone();
        }
        document
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

impl miette::Diagnostic for Failure {
    fn code<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        Some(Box::new(format!("maitred::{}", self.code)))
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        (!self.help.is_empty()).then(|| Box::new(&self.help) as Box<dyn fmt::Display>)
    }
}

impl From<TlsError> for Failure {
    fn from(error: TlsError) -> Self {
        Self::advised(
            Exit::Auth,
            "tls",
            &error.to_string(),
            "see `maitred cert --help`",
        )
    }
}

impl From<BindError> for Failure {
    fn from(error: BindError) -> Self {
        let exit = match error {
            BindError::Tls(_) => Exit::Auth,
            BindError::Socket { .. } => Exit::Other,
        };
        Self::advised(
            exit,
            "port",
            &error.to_string(),
            "choose another address with --listen",
        )
    }
}

impl From<InvalidName> for Failure {
    fn from(error: InvalidName) -> Self {
        Self::usage(error.to_string(), "see the verb's --help for what is valid")
    }
}
