//! The policies of the templates, natively: what a guest has to decide.

use maitred_guest::compose::low;
use maitred_guest::glue::SelectorInstance;
use maitred_guest::testing::TestHost;
use maitred_guest::{self as guest, Host, Selector, bindings, lowest};
use maitred_registry::decide::{Answer, Choose, Offer, Verdict};
use maitred_registry::feature::{Ask, Feature, Manifest};

fn manifest(name: &str) -> Manifest {
    let features: Vec<Feature> = ["processes", "cpu"]
        .map(|name| name.parse().unwrap())
        .into();
    Manifest {
        title: format!("{name} 0.1.0"),
        ask: Ask::Lowest(features[0].clone(), 16),
        features,
        terms: vec!["processes".to_owned(), "cpu".to_owned()],
    }
}

/// The selector in JavaScript, Python and C: by processes, then by processor, unknown ones last;
/// equal ones in the order of the candidates.
pub(crate) struct LeastBusy(Manifest);

impl LeastBusy {
    pub(crate) fn new(name: &str) -> Self {
        Self(manifest(name))
    }
}

impl Choose for LeastBusy {
    fn manifest(&self) -> &Manifest {
        &self.0
    }

    fn choose(&mut self, offer: Offer<'_>) -> Result<Answer, String> {
        let value = |row: usize, column: usize| {
            let value = offer.features[2 * row + column];
            if value.is_nan() { f32::INFINITY } else { value }
        };
        let mut order: Vec<usize> = (0..offer.slots.len()).collect();
        order.sort_by(|&a, &b| {
            value(a, 0)
                .total_cmp(&value(b, 0))
                .then(value(a, 1).total_cmp(&value(b, 1)))
        });
        order.truncate(5);
        let scores = order
            .iter()
            .flat_map(|row| &offer.features[2 * row..2 * row + 2]);
        Ok(Answer {
            verdict: Verdict::Choose(offer.slots[order[0]]),
            scores: scores.copied().collect(),
            scored: order.iter().map(|&row| offer.slots[row]).collect(),
        })
    }
}

/// The selector in Rust, in the words of its template.
#[derive(Default)]
struct Policy;

impl Selector for Policy {
    const NAME: &'static str = "twin";
    const VERSION: &'static str = "0.1.0";
    const FEATURES: &'static [&'static str] = &["processes", "cpu"];
    const TERMS: &'static [&'static str] = &["processes", "cpu"];

    fn ask(&self) -> guest::Ask {
        lowest("processes", 16)
    }

    fn select(
        &self,
        request: &guest::Request,
        nodes: guest::Candidates<'_>,
        _: &dyn Host,
    ) -> Result<guest::Answer, String> {
        let score = [low(0), low(1).times(0.5)];
        Ok(nodes.all().score(&score).best(request.seed))
    }
}

/// [`Policy`], natively.
pub(crate) struct Composed {
    manifest: Manifest,
    policy: SelectorInstance<Policy>,
    host: TestHost,
}

impl Composed {
    pub(crate) fn new(name: &str) -> Self {
        let host = TestHost::default();
        Self {
            manifest: manifest(name),
            policy: SelectorInstance::new(&host),
            host,
        }
    }
}

impl Choose for Composed {
    fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    fn choose(&mut self, offer: Offer<'_>) -> Result<Answer, String> {
        let mut request = guest::testing::request("player", offer.request.key.id.as_str());
        request.seed = offer.seed;
        let lists = bindings::selector::exports::maitred::policy::selector::Candidates {
            slots: offer.slots.to_vec(),
            features: offer.features.to_vec(),
        };
        let answer = self.policy.select(&request, &lists, &self.host)?;
        let guest::Verdict::Choose(slot) = answer.verdict else {
            return Err(format!("{:?}", answer.verdict));
        };
        Ok(Answer {
            verdict: Verdict::Choose(slot),
            scored: answer.scores.slots,
            scores: answer.scores.values,
        })
    }
}
