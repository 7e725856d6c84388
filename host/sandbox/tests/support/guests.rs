//! Guests written by hand. Each is a core module with the functions that the canonical ABI asks
//! for; what `select`, `describe`, `spawn` or `examine` does is the test's.
//!
//! Memory: 0.. constants, 1024.. results, 4096.. what the host hands over, from the start again
//! after each call.

use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// The WIT package as it is.
pub fn policy() -> String {
    include_str!("../../../../wit/policy.wit").to_owned()
}

/// Makes a component of a core module, as text or as bytes.
pub fn component(core: impl AsRef<[u8]>, wit: &str, world: &str) -> Vec<u8> {
    let core = core.as_ref();
    let text = || String::from_utf8_lossy(core);
    let parsed = wat::parse_bytes(core);
    let mut core = parsed
        .unwrap_or_else(|error| panic!("{error}\n{}", text()))
        .into_owned();
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
    /// Leaves the address of the result; `$config` and `$len` are address and length of the text.
    pub validate: String,
    /// Leaves the address of the result; `$args` is the address of the arguments. A fence's are not
    /// in memory: see [`LOST`].
    pub body: String,
    /// Of a callback: `compensate` leaves nothing; `on-node-lost` and `on-exit` leave the address of
    /// their advice. `$args` is the address of the arguments.
    pub hooks: [String; 3],
    pub memory: &'static str,
}

impl Default for Parts {
    fn default() -> Self {
        let usual = "(i32.store8 (i32.const 1600) (i32.const 0)) (i32.const 1600)";
        Self {
            imports: "",
            items: String::new(),
            describe: "(i32.const 256)".to_owned(),
            validate: valid(),
            body: choose(FIRST),
            hooks: [String::new(), usual.to_owned(), usual.to_owned()],
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

    /// A fence or a callback without hooks, whose manifest is another.
    fn plain(&self) -> String {
        match self.describe.as_str() {
            "(i32.const 256)" => "(i32.const 320)".to_owned(),
            describe => describe.to_owned(),
        }
    }

    fn core(&self, interface: &str, describe: &str, exports: &str) -> String {
        let Self {
            imports,
            items,
            validate,
            memory,
            ..
        } = self;
        format!(
            r#"(module
              {imports}
              (memory (export "memory") {memory})
              (global $next (mut i32) (i32.const 4096))
              (data (i32.const 0) "tester1.0processes")
              ;; At 256 a manifest: name "tester", version "1.0", the feature "processes", no terms,
              ;; ask: all. At 320 the same without features, which fits callbacks and fences.
              (data (i32.const 256) "\00\00\00\00\06\00\00\00\06\00\00\00\03\00\00\00\40\00\00\00\01\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00")
              (data (i32.const 320) "\00\00\00\00\06\00\00\00\06\00\00\00\03\00\00\00\00\00\00\00\00\00\00\00")
              (data (i32.const 64) "\09\00\00\00\09\00\00\00")
              (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
                (local $at i32)
                (local.set $at (i32.and (i32.add (global.get $next) (i32.const 7)) (i32.const -8)))
                (global.set $next (i32.add (local.get $at) (local.get 3)))
                (loop $more
                  (if (i32.gt_u (global.get $next) (i32.mul (memory.size) (i32.const 65536)))
                    (then (br_if $more (i32.ne (memory.grow (i32.const 1)) (i32.const -1))))))
                (local.get $at))
              {items}
              (func (export "maitred:policy/{interface}#describe") (result i32) {describe})
              (func (export "maitred:policy/{interface}#validate") (param $config i32) (param $len i32) (result i32)
                {validate}
                (global.set $next (i32.const 4096)))
              {exports})"#
        )
    }

    /// One exported function that takes its arguments in memory, or as `params` says.
    fn function(&self, name: &str, params: &str) -> String {
        let body = &self.body;
        format!(
            r#"(func (export "maitred:policy/{name}") {params} (result i32)
                (local $n i32)
                {body}
                (global.set $next (i32.const 4096)))"#
        )
    }

    pub fn selector(&self) -> Vec<u8> {
        self.selector_of(&policy(), "selector@0.2.0")
    }

    pub fn scanner(&self) -> Vec<u8> {
        let exports = self.function("scanner@0.2.0#scan", ARGS);
        let core = self.core("scanner@0.2.0", &self.describe, &exports);
        component(&core, &policy(), "scanner-module")
    }

    pub fn callback(&self) -> Vec<u8> {
        self.callback_of(&policy())
    }

