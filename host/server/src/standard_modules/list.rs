//! Which modules come with the program, and which did: their bytes, and the digests of all that were
//! ever standard.

use maitred_protocol::{Digest, ModuleKind, ModuleRecord};

/// A module that is part of the program.
#[derive(Clone, Copy)]
pub(super) struct Standard {
    pub(super) kind: ModuleKind,
    pub(super) name: &'static str,
    pub(super) bytes: &'static [u8],
}

impl Standard {
    pub(super) fn digest(&self) -> Digest {
        Digest::of(self.bytes)
    }
}

macro_rules! prebuilt {
    ($($kind:ident $name:literal,)*) => {
        [$(Standard {
            kind: ModuleKind::$kind,
            name: $name,
            bytes: include_bytes!(concat!("../../../../selectors/prebuilt/", $name, ".wasm")),
        },)*]
    };
}

/// All of them, in the order in which they are installed: the callback last.
pub(super) static ALL: [Standard; 17] = prebuilt! {
    Selector "least-loaded",
    Selector "two-choices",
    Selector "rendezvous",
    Selector "bin-pack",
    Selector "spread",
    Selector "random",
    Selector "round-robin",
    Selector "weighted",
    Selector "prefer-local",
    Selector "sticky",
    Selector "bounded-load",
    Selector "affinity",
    Selector "labels",
    Selector "latency",
    Selector "ordered",
    Fence "witness",
    Callback "start",
};

/// The callback of types that nobody described.
pub(super) const CALLBACK: &str = "start";
/// And their selector.
pub(super) const SELECTOR: &str = "least-loaded";

const DIGESTS: &str = include_str!("digests.txt");

/// All that are or were standard modules of this name, or of any.
pub(super) fn known(name: Option<&str>) -> impl Iterator<Item = Digest> {
    let lines = DIGESTS.lines().filter_map(|line| line.split_once(' '));
    let lines = lines.filter(move |(_, of)| name.is_none_or(|name| *of == name));
    lines.filter_map(|(hex, _)| {
        let hash = blake3::Hash::from_hex(hex).ok()?;
        Some(Digest(*hash.as_bytes()))
    })
}

/// What is to be done about a standard module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) push: bool,
    pub(super) activate: bool,
}

impl Plan {
    pub(super) fn new(standard: &Standard, record: Option<&ModuleRecord>) -> Self {
        let Some(record) = record else {
            return Self {
                push: true,
                activate: true,
            };
        };
        let is_ours = |digest| known(Some(standard.name)).any(|known| known == digest);
        let mut versions = record.versions.iter();
        // Somebody uses the name for something else.
        if record.kind != standard.kind || !versions.any(|version| is_ours(version.digest)) {
            return Self {
                push: false,
                activate: false,
            };
        }
        let digest = standard.digest();
        let mut versions = record.versions.iter();
        let has_it = versions.any(|version| version.digest == digest);
        // Somebody has had it, and took another.
        let declined = record.declined.contains(&digest);
        let mut versions = record.versions.iter();
        let active = versions.find(|version| Some(version.version) == record.active);
        Self {
            push: !has_it && !declined,
            activate: match active {
                None => true,
                Some(active) if active.digest == digest => false,
                // Somebody is trying something.
                Some(_) if record.canary.is_some() => false,
                // Whoever went back to an older one meant it; a policy of somebody's own stays.
                Some(active) => !declined && is_ours(active.digest),
            },
        }
    }

    pub(super) fn is_nothing(self) -> bool {
        !self.push && !self.activate
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use maitred_protocol::{ModuleName, ModuleVersion, Revision};

    #[test]
    fn every_prebuilt_module_is_installed_and_its_digest_is_listed() {
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../../selectors/prebuilt");
        let entries = std::fs::read_dir(dir).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let names = names.filter_map(|name| name.strip_suffix(".wasm").map(str::to_owned));
        for name in names {
            assert!(
                ALL.iter().any(|standard| standard.name == name),
                "{name} is not among the standard modules"
            );
        }
        for standard in &ALL {
            let (name, digest) = (standard.name, standard.digest());
            assert!(
                known(Some(name)).any(|known| known == digest),
                "add to digests.txt: {digest} {name}"
            );
        }
        let lines = DIGESTS.lines().filter(|line| !line.starts_with('#'));
        assert_eq!(lines.count(), known(None).count());
    }

    fn version(number: u32, digest: Digest) -> ModuleVersion {
        ModuleVersion {
            version: number,
            digest,
            bytes: 1,
            title: String::new(),
            features: Vec::new(),
            pushed_ms: 0,
            world: String::new(),
            abi: String::new(),
            hooks: Vec::new(),
            signature: None,
        }
    }

    fn record(kind: ModuleKind, versions: &[Digest], active: Option<u32>) -> ModuleRecord {
        let versions = versions.iter().zip(1..);
        ModuleRecord {
            name: ModuleName::new("spread").unwrap(),
            kind,
            versions: versions
                .map(|(digest, number)| version(number, *digest))
                .collect(),
            active,
            previous: None,
            config: "{}".to_owned(),
            config_version: 0,
            guard: String::new(),
            canary: None,
            shadow: None,
            declined: Vec::new(),
            activated: Revision(0),
            revision: Revision(0),
        }
    }

    #[test]
    fn what_an_operator_has_done_stays_and_the_rest_is_brought_up_to_date() {
        let spread = ALL.iter().find(|one| one.name == "spread").unwrap();
        let ours = spread.digest();
        let former = known(Some("spread")).find(|known| *known != ours).unwrap();
        let theirs = Digest::of(b"a policy of somebody's own");
        let of = |versions: &[Digest], active, declined: &[Digest]| ModuleRecord {
            declined: declined.to_vec(),
            ..record(ModuleKind::Selector, versions, active)
        };
        let fence = record(ModuleKind::Fence, &[theirs], Some(1));
        for (what, record, push, activate) in [
            ("there", of(&[ours], Some(1), &[]), false, false),
            ("broken off", of(&[ours], None, &[]), false, true),
            ("older", of(&[former], Some(1), &[]), true, true),
            ("not yet", of(&[former, ours], Some(1), &[]), false, true),
            (
                "gone back",
                of(&[former, ours], Some(1), &[ours]),
                false,
                false,
            ),
            (
                "gone back, and the newer one removed",
                of(&[former], Some(1), &[ours]),
                false,
                false,
            ),
            (
                "gone back from another version",
                of(&[former, theirs], Some(1), &[theirs]),
                true,
                true,
            ),
            ("their own name", of(&[theirs], None, &[]), false, false),
            ("replaced", of(&[former, theirs], Some(2), &[]), true, false),
            ("another kind", fence, false, false),
        ] {
            let plan = Plan::new(spread, Some(&record));
            assert_eq!((plan.push, plan.activate), (push, activate), "{what}");
        }
        let plan = Plan::new(spread, None);
        assert!(plan.push && plan.activate);
    }
}
