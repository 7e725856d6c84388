//! Trying a version of a selector without letting it decide: in shadow of the active one, on recorded
//! decisions, or with a file of them on another machine.

use std::io::Write;
use std::time::Duration;

use maitred_protocol::comparison::Comparison;
use maitred_protocol::{
    Digest, ModuleEvent, ModuleName, ModuleRecord, Rejection, Request, Response, SaveInputs,
    SavedInputs, Wire,
};

use crate::call::wrong_answer;
use crate::download::{Announced, Download};
use crate::error::{Cause, Error};
use crate::verbs::{Client, NO_SESSION, answer};

/// Longest that the host may take to collect a file of inputs.
const BEGIN_TIMEOUT: Duration = Duration::from_secs(60);

/// Recorded inputs of decisions that have been received whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InputsFile {
    /// The host that recorded them.
    pub host: u64,
    /// The decisions in it.
    pub decisions: u64,
    /// Its length.
    pub bytes: u64,
    /// Their blake3 hash.
    pub digest: Digest,
}

impl Client {
    /// Runs a version (0: the newest) on the same inputs as the active one, off the path of creates;
    /// it decides nothing. `config` is JSON of at most 64 KiB, none for the active one's.
    pub async fn start_shadow(
        &self,
        name: &ModuleName,
        version: u32,
        config: Option<String>,
    ) -> Result<ModuleRecord, Error> {
        self.shadow(name, Some((version, config))).await
    }

    /// Ends that.
    pub async fn stop_shadow(&self, name: &ModuleName) -> Result<ModuleRecord, Error> {
        self.shadow(name, None).await
    }

    async fn shadow(
        &self,
        name: &ModuleName,
        shadow: Option<(u32, Option<String>)>,
    ) -> Result<ModuleRecord, Error> {
        self.module(Request::ShadowModule {
            client: NO_SESSION,
            name: name.clone(),
            shadow,
        })
        .await
    }

    /// How the shadow of a module has done beside its active version. The leader answers.
    ///
    /// # Errors
    /// [`Rejection::NotFound`] when none runs.
    pub async fn compare_module(&self, name: &ModuleName) -> Result<Comparison, Error> {
        compared(self.call(Request::CompareModule(name.clone())).await?)
    }

    /// Makes the newest recorded decisions of a module again, `last` of them (1 to 1,000,000), with a
    /// version of it (0: the newest) and with `config`, or else each with the
    /// configuration that it was made with. The host that is asked answers from what it recorded
    /// while it led. Takes at most the builder's `replay_timeout`.
    pub async fn replay_module(
        &self,
        name: &ModuleName,
        version: u32,
        config: Option<String>,
        last: u32,
    ) -> Result<Comparison, Error> {
        let request = Request::ReplayModule {
            name: name.clone(),
            version,
            config,
            last,
        };
        let timeout = self.settings().replay_timeout;
        let answer = self.caller().call_on(self.route(), request, timeout).await;
        compared(answer?.0)
    }

    /// What was done with a module, newest last; at most 64 lines.
    pub async fn module_history(&self, name: &ModuleName) -> Result<Vec<ModuleEvent>, Error> {
        answer!(self.read(Request::ModuleHistory(name.clone())), "a history",
            Response::ModuleHistory(events) => events)
    }

    /// Receives the recorded inputs of the newest decisions, `last` of them (1 to 1,000,000), of one
    /// module or of all, and writes them to `to`, in pieces of at most 64 KiB. `progress` hears how
    /// many bytes of how many have come. `to` must not block for long.
    ///
    /// # Errors
    /// As [`Client::save_snapshot`].
    pub async fn save_inputs(
        &self,
        name: Option<ModuleName>,
        last: u32,
        to: &mut (impl Write + Send),
        progress: impl FnMut(u64, u64) + Send,
    ) -> Result<InputsFile, Error> {
        let question = SaveInputs { name, last };
        if let Err(error) = question.check_bounds() {
            return Err(Error::Rejected(Rejection::Invalid(error.to_string())));
        }
        let (download, saved) =
            Download::begin(self, self.route(), &question, BEGIN_TIMEOUT).await?;
        let (decisions, bytes, digest) = match saved {
            SavedInputs::File {
                decisions,
                bytes,
                digest,
            } => (decisions, bytes, digest),
            SavedInputs::Unavailable(why) => {
                let cause = Cause::Answer(why);
                return Err(Error::Unavailable { cause });
            }
        };
        let host = download.host;
        download
            .receive(Announced { bytes, digest }, to, progress)
            .await?;
        Ok(InputsFile {
            host,
            decisions,
            bytes,
            digest,
        })
    }
}

fn compared(response: Response) -> Result<Comparison, Error> {
    match response {
        Response::Comparison(comparison) => Ok(*comparison),
        _ => Err(wrong_answer("a comparison")),
    }
}