    /// A callback of another world.
    pub fn callback_of(&self, wit: &str) -> Vec<u8> {
        let [compensate, lost, exit] = &self.hooks;
        let hook = |name: &str, result: &str, body: &str| {
            format!(
                r#"(func (export "maitred:policy/callback@0.2.0#{name}") {ARGS} {result}
                {body}
                (global.set $next (i32.const 4096)))"#
            )
        };
        let exports = [
            self.function("callback@0.2.0#spawn", ARGS),
            hook("compensate", "", compensate),
            hook("on-node-lost", "(result i32)", lost),
            hook("on-exit", "(result i32)", exit),
        ];
        let core = self.core("callback@0.2.0", &self.plain(), &exports.concat());
        component(&core, wit, "callback-module")
    }

    pub fn fence(&self) -> Vec<u8> {
        self.fence_of(&policy())
    }

    /// A fence of another world.
    pub fn fence_of(&self, wit: &str) -> Vec<u8> {
        let exports = self.function("fence@0.2.0#examine", LOST);
        let core = self.core("fence@0.2.0", &self.plain(), &exports);
        component(&core, wit, "fence-module")
    }

    /// A selector of another version or shape of the package.
    pub fn selector_of(&self, wit: &str, interface: &str) -> Vec<u8> {
        let exports = self.function(&format!("{interface}#select"), ARGS);
        let core = self.core(interface, &self.describe, &exports);
        component(&core, wit, "selector-module")
    }
}

/// The one parameter of `select`, `scan`, `spawn` and the hooks.
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

/// `ok`, of `validate`.
pub fn valid() -> String {
    "(i32.store8 (i32.const 1536) (i32.const 0)) (i32.const 1536)".to_owned()
}

/// `err`, of `validate`: the configuration itself.
pub fn invalid() -> String {
    "(i32.store8 (i32.const 1536) (i32.const 1)) (i32.store (i32.const 1540) (local.get $config))
     (i32.store (i32.const 1544) (local.get $len)) (i32.const 1536)"
        .to_owned()
}

/// `ok` of an answer without scores: the number of the verdict, and its words.
pub fn verdict(case: u32, words: [&str; 3]) -> String {
    let [a, b, c] = words;
    format!(
        "(i32.store8 (i32.const 1024) (i32.const 0)) (i32.store8 (i32.const 1028) (i32.const {case}))
         (i32.store (i32.const 1032) {a}) (i32.store (i32.const 1036) {b}) (i32.store (i32.const 1040) {c})
         (i64.store (i32.const 1044) (i64.const 0)) (i64.store (i32.const 1052) (i64.const 0))
         (i32.const 1024)"
    )
}

const ZERO: &str = "(i32.const 0)";

/// `ok(choose(slot))`, where the slot is left by `slot`.
pub fn choose(slot: &str) -> String {
    verdict(0, [slot, ZERO, ZERO])
}

/// `ok(none)`.
pub fn none() -> String {
    verdict(1, [ZERO, ZERO, ZERO])
}

/// `ok(ranked(...))` of so many slots at an address.
pub fn ranked(at: &str, count: u32) -> String {
    verdict(2, [at, &format!("(i32.const {count})"), ZERO])
}

/// `ok(reject(code, "tester"))`.
pub fn reject(code: u32) -> String {
    verdict(3, [&format!("(i32.const {code})"), ZERO, "(i32.const 6)"])
}

/// `ok(wait(ms))`.
pub fn wait(ms: u32) -> String {
    verdict(4, [&format!("(i32.const {ms})"), ZERO, ZERO])
}

/// The address of the slots that were offered.
pub const SLOTS: &str = "(i32.load offset=80 (local.get $args))";

/// The seed of the request.
pub const SEED: &str = "(i32.load offset=72 (local.get $args))";

/// The first slot that was offered.
pub const FIRST: &str = "(i32.load (i32.load offset=80 (local.get $args)))";

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
        "(if (i32.eq {SEED} (i32.const 13)) (then {what}))
         {}",
        choose(FIRST)
    );
    Parts { body, ..parts }.selector()
}

/// The import `host.log`.
pub const LOG: &str =
    r#"(import "maitred:policy/host@0.2.0" "log" (func $log (param i32 i32 i32)))"#;

/// The import `node.start`.
pub const START: &str =
    r#"(import "maitred:policy/node@0.2.0" "start" (func $start (param i32 i32 i32 i32)))"#;

/// The import `records.get`.
pub const GET: &str =
    r#"(import "maitred:policy/records@0.2.0" "get" (func $get (param i32 i32 i32 i32 i32)))"#;

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
