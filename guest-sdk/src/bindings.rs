//! Rust bindings of `wit/policy.wit`, generated when this crate is compiled.
//!
//! One module for each world, over one set of types and imports, so that a `Request` is the same
//! type for selectors and callbacks, an `Answer` for selectors and scanners, and a `Process` for
//! callbacks and fences. Nothing here is written by hand. Only the modules `glue` and `imports` and
//! the export macros name what is here; authors see the re-exports in `lib`.
#![allow(missing_docs, unreachable_pub, reason = "generated bindings")]

/// The world `selector-module`, and the types of all worlds.
pub mod selector {
    wit_bindgen::generate!({
        path: "../wit",
        world: "selector-module",
        pub_export_macro: true,
        export_macro_name: "export_selector_bindings",
        additional_derives: [Clone, PartialEq],
    });
}

/// The world `scanner-module`.
pub mod scanner {
    wit_bindgen::generate!({
        path: "../wit",
        world: "scanner-module",
        with: {
            "maitred:policy/types@0.2.0": crate::bindings::selector::maitred::policy::types,
            "maitred:policy/host@0.2.0": crate::bindings::selector::maitred::policy::host,
            "maitred:policy/answers@0.2.0": crate::bindings::selector::maitred::policy::answers,
            "maitred:policy/nodes@0.2.0": generate,
        },
        pub_export_macro: true,
        export_macro_name: "export_scanner_bindings",
        additional_derives: [Clone, PartialEq],
    });
}

/// The world `callback-module`.
pub mod callback {
    wit_bindgen::generate!({
        path: "../wit",
        world: "callback-module",
        with: {
            "maitred:policy/types@0.2.0": crate::bindings::selector::maitred::policy::types,
            "maitred:policy/host@0.2.0": crate::bindings::selector::maitred::policy::host,
            "maitred:policy/node@0.2.0": generate,
            "maitred:policy/records@0.2.0": generate,
        },
        pub_export_macro: true,
        export_macro_name: "export_callback_bindings",
        additional_derives: [Clone, PartialEq],
    });
}

/// The world `fence-module`.
pub mod fence {
    wit_bindgen::generate!({
        path: "../wit",
        world: "fence-module",
        with: {
            "maitred:policy/host@0.2.0": crate::bindings::selector::maitred::policy::host,
            "maitred:policy/records@0.2.0": crate::bindings::callback::maitred::policy::records,
        },
        pub_export_macro: true,
        export_macro_name: "export_fence_bindings",
        additional_derives: [Clone, PartialEq],
    });
}
