//! The macros that make a component of a policy: each connects an instance of `glue` to the
//! generated bindings of one world. Natively they expand to nothing, so that one test program can
//! link many policies.

/// Makes a component of the world `selector-module` of a type that is a [`Selector`](crate::Selector);
/// once a crate.
#[macro_export]
macro_rules! export_selector {
    ($policy:ty) => {
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            use $crate::bindings::selector as bindings;
            use $crate::glue::{HostImport, SelectorInstance, log_panics};

            struct Module;

            ::std::thread_local! {
                static INSTANCE: SelectorInstance<$policy> = {
                    log_panics();
                    SelectorInstance::new(&HostImport)
                };
            }

            impl bindings::exports::maitred::policy::selector::Guest for Module {
                fn describe() -> $crate::Manifest {
                    INSTANCE.with(|instance| instance.describe())
                }

                fn validate(config: String) -> Result<(), String> {
                    log_panics();
                    <$policy as $crate::Selector>::validate(&config, &HostImport)
                }

                fn select(
                    request: $crate::Request,
                    candidates: bindings::exports::maitred::policy::selector::Candidates,
                ) -> Result<$crate::Answer, String> {
                    INSTANCE.with(|instance| instance.select(&request, &candidates, &HostImport))
                }
            }

    bindings::export_selector_bindings!(Module with_types_in bindings);
        };
    };
}

/// Makes a component of the world `scanner-module` of a type that is a [`Scanner`](crate::Scanner);
/// once a crate.
#[macro_export]
macro_rules! export_scanner {
    ($policy:ty) => {
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            use $crate::bindings::scanner as bindings;
            use $crate::glue::{HostImport, NodesImport, ScannerInstance, log_panics};

            struct Module;

            ::std::thread_local! {
                static INSTANCE: ScannerInstance<$policy> = {
                    log_panics();
                    ScannerInstance::new(&HostImport)
                };
            }

            impl bindings::exports::maitred::policy::scanner::Guest for Module {
                fn describe() -> $crate::ScannerManifest {
                    INSTANCE.with(|instance| instance.describe())
                }

                fn validate(config: String) -> Result<(), String> {
                    log_panics();
                    <$policy as $crate::Scanner>::validate(&config, &HostImport)
                }

                fn scan(request: $crate::Request) -> Result<$crate::Answer, String> {
                    INSTANCE.with(|instance| instance.scan(&request, &NodesImport, &HostImport))
                }
            }

    bindings::export_scanner_bindings!(Module with_types_in bindings);
        };
    };
}

/// Makes a component of the world `callback-module` of a type that is a [`Callback`](crate::Callback);
/// once a crate.
#[macro_export]
macro_rules! export_callback {
    ($policy:ty) => {
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            use $crate::bindings::callback as bindings;
            use $crate::glue::{
                CallbackInstance, HostImport, NodeImport, RecordsImport, log_panics,
            };

            struct Module;

            ::std::thread_local! {
                static INSTANCE: CallbackInstance<$policy> = {
                    log_panics();
                    CallbackInstance::new(&HostImport)
                };
            }

            fn advise(hook: $crate::Hook, ended: &$crate::Ended) -> $crate::Advice {
                INSTANCE.with(|instance| instance.advise(hook, ended, &HostImport, &RecordsImport))
            }

            impl bindings::exports::maitred::policy::callback::Guest for Module {
                fn describe() -> $crate::CallbackManifest {
                    INSTANCE.with(|instance| instance.describe())
                }

                fn validate(config: String) -> Result<(), String> {
                    log_panics();
                    <$policy as $crate::Callback>::validate(&config, &HostImport)
                }

                fn spawn(
                    request: $crate::Request,
                    placement: $crate::Placement,
                ) -> Result<$crate::Started, $crate::SpawnFailure> {
                    let access = $crate::Access {
                        host: &HostImport,
                        node: &NodeImport,
                        records: &RecordsImport,
                    };
                    INSTANCE.with(|instance| instance.spawn(&request, &placement, access))
                }

                fn compensate(
                    request: $crate::Request,
                    placement: $crate::Placement,
                    reason: String,
                ) {
                    INSTANCE.with(|instance| {
                        instance.compensate(
                            &request,
                            &placement,
                            &reason,
                            &HostImport,
                            &RecordsImport,
                        )
                    })
                }

                fn on_node_lost(ended: $crate::Ended) -> $crate::Advice {
                    advise($crate::Hook::NodeLost, &ended)
                }

                fn on_exit(ended: $crate::Ended) -> $crate::Advice {
                    advise($crate::Hook::Exit, &ended)
                }
            }

    bindings::export_callback_bindings!(Module with_types_in bindings);
        };
    };
}

/// Makes a component of the world `fence-module` of a type that is a [`Fence`](crate::Fence); once a
/// crate.
#[macro_export]
macro_rules! export_fence {
    ($policy:ty) => {
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            use $crate::bindings::fence as bindings;
            use $crate::glue::{FenceInstance, HostImport, RecordsImport, log_panics};

            struct Module;

            ::std::thread_local! {
                static INSTANCE: FenceInstance<$policy> = {
                    log_panics();
                    FenceInstance::new(&HostImport)
                };
            }

            impl bindings::exports::maitred::policy::fence::Guest for Module {
                fn describe() -> $crate::FenceManifest {
                    INSTANCE.with(|instance| instance.describe())
                }

                fn validate(config: String) -> Result<(), String> {
                    log_panics();
                    <$policy as $crate::Fence>::validate(&config, &HostImport)
                }

                fn examine(lost: $crate::LostNode) -> Result<$crate::FenceVerdict, String> {
                    INSTANCE.with(|instance| instance.examine(&lost, &HostImport, &RecordsImport))
                }
            }

    bindings::export_fence_bindings!(Module with_types_in bindings);
        };
    };
}
