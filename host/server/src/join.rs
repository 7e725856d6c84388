//! How a host comes to belong to a cluster, and how it says where it is when it comes back.
//!
//! A host on a new data directory asks the seeds for a number until one of them gives it one; only a
//! deterministic no ends that. A host that has a number says at every start where it is now, and asks
//! again when a peer says that it is not a member: whoever leads knows.

use std::sync::Arc;
use std::time::Duration;

use maitred_protocol::{
    ClusterId, Join, MemberRecord, PeerHello, PeerRefusal, PeerRequest, PeerResponse, Purpose,
    Response, Unavailable,
};
use maitred_replica::Input;
use maitred_transport::{CloseCode, Endpoint, close};
use tokio::task::JoinSet;

use crate::bulk::dial::{DialError, dial};
use crate::bulk::wire;
use crate::clock::jittered;
use crate::error::{Failed, StartError};
use crate::host::Host;

/// The first pause after a round in which nobody could answer; each further one is twice as long.
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// Longest that a host may take to answer: the entry has to be committed.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest that a round may take.
const ROUND_TIMEOUT: Duration = Duration::from_secs(20);
/// Longest to wait for the others, once one has answered that it cannot tell.
const STRAGGLERS_TIMEOUT: Duration = Duration::from_secs(2);
/// Hosts that may be named as leader in one round before it counts as one that nobody could answer.
const HOPS_MAX: usize = 4;

/// A place in a cluster.
#[derive(Debug)]
pub(crate) struct Joined {
    pub(crate) cluster: ClusterId,
    pub(crate) host: u64,
    pub(crate) members: Vec<MemberRecord>,
}

/// Why there is no answer from one address.
enum No {
    /// It cannot tell now.
    Later(String),
    /// Nobody ever will: what it says is replicated, or true of every later state.
    Final(String),
    /// It never will, though another may.
    Never(String),
    /// The two do not accept each other: a certificate must be mended first.
    Unfit(String),
    /// This one can.
    Ask(String),
}

impl From<DialError> for No {
    fn from(error: DialError) -> Self {
        let why = error.to_string();
        match error {
            DialError::Refused(
                PeerRefusal::NotAMember(_)
                | PeerRefusal::OtherInstance(_)
                | PeerRefusal::TooOld { .. },
            ) => Self::Final(why),
            DialError::Refused(PeerRefusal::OtherCluster) => Self::Never(why),
            DialError::Link(link) if link.is_certificate() => Self::Unfit(why),
            DialError::Link(link) if link.is_fatal() => Self::Never(why),
            _ => Self::Later(why),
        }
    }
}

