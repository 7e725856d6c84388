//! Rust bindings of `wit/policy.wit`, generated when this crate is compiled: one module a world.
//!
//! Selectors are called directly, on a thread of their own; callbacks on fibers, because they wait.
//! Arguments are borrowed (a decision clones no string). Only `selector`, `callback`, `guest` and
//! `convert` name what is here.
#![allow(
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    elided_lifetimes_in_paths,
    reason = "generated bindings"
)]

/// The world `selector-module`, and the types of both worlds.
pub mod selector {
    wasmtime::component::bindgen!({
        path: "../../wit",
        world: "selector-module",
        ownership: Borrowing { duplicate_if_necessary: false },
    });
}

/// The world `callback-module`.
pub mod callback {
    wasmtime::component::bindgen!({
        path: "../../wit",
        world: "callback-module",
        ownership: Borrowing { duplicate_if_necessary: false },
        imports: { "maitred:policy/node": async, "maitred:policy/records": async },
        exports: { default: async },
        with: {
            "maitred:policy/types": crate::bindings::selector::maitred::policy::types,
            "maitred:policy/host": crate::bindings::selector::maitred::policy::host,
        },
    });
}
