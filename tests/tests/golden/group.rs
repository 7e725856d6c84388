//! The formats that came with groups of hosts.

use maitred_protocol::{
    ClientId, ClusterId, Configuration, Digest, EntryKind, HostName, Incarnation, Join, LogEntry,
    MemberRecord, MemberRole, Members, Notice, PeerBatch, PeerGreeting, PeerHello, PeerRefusal,
    PeerRequest, PeerResponse, Progress, Purpose, RaftKind, RaftMessage, Request, Response,
    SaveSnapshot, SavedSnapshot, SnapshotId,
};
use maitred_registry::{Command, Registry};

use super::{Formats, entry};

fn name() -> HostName {
    HostName::new("eu-2").unwrap()
}

fn put(host: u64, instance: u64, replaces: Option<u64>) -> Command {
    Command::PutMember {
        host,
        name: name(),
        address: "10.0.0.2:7600".to_owned(),
        instance,
        replaces,
    }
}

/// A state with what a cluster of several hosts adds, a remembered member among it.
fn registry() -> Registry {
    let mut registry = Registry::founded(&[1]);
    let open = maitred_registry::Entry {
        request: None,
        ..entry(Command::OpenSession, 0)
    };
    registry.apply(1, open, &mut Vec::new());
    let commands = [put(0, 77, None), Command::SetLevel(2)];
    for (index, command) in (2..).zip(commands) {
        registry.apply(index, entry(command, index), &mut Vec::new());
    }
    assert_eq!(registry.members().len(), 2, "the founder and the new one");
    registry
}

fn member() -> MemberRecord {
    MemberRecord {
        host: 9,
        name: name(),
        address: "10.0.0.2:7600".to_owned(),
        role: MemberRole::Learner,
        replaces: Some(2),
        arrived: true,
        progress: Some(Progress {
            matched: 40,
            heard_ms: Some(12),
            snapshot: Some(30),
        }),
    }
}

fn messages() -> Vec<RaftMessage> {
    let append = RaftMessage {
        kind: RaftKind::Append,
        from: 1,
        to: 2,
        term: 3,
        log_term: 2,
        index: 10,
        commit: 9,
        commit_term: 2,
        reject: false,
        reject_hint: 0,
        request_snapshot: 0,
        priority: 0,
        context: vec![8; 24],
        entries: vec![LogEntry {
            index: 11,
            term: 3,
            kind: EntryKind::Normal,
            data: vec![1, 2, 3],
        }],
        snapshot: None,
    };
    let configuration = Configuration {
        voters: vec![1, 2],
        learners: vec![3],
        voters_outgoing: vec![1, 4],
        learners_next: vec![5],
        auto_leave: true,
    };
    let snapshot = RaftMessage {
        kind: RaftKind::Snapshot,
        entries: Vec::new(),
        snapshot: Some(Box::new(SnapshotId {
            index: 40,
            term: 3,
            configuration,
        })),
        ..append.clone()
    };
    vec![append, snapshot]
}

impl Formats {
    /// Everything that came with groups.
    pub(super) fn group(&mut self) {
        self.clients();
        self.peers();
        self.entry("entry-put-member", &entry(put(0, 77, Some(2)), 10));
        self.entry("entry-remove-member", &entry(Command::RemoveMember(2), 11));
        self.entry("entry-set-level", &entry(Command::SetLevel(2), 12));
        let close = Command::CloseSession(ClientId(1));
        self.entry("entry-close-session", &entry(close, 13));
        self.snapshot("group-snapshot", &registry());
    }

    fn clients(&mut self) {
        let add = Request::AddMember {
            client: ClientId(1),
            name: name(),
            address: "10.0.0.2:7600".to_owned(),
        };
        self.frame("request-add-member", &add);
        let close = Request::CloseSession(ClientId(1));
        self.frame("request-close-session", &close);
        let members = Members {
            items: vec![member()],
            leader: Some(1),
            term: 3,
            commit: 44,
            level: 2,
        };
        self.frame("response-members", &Response::Members(Box::new(members)));
        let notice = Notice::Leader {
            host: Some(1),
            address: Some("10.0.0.1:7600".to_owned()),
            term: 3,
        };
        self.frame("notice", &notice);
        self.frame("save-snapshot", &SaveSnapshot { newest_kept: true });
        let saved = SavedSnapshot::File {
            index: 40,
            bytes: 1_000,
            digest: Digest([7; 32]),
        };
        self.frame("saved-snapshot", &saved);
    }

    fn peers(&mut self) {
        let cluster = ClusterId([5; 16]);
        let hello = PeerHello {
            cluster: Some(cluster),
            host: 9,
            instance: 77,
            to: 1,
            build: "maitred 0.1.0".to_owned(),
            level_max: 2,
            purpose: Purpose::Raft,
        };
        self.frame("peer-hello", &hello);
        let welcome = PeerGreeting::Welcome {
            cluster,
            host: 1,
            build: "maitred 0.1.0".to_owned(),
            level_max: 2,
        };
        self.frame("peer-welcome", &welcome);
        let refused = PeerGreeting::Refused(PeerRefusal::NotAMember(9));
        self.frame("peer-refused", &refused);
        let messages = messages();
        self.frame("peer-batch", &PeerBatch { group: 0, messages });
        let join = Join {
            host: 0,
            name: name(),
            address: "10.0.0.2:7600".to_owned(),
            instance: 77,
            level_max: 2,
        };
        self.frame("peer-join", &PeerRequest::Join(Box::new(join)));
        let (index, offset) = (40, 4_096);
        self.frame("peer-fetch", &PeerRequest::Snapshot { index, offset });
        let evidence = PeerRequest::Evidence(super::key(), Incarnation(9), Some(super::node()));
        self.frame("peer-evidence", &evidence);
        let joined = PeerResponse::Joined {
            cluster,
            member: Box::new(member()),
            members: vec![member()],
        };
        self.frame("peer-joined", &joined);
        let bytes = PeerResponse::Bytes {
            bytes: 900,
            total: 1_000,
            digest: Digest([7; 32]),
        };
        self.frame("peer-bytes", &bytes);
    }
}
