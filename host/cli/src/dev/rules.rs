//! The types of `dev`, and which selectors decide for them.

use maitred_client::{Client, Error};
use maitred_protocol::{ModuleName, OnNodeLost, TypeName, TypeSpec};

use crate::failure::Failure;

/// Types, the selectors that they begin with, and what happens when their node is lost.
pub(crate) const TYPES: [(&str, &str, OnNodeLost); 3] = [
    ("player", "spread", OnNodeLost::Recreate),
    ("room", "least-loaded", OnNodeLost::Recreate),
    ("match", "two-choices", OnNodeLost::Forget),
];

/// The selectors that a swap goes through.
const SELECTORS: [&str; 5] = [
    "rendezvous",
    "least-loaded",
    "bin-pack",
    "two-choices",
    "spread",
];

/// Who decides now.
pub(crate) struct Rules {
    specs: Vec<TypeSpec>,
    pub(crate) swaps: usize,
}

impl Rules {
    /// Describes the types.
    pub(crate) async fn install(client: &Client) -> Result<Self, Failure> {
        let mut specs = Vec::new();
        for (name, selector, lost) in TYPES {
            let mut spec = TypeSpec::new(TypeName::new(name)?);
            spec.selector = ModuleName::new(selector)?;
            spec.on_node_lost = lost;
            specs.push(client.put_type(spec).await?);
        }
        Ok(Self { specs, swaps: 0 })
    }

    /// Puts the next selector in charge of all types; says what was done.
    pub(crate) async fn swap(&mut self, client: &Client) -> Result<String, Error> {
        let name = SELECTORS[self.swaps % SELECTORS.len()];
        let selector = ModuleName::new(name)?;
        for spec in &mut self.specs {
            // Others may have changed it meanwhile: only its selector is swapped.
            let mut next = client.get_type(&spec.name).await?;
            next.selector = selector.clone();
            *spec = client.put_type(next).await?;
        }
        self.swaps += 1;
        Ok(format!("{name} decides now, for all types"))
    }

    /// Takes over what the host says of the types, which others may have changed.
    pub(crate) fn see(&mut self, types: &[TypeSpec]) {
        for spec in &mut self.specs {
            let seen = types.iter().find(|seen| seen.name == spec.name);
            // What was asked for before the last swap may come after it.
            if let Some(seen) = seen.filter(|seen| seen.revision > spec.revision) {
                *spec = seen.clone();
            }
        }
    }

    /// `player → spread  room → …`.
    pub(crate) fn text(&self) -> String {
        let each: Vec<String> = self
            .specs
            .iter()
            .map(|spec| format!("{} → {}", spec.name, spec.selector))
            .collect();
        each.join("   ")
    }
}
