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

/// The selectors that a swap goes through. A type that has another one was given it by somebody, and
/// keeps it.
const SELECTORS: [&str; 5] = [
    "rendezvous",
    "least-loaded",
    "bin-pack",
    "two-choices",
    "spread",
];

/// A swap that was made.
pub(crate) struct Swapped {
    name: &'static str,
    specs: Vec<TypeSpec>,
}

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

    /// Puts the next selector in charge of all types that have one of the round. The answer is for [`Rules::swapped`].
    pub(crate) fn swap(
        &self,
        client: Client,
    ) -> impl Future<Output = Result<Swapped, Error>> + Send + use<> {
        let name = SELECTORS[self.swaps % SELECTORS.len()];
        let types: Vec<TypeName> = self.specs.iter().map(|spec| spec.name.clone()).collect();
        async move {
            let selector = ModuleName::new(name)?;
            let mut specs = Vec::new();
            for of_type in types {
                // Others may have changed it meanwhile: only its selector is swapped.
                let mut next = client.get_type(&of_type).await?;
                if SELECTORS.contains(&next.selector.as_str()) {
                    next.selector = selector.clone();
                    next = client.put_type(next).await?;
                }
                specs.push(next);
            }
            Ok(Swapped { name, specs })
        }
    }

    /// Takes a swap over that was made; says what was done.
    pub(crate) fn swapped(&mut self, swapped: Swapped) -> String {
        self.see(&swapped.specs);
        self.swaps += 1;
        let name = swapped.name;
        match self
            .specs
            .iter()
            .find(|spec| spec.selector.as_str() != name)
        {
            None => format!("{name} decides now, for all types"),
            Some(kept) => format!("{name} decides now; {} keeps {}", kept.name, kept.selector),
        }
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