/// Asks the seeds until one of them lets this host in.
///
/// # Errors
/// [`StartError::Join`] when the answer is a no that will not change, [`StartError::Strangers`] when
/// certificates are in the way.
pub(crate) async fn join(
    endpoint: &Endpoint,
    hello: &PeerHello,
    asked: &Join,
    seeds: &[String],
) -> Result<Joined, StartError> {
    let mut pause = PAUSE_MIN;
    let mut told = String::new();
    tracing::info!(seeds = seeds.join(","), "asking the cluster for a place");
    loop {
        match ask_all(endpoint, hello, asked, seeds).await {
            Ok(joined) => return Ok(joined),
            Err(No::Final(why) | No::Never(why)) => return Err(StartError::Join(why)),
            Err(No::Unfit(why)) => return Err(StartError::Strangers(why)),
            Err(No::Later(why) | No::Ask(why)) => {
                if why != told {
                    tracing::warn!(seeds = seeds.join(","), %why, "the cluster cannot be joined yet; trying again until it can: check that these are addresses of its hosts, that they run, and that UDP passes");
                    told = why;
                }
            }
        }
        tokio::time::sleep(jittered(pause)).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// Asks all at once, and whom they name as leader: being taken in twice is being taken in once. A no
/// that is final ends it; one that an address gives for itself (it may be a wrong one) counts only
/// when no other one can answer.
async fn ask_all(
    endpoint: &Endpoint,
    hello: &PeerHello,
    asked: &Join,
    addresses: &[String],
) -> Result<Joined, No> {
    let mut asking = JoinSet::new();
    for address in addresses {
        let (endpoint, hello) = (endpoint.clone(), hello.clone());
        let (asked, address) = (asked.clone(), address.clone());
        asking.spawn(async move { ask_on(&endpoint, &hello, &asked, address).await });
    }
    let (mut later, mut never, mut unfit) = (None, None, None);
    let mut patience = ROUND_TIMEOUT;
    loop {
        match tokio::time::timeout(patience, asking.join_next()).await {
            Ok(Some(Ok(Ok(joined)))) => return Ok(joined),
            Ok(Some(Ok(Err(No::Final(why))))) => return Err(No::Final(why)),
            Ok(Some(Ok(Err(No::Never(why))))) => drop(never.get_or_insert(why)),
            Ok(Some(Ok(Err(No::Unfit(why))))) => drop(unfit.get_or_insert(why)),
            Ok(Some(Ok(Err(No::Later(why) | No::Ask(why))))) => {
                later.get_or_insert(why);
                // Whoever is gone for good must not hold up the next round.
                patience = STRAGGLERS_TIMEOUT;
            }
            Ok(Some(Err(_))) => {}
            Ok(None) => break,
            Err(_) => {
                later.get_or_insert("some hosts did not answer in time".to_owned());
                break;
            }
        }
    }
    Err(match (later, never, unfit) {
        (Some(why), ..) => No::Later(why),
        (None, Some(why), _) => No::Never(why),
        (None, None, Some(why)) => No::Unfit(why),
        (None, None, None) => No::Later("no host is known to ask".to_owned()),
    })
}

/// Asks one, and whom it names as leader. The reasons name the address.
async fn ask_on(
    endpoint: &Endpoint,
    hello: &PeerHello,
    asked: &Join,
    mut address: String,
) -> Result<Joined, No> {
    for _ in 0..HOPS_MAX {
        match ask(endpoint, hello, asked, &address).await {
            Err(No::Ask(leader)) if leader != address => {
                tracing::debug!(%address, %leader, "another host leads");
                address = leader;
            }
            Err(No::Ask(_)) => break,
            Err(No::Later(why)) => return Err(No::Later(format!("{address}: {why}"))),
            Err(No::Final(why)) => return Err(No::Final(format!("{address}: {why}"))),
            Err(No::Never(why)) => return Err(No::Never(format!("{address}: {why}"))),
            Err(No::Unfit(why)) => return Err(No::Unfit(format!("{address}: {why}"))),
            Ok(joined) => return Ok(joined),
        }
    }
    Err(No::Later(format!("{address} does not lead any more")))
}

async fn ask(
    endpoint: &Endpoint,
    hello: &PeerHello,
    asked: &Join,
    address: &str,
) -> Result<Joined, No> {
    let (connection, _) = dial(endpoint, address, hello).await?;
    let request = PeerRequest::Join(Box::new(asked.clone()));
    let answer = wire::call(&connection, &request, ANSWER_TIMEOUT).await;
    close(&connection, CloseCode::Done, "");
    match answer {
        Ok(PeerResponse::Joined {
            cluster,
            member,
            members,
        }) => Ok(Joined {
            cluster,
            host: member.host,
            members,
        }),
        Ok(PeerResponse::NotLeader(Some(leader))) => Err(No::Ask(leader)),
        Ok(PeerResponse::NotLeader(None)) => {
            Err(No::Later("the cluster has no leader just now".to_owned()))
        }
        Ok(PeerResponse::Refused(why)) => Err(No::Final(why)),
        Ok(PeerResponse::Unavailable(why)) => Err(No::Later(why)),
        Ok(_) => Err(No::Later(
            "its answer is not one to this question".to_owned(),
        )),
        Err(error) => Err(No::Later(error.to_string())),
    }
}

/// Says where this host is now, until the leader has heard it; and again whenever a peer says that
/// this host is not a member. A no that will not change ends the host.
pub(crate) async fn announce(host: Arc<Host>, asked: Join, seeds: Vec<String>) {
    let peers = &host.peers;
    loop {
        let ended = tokio::select! {
            ended = announce_once(&host, &asked, &seeds) => ended,
            () = host.stopping() => return,
        };
        if let Err(why) = ended {
            let what = format!("its cluster does not know this host any more: {why}");
            return host.alarm.fail(Failed {
                what,
                restart: false,
            });
        }
        let doubted = async {
            peers.doubted.notified().await;
            // Whoever doubts does so again and again.
            tokio::time::sleep(PAUSE_MAX).await;
        };
        tokio::select! {
            () = doubted => {}
            () = host.stopping() => return,
        }
    }
}

async fn announce_once(host: &Arc<Host>, asked: &Join, seeds: &[String]) -> Result<(), String> {
    let mut pause = PAUSE_MIN;
    loop {
        match announce_to_any(host, asked, seeds).await {
            Ok(()) => return Ok(()),
            Err(No::Final(why) | No::Never(why)) => return Err(why),
            Err(No::Later(why) | No::Ask(why) | No::Unfit(why)) => {
                tracing::debug!(%why, "the cluster has not heard yet where this host is");
            }
        }
        tokio::time::sleep(jittered(pause)).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

async fn announce_to_any(host: &Arc<Host>, asked: &Join, seeds: &[String]) -> Result<(), No> {
    let join = asked.clone();
    let answer = host.router.ask(|ticket| Input::Join { ticket, join });
    let mut addresses = Vec::new();
    match answer.await.into_response() {
        Response::Member(_) => return Ok(()),
        Response::Rejected(why) => return Err(No::Final(why.to_string())),
        Response::Unavailable(Unavailable::NotLeader { leader }) => addresses.extend(leader),
        Response::Unavailable(why) => return Err(No::Later(why.to_string())),
        other => return Err(No::Later(format!("{other:?}"))),
    }
    addresses.extend(seeds.iter().cloned());
    addresses.extend(host.peers.addresses());
    addresses.sort_unstable();
    addresses.dedup();
    let hello = host.peers.hello(0, Purpose::Bulk);
    let endpoint = &host.peers.endpoint;
    let joined = ask_all(endpoint, &hello, asked, &addresses).await?;
    host.peers.hint(&joined.members);
    host.bulk.hint(&joined.members);
    Ok(())
}
