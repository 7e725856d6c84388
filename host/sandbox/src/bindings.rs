//! Rust bindings of `wit/policy.wit`, generated when this crate is compiled: one module a world. The
//! version before has its own, in `v0_1`.
//!
//! Selectors and scanners are called directly, on a thread of their own; callbacks and fences on
//! fibers, because they wait. Arguments are borrowed (a decision clones no string).
#![allow(
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    elided_lifetimes_in_paths,
    reason = "generated bindings"
)]

/// The world `selector-module`, and the types of all worlds.
pub mod selector {
    wasmtime::component::bindgen!({
        path: "../../wit",
        world: "selector-module",
        ownership: Borrowing { duplicate_if_necessary: false },
    });
}

/// The world `scanner-module`.
pub mod scanner {
    wasmtime::component::bindgen!({
        path: "../../wit",
        world: "scanner-module",
        ownership: Borrowing { duplicate_if_necessary: false },
        with: {
            "maitred:policy/types": crate::bindings::selector::maitred::policy::types,
            "maitred:policy/host": crate::bindings::selector::maitred::policy::host,
            "maitred:policy/answers": crate::bindings::selector::maitred::policy::answers,
        },
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

/// The world `fence-module`.
pub mod fence {
    wasmtime::component::bindgen!({
        path: "../../wit",
        world: "fence-module",
        ownership: Borrowing { duplicate_if_necessary: false },
        exports: { default: async },
        with: {
            "maitred:policy/host": crate::bindings::selector::maitred::policy::host,
            "maitred:policy/records": crate::bindings::callback::maitred::policy::records,
        },
    });
}
