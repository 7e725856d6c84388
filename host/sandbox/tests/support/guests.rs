//! Guests written by hand. Each is a core module with the functions that the canonical ABI asks
//! for; what `select`, `describe`, `spawn` or `examine` does is the test's.
//!
//! Memory: 0.. constants, 1024.. results, 4096.. what the host hands over, from the start again
//! after each call.

use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// The WIT package as it is.
pub fn policy() -> String {
    std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../wit/policy.wit")).unwrap()
}

/// Makes a component of a core module.
pub fn component(core: &str, wit: &str, world: &str) -> Vec<u8> {
    let mut core = wat::parse_str(core).unwrap_or_else(|error| panic!("{error}\n{core}"));
    let mut resolve = Resolve::default();
    let package = resolve.push_str("policy.wit", wit).unwrap();
    let world = resolve.select_world(&[package], Some(world)).unwrap();
    embed_component_metadata(&mut core, &resolve, world, StringEncoding::UTF8).unwrap();
    ComponentEncoder::default()
        .module(&core)
        .unwrap()
        .validate(true)
        .encode()
        .unwrap()
}

/// What a guest is made from: pieces of WebAssembly text.
pub struct Parts {
    pub imports: &'static str,
    /// More items of the module.
    pub items: String,
    /// Leaves the address of the manifest.
    pub describe: String,
    /// Leaves the address of the result; `$args` is the address of the arguments. A fence's are not
    /// in memory: see [`LOST`].
    pub body: String,
    pub memory: &'static str,
}

impl Default for Parts {
    fn default() -> Self {
        Self {
            imports: "",
            items: String::new(),
            describe: "(i32.const 256)".to_owned(),
            body: choose(FIRST),
            memory: "1",
        }
    }
}

impl Parts {
    pub fn body(body: &str) -> Self {
        Self {
            body: body.to_owned(),
            ..Self::default()
        }
    }

    fn core(&self, interface: &str, function: &str, params: &str) -> String {
        let Self {
            imports,
            items,
            describe,
            body,
            memory,
        } = self;
        format!(
            r#"(module
              {imports}
              (memory (export "memory") {memory})
              (global $next (mut i32) (i32.const 4096))
              (data (i32.const 0) "tester1.0processes")
              ;; At 256 a manifest: name "tester", version "1.0", the feature "processes", ask: all.
              (data (i32.const 256) "\00\00\00\00\06\00\00\00\06\00\00\00\03\00\00\00\40\00\00\00\01\00\00\00\00\00\00\00")
              (data (i32.const 64) "\09\00\00\00\09\00\00\00")
              (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
                (local $at i32)
                (local.set $at (i32.and (i32.add (global.get $next) (i32.const 7)) (i32.const -8)))
                (global.set $next (i32.add (local.get $at) (local.get 3)))
                (if (i32.gt_u (global.get $next) (i32.mul (memory.size) (i32.const 65536)))
                  (then (drop (memory.grow (i32.const 1)))))
                (local.get $at))
              {items}
              (func (export "maitred:policy/{interface}#describe") (result i32) {describe})
              (func (export "maitred:policy/{interface}#{function}") {params} (result i32)
                (local $n i32)
                {body}
                (global.set $next (i32.const 4096))))"#
        )
    }

    pub fn selector(&self) -> Vec<u8> {
        component(
            &self.core("selector@0.1.0", "select", ARGS),
            &policy(),
            "selector-module",
        )
    }

    pub fn callback(&self) -> Vec<u8> {
        component(
            &self.core("callback@0.1.0", "spawn", ARGS),
            &policy(),
            "callback-module",
        )
    }

    pub fn fence(&self) -> Vec<u8> {
        self.fence_of(&policy())
    }

    /// A fence of another world.
    pub fn fence_of(&self, wit: &str) -> Vec<u8> {
        let core = self.core("fence@0.1.0", "examine", LOST);
        component(&core, wit, "fence-module")
    }

    /// A selector of another version or shape of the package.
    pub fn selector_of(&self, wit: &str, interface: &str) -> Vec<u8> {
        component(
            &self.core(interface, "select", ARGS),
            wit,
            "selector-module",
        )
    }
}

