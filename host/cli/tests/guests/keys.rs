//! Keys and signatures as the command line makes them, believed by what a host uses.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use maitred_protocol::{Digest, ModuleKind};
use maitred_sandbox::signature::{PublicKeys, parse_signature};

use crate::common::Place;

#[test]
fn a_signed_component_is_believed_as_what_it_is() {
    let place = Place::new();
    let made = place.json(&["module", "keygen", "keys/alice", "-o", "json"]);
    assert_eq!(made["name"], "alice");
    let at = |name: &str| place.path().join(name);
    let mode = std::fs::metadata(at("keys/alice.key")).unwrap();
    assert_eq!(mode.permissions().mode() & 0o777, 0o600);
    let again = place.error(&["module", "keygen", "keys/alice", "-o", "json"], 4);
    assert_eq!(again["code"], "exists");

    let component =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../selectors/prebuilt/start.wasm");
    std::fs::copy(component, at("start.wasm")).unwrap();
    let sign = ["module", "sign", "start.wasm", "--key"];
    let signed = place.json(&[&sign[..], &["keys/alice.key", "-o", "json"]].concat());
    assert_eq!(signed["module"]["kind"], "callback");
    place.error(&[&sign[..], &["keys/alice.pub", "-o", "json"]].concat(), 2);

    let read = |name: &str| std::fs::read_to_string(at(name)).unwrap();
    let keys = PublicKeys::parse(&read("keys/alice.pub")).unwrap();
    let signature = parse_signature(&read("start.wasm.sig")).unwrap();
    let digest = Digest::of(&std::fs::read(at("start.wasm")).unwrap());
    let believed = |digest, kind| keys.verify(&signature, digest, kind).ok();
    assert_eq!(believed(&digest, ModuleKind::Callback), Some("alice"));
    assert_eq!(believed(&digest, ModuleKind::Selector), None);
    assert_eq!(believed(&Digest::of(b""), ModuleKind::Callback), None);
}
