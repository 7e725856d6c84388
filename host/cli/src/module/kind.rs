//! What a component is for: as the command line says it, or as its exports do.

use clap::ValueEnum;
use maitred_guest_build::inspect;
use maitred_protocol::ModuleKind;

use crate::failure::{Exit, Failure};

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum KindArg {
    /// Chooses nodes: world `selector-module` or `scanner-module`
    Selector,
    /// Starts processes: world `callback-module`
    Callback,
    /// Says whether a lost node is dead, for types with restart level strict: world `fence-module`
    Fence,
}

impl From<KindArg> for ModuleKind {
    fn from(kind: KindArg) -> Self {
        match kind {
            KindArg::Selector => Self::Selector,
            KindArg::Callback => Self::Callback,
            KindArg::Fence => Self::Fence,
        }
    }
}

/// What the command line says, else what the component exports; a scanner is a selector to those who
/// use it.
///
/// # Errors
/// Exit code 8 when it is no component, or exports none of them.
pub(super) fn kind_of(given: Option<KindArg>, component: &[u8]) -> Result<ModuleKind, Failure> {
    if let Some(kind) = given {
        return Ok(kind.into());
    }
    match inspect(component)?.kind {
        Some(world) => Ok(world.kind()),
        None => Err(Failure::new(
            Exit::Module,
            "world",
            "it exports no selector, scanner, callback or fence",
            "take a component that `maitred module build` made",
        )),
    }
}
