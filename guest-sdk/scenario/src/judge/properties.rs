//! Properties of a whole case: how its processes lie on the nodes.

use std::collections::{BTreeMap, BTreeSet};

use super::Run;
use crate::case::Case;
use crate::node::Node;

impl Case {
    /// A sentence for each property that does not hold.
    pub(super) fn properties(&self, run: &Run, nodes: &[Node]) -> Vec<String> {
        let placed: Vec<(usize, usize)> = run
            .first
            .iter()
            .enumerate()
            .filter_map(|(at, made)| Some((at, made.outcome.node()?)))
            .filter(|&(_, place)| place < nodes.len())
            .collect();
        let mut counts = vec![0_u32; nodes.len()];
        for &(_, place) in &placed {
            counts[place] += 1;
        }
        [
            self.gap(nodes, &counts),
            self.max_share(nodes, &counts),
            self.spread(nodes, &counts),
            self.groups(&placed),
            self.moved(run),
            self.cost_ratio(nodes, &placed),
            self.micros(run),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    /// Places of the nodes that the case's requests could be offered, however full they are.
    fn eligible<'a>(&'a self, nodes: &'a [Node]) -> impl Iterator<Item = (usize, &'a Node)> {
        let request = &self.request;
        nodes.iter().enumerate().filter(|(_, node)| {
            let mut require = request.require.iter();
            !node.cordoned
                && (node.types.is_empty() || node.types.contains(&request.process_type))
                && require.all(|(key, value)| node.labels.get(key) == Some(value))
        })
    }

    fn gap(&self, nodes: &[Node], counts: &[u32]) -> Option<String> {
        let limit = self.expect.gap?;
        let eligible = self.eligible(nodes);
        let loads: Vec<u32> = eligible
            .map(|(place, node)| node.processes + counts[place])
            .collect();
        let most = loads.iter().copied().max().unwrap_or(0);
        let sum: f64 = loads.iter().copied().map(f64::from).sum();
        let gap = f64::from(most) - sum / loads.len().max(1) as f64;
        (gap > limit).then(|| {
            format!(
                "the fullest node has {most} processes, {gap:.2} above the average; {limit} at most"
            )
        })
    }

    fn max_share(&self, nodes: &[Node], counts: &[u32]) -> Option<String> {
        let limit = self.expect.max_share?;
        let sum: u32 = counts.iter().sum();
        let (place, most) = counts.iter().enumerate().max_by_key(|(_, count)| **count)?;
        let share = f64::from(*most) / f64::from(sum.max(1));
        (share > limit).then(|| {
            let name = &nodes[place].name;
            format!("{name} got {share:.3} of the processes; {limit} at most")
        })
    }

    fn spread(&self, nodes: &[Node], counts: &[u32]) -> Option<String> {
        let wanted = self.expect.spread.as_ref()?;
        let mut sums: BTreeMap<&str, u32> = BTreeMap::new();
        for (place, node) in self.eligible(nodes) {
            if let Some(value) = node.labels.get(&wanted.label) {
                let before = node.processes_of_type.get(&self.request.process_type);
                *sums.entry(value).or_default() += before.copied().unwrap_or(0) + counts[place];
            }
        }
        let gap = sums.values().max()? - sums.values().min()?;
        (gap > wanted.gap).then(|| {
            let sums: Vec<_> = sums
                .iter()
                .map(|(value, sum)| format!("{value} {sum}"))
                .collect();
            let (label, limit) = (&wanted.label, wanted.gap);
            format!("by {label}: {}; {limit} apart at most", sums.join(", "))
        })
    }

    /// `same-node` and `distinct`.
    fn groups(&self, placed: &[(usize, usize)]) -> Option<String> {
        let (same, distinct) = (self.expect.same_node, self.expect.distinct);
        if !same && !distinct {
            return None;
        }
        let mut groups: BTreeMap<Option<String>, Vec<usize>> = BTreeMap::new();
        for &(at, place) in placed {
            groups
                .entry(self.decision(at).group)
                .or_default()
                .push(place);
        }
        groups.into_iter().find_map(|(group, places)| {
            let nodes: BTreeSet<_> = places.iter().collect();
            let broken = same && nodes.len() > 1 || distinct && nodes.len() < places.len();
            broken.then(|| {
                let group = group.map_or("the case".to_owned(), |group| format!("`{group}`"));
                let (processes, nodes) = (places.len(), nodes.len());
                let wanted = if same {
                    "one was expected"
                } else {
                    "as many were expected"
                };
                format!("{processes} processes of {group} are on {nodes} nodes; {wanted}")
            })
        })
    }

    fn moved(&self, run: &Run) -> Option<String> {
        let (node, limit) = self.expect.moved.as_ref()?;
        let pairs = run.first.iter().zip(&run.again);
        let moved = pairs.filter(|(first, again)| first.outcome.node() != again.outcome.node());
        let share = moved.count() as f64 / self.count() as f64;
        (share > *limit)
            .then(|| format!("without {node}, {share:.4} of the ids move; {limit} at most"))
    }

    fn cost_ratio(&self, nodes: &[Node], placed: &[(usize, usize)]) -> Option<String> {
        let limit = self.expect.cost_ratio?;
        let mut used: Vec<u64> = nodes.iter().map(|node| u64::from(node.used)).collect();
        for &(at, place) in placed {
            used[place] += u64::from(self.decision(at).demand);
        }
        let in_use = self
            .eligible(nodes)
            .filter(|&(place, _)| used[place] > 0)
            .count();
        let mut left: u64 = self.eligible(nodes).map(|(place, _)| used[place]).sum();
        let mut sizes: Vec<u64> = self
            .eligible(nodes)
            .map(|(_, node)| u64::from(node.capacity.unwrap_or(0)))
            .collect();
        sizes.sort_unstable_by_key(|&size| std::cmp::Reverse(size));
        let mut fewest = 0;
        for size in sizes {
            if left == 0 {
                break;
            }
            left = left.saturating_sub(size);
            fewest += 1;
        }
        let ratio = in_use as f64 / f64::from(fewest.max(1));
        (ratio > limit).then(|| {
            format!(
                "{in_use} nodes are in use where {fewest} might do: {ratio:.3}; {limit} at most"
            )
        })
    }

    fn micros(&self, run: &Run) -> Option<String> {
        let limit = self.expect.micros?;
        let mut micros: Vec<f64> = run.first.iter().filter_map(|made| made.micros).collect();
        micros.sort_by(f64::total_cmp);
        let median = *micros.get(micros.len() / 2)?;
        (median > limit)
            .then(|| format!("the median decision took {median:.1} microseconds; {limit} at most"))
    }
}