/// The one parameter of `select` and `spawn`.
const ARGS: &str = "(param $args i32)";

/// The parameters of `examine`: address and length of each text and of the list of labels, then
/// numbers.
pub const LOST: &str =
    "(param $node i32) (param $node_len i32) (param $epoch i32) (param $epoch_len i32)
    (param $address i32) (param $address_len i32) (param $labels i32) (param $labels_len i32)
    (param $lost_for i32) (param $attempt i32) (param $seed i32) (param $time i32)";

/// `ok(dead(proof))`, a text at `at` of `bytes` bytes.
pub fn dead(at: &str, bytes: &str) -> String {
    format!(
        "(i32.store (i32.const 1024) (i32.const 0)) (i32.store (i32.const 1028) (i32.const 0))
         (i32.store (i32.const 1032) {at}) (i32.store (i32.const 1036) {bytes}) (i32.const 1024)"
    )
}

/// `ok(alive-or-unknown(ms))`.
pub fn unknown(ms: &str) -> String {
    format!(
        "(i32.store (i32.const 1024) (i32.const 0)) (i32.store (i32.const 1028) (i32.const 1))
         (i32.store (i32.const 1032) {ms}) (i32.const 1024)"
    )
}

/// `ok(some(slot))`, where the slot is left by `slot`.
pub fn choose(slot: &str) -> String {
    format!(
        "(i32.store8 (i32.const 1024) (i32.const 0))
         (i32.store8 (i32.const 1028) (i32.const 1))
         (i32.store (i32.const 1032) {slot})
         (i32.const 1024)"
    )
}

/// The first slot that was offered.
pub const FIRST: &str = "(i32.load (i32.load (i32.add (local.get $args) (i32.const 68))))";

/// A selector that chooses the first node that it is offered.
pub fn first() -> Vec<u8> {
    Parts::body(&choose(FIRST)).selector()
}

/// A selector that does `what` when the seed is 13, and chooses the first node otherwise.
pub fn unlucky(what: &str) -> Vec<u8> {
    unlucky_with(what, Parts::default())
}

/// The same, with other parts.
pub fn unlucky_with(what: &str, parts: Parts) -> Vec<u8> {
    let body = format!(
        "(if (i32.eq (i32.load (i32.add (local.get $args) (i32.const 60))) (i32.const 13)) (then {what}))
         {}",
        choose(FIRST)
    );
    Parts { body, ..parts }.selector()
}

/// The import `host.log`.
pub const LOG: &str =
    r#"(import "maitred:policy/host@0.1.0" "log" (func $log (param i32 i32 i32)))"#;

/// The import `node.start`.
pub const START: &str =
    r#"(import "maitred:policy/node@0.1.0" "start" (func $start (param i32 i32 i32 i32)))"#;

/// The import `records.get`.
pub const GET: &str =
    r#"(import "maitred:policy/records@0.1.0" "get" (func $get (param i32 i32 i32 i32 i32)))"#;

/// A body for `spawn`: passes the arguments to the node, waits `deadline_ms` at most, and answers
/// what it answered; a failure becomes `elsewhere`.
pub fn start(deadline_ms: u32) -> String {
    format!(
        "(call $start (i32.load offset=16 (local.get $args)) (i32.load offset=20 (local.get $args))
           (i32.const {deadline_ms}) (i32.const 1024))
         (if (i32.load8_u (i32.const 1024)) (then (i32.store8 (i32.const 1028) (i32.const 0))))
         (i32.const 1024)"
    )
}

/// Loops until the local `$n` has counted down.
pub fn spin(rounds: u32) -> String {
    format!(
        "(local.set $n (i32.const {rounds}))
         (loop $again (br_if $again (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))"
    )
}
