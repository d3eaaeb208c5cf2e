//! A radix tree over path prefixes. Finding all prefixes of a path costs one walk along the path.

/// Marks the absence of a node or a rank.
const NONE: u32 = u32::MAX;

/// Ranks filed under path prefixes. Lower ranks are tried first.
///
/// A node with ranks knows the next one above it (`up`), and the lowest rank from itself to the root (`best`), so that a
/// search starts at the longest prefix and stops as soon as nothing above can be better.
#[derive(Debug, Default)]
pub(super) struct Tree {
    nodes: Box<[Node]>,
    /// All labels, one after the other.
    labels: Box<[u8]>,
    /// All edges; those of one node are neighbours, in the order of their first byte.
    edges: Box<[(u8, u32)]>,
    /// All ranks; those of one node are neighbours, in ascending order.
    ranks: Box<[u32]>,
}

#[derive(Debug)]
struct Node {
    label: (u32, u32),
    edges: (u32, u32),
    ranks: (u32, u32),
    /// The nearest node above that has ranks.
    up: u32,
    /// The lowest rank from here to the root.
    best: u32,
}

impl Tree {
    /// Builds the tree from prefixes and their ranks.
    pub(super) fn build<'p>(prefixes: impl IntoIterator<Item = (&'p [u8], u32)>) -> Self {
        let mut growing = Growing::default();
        for (prefix, rank) in prefixes {
            growing.insert(prefix, rank);
        }
        growing.finish()
    }

    /// Returns the lowest rank below `limit` that is filed under a prefix of `path` and that `accepts` takes.
    ///
    /// With `fold`, ASCII upper case in the path equals the lower case of the tree.
    pub(super) fn lowest(
        &self,
        path: &[u8],
        fold: bool,
        mut limit: u32,
        mut accepts: impl FnMut(u32) -> bool,
    ) -> Option<u32> {
        let mut found = None;
        let mut next = self.deepest(path, fold);
        while let Some(node) = self
            .nodes
            .get(next as usize)
            .filter(|node| node.best < limit)
        {
            for &rank in slice(&self.ranks, node.ranks) {
                if rank >= limit {
                    break;
                }
                if accepts(rank) {
                    found = Some(rank);
                    limit = rank;
                    break;
                }
            }
            next = node.up;
        }
        found
    }

    /// Returns the node with ranks whose prefix is the longest one of `path`.
    fn deepest(&self, path: &[u8], fold: bool) -> u32 {
        let mut deepest = NONE;
        let mut at = 0_u32;
        let mut rest = path;
        while let Some(node) = self.nodes.get(at as usize) {
            let label = slice(&self.labels, node.label);
            let Some((head, tail)) = rest.split_at_checked(label.len()) else {
                break;
            };
            if !(if fold {
                head.eq_ignore_ascii_case(label)
            } else {
                head == label
            }) {
                break;
            }
            if node.ranks.0 < node.ranks.1 {
                deepest = at;
            }
            let Some(&first) = tail.first() else { break };
            let first = if fold {
                first.to_ascii_lowercase()
            } else {
                first
            };
            let edges = slice(&self.edges, node.edges);
            let Ok(edge) = edges.binary_search_by_key(&first, |edge| edge.0) else {
                break;
            };
            at = edges[edge].1;
            rest = tail;
        }
        deepest
    }
}

fn slice<T>(all: &[T], (from, to): (u32, u32)) -> &[T] {
    &all[from as usize..to as usize]
}

/// The tree while prefixes are added.
struct Growing {
    nodes: Vec<Sprout>,
}

#[derive(Default)]
struct Sprout {
    label: Vec<u8>,
    /// In the order of the first byte of the child's label, which is never empty.
    children: Vec<(u8, usize)>,
    ranks: Vec<u32>,
}

impl Default for Growing {
    fn default() -> Self {
        Self {
            nodes: vec![Sprout::default()],
        }
    }
}

impl Growing {
    fn insert(&mut self, prefix: &[u8], rank: u32) {
        let mut at = 0;
        let mut rest = prefix;
        loop {
            let label = &self.nodes[at].label;
            let common = label.iter().zip(rest).take_while(|(a, b)| a == b).count();
            if common < label.len() {
                self.split(at, common);
            }
            rest = &rest[common..];
            let Some(&first) = rest.first() else { break };
            let children = &self.nodes[at].children;
            match children.binary_search_by_key(&first, |child| child.0) {
                Ok(child) => at = children[child].1,
                Err(place) => {
                    let leaf = self.nodes.len();
                    self.nodes[at].children.insert(place, (first, leaf));
                    self.nodes.push(Sprout {
                        label: rest.to_vec(),
                        ..Sprout::default()
                    });
                    at = leaf;
                    break;
                }
            }
        }
        self.nodes[at].ranks.push(rank);
    }

    /// Moves what follows the first `common` bytes of the label into a new child.
    fn split(&mut self, at: usize, common: usize) {
        let below = self.nodes.len();
        let node = &mut self.nodes[at];
        let tail = node.label.split_off(common);
        let child = Sprout {
            children: std::mem::replace(&mut node.children, vec![(tail[0], below)]),
            ranks: std::mem::take(&mut node.ranks),
            label: tail,
        };
        self.nodes.push(child);
    }

    fn finish(mut self) -> Tree {
        let mut nodes: Vec<Node> = Vec::with_capacity(self.nodes.len());
        let (mut labels, mut edges, mut ranks) = (Vec::new(), Vec::new(), Vec::new());
        for sprout in &mut self.nodes {
            sprout.ranks.sort_unstable();
            sprout.ranks.dedup();
            let children = sprout
                .children
                .iter()
                .map(|&(first, child)| (first, narrow(child)));
            nodes.push(Node {
                label: append(&mut labels, sprout.label.iter().copied()),
                edges: append(&mut edges, children),
                ranks: append(&mut ranks, sprout.ranks.iter().copied()),
                up: NONE,
                best: sprout.ranks.first().copied().unwrap_or(NONE),
            });
        }
        let mut below = vec![0_usize];
        while let Some(at) = below.pop() {
            let node = &nodes[at];
            let (best, own) = (node.best, node.ranks.0 < node.ranks.1);
            let up = if own { narrow(at) } else { node.up };
            for &(_, child) in slice(&edges, node.edges) {
                let child = child as usize;
                nodes[child].up = up;
                nodes[child].best = nodes[child].best.min(best);
                below.push(child);
            }
        }
        Tree {
            nodes: nodes.into(),
            labels: labels.into(),
            edges: edges.into(),
            ranks: ranks.into(),
        }
    }
}

fn append<T>(all: &mut Vec<T>, items: impl Iterator<Item = T>) -> (u32, u32) {
    let from = narrow(all.len());
    all.extend(items);
    (from, narrow(all.len()))
}

fn narrow(index: usize) -> u32 {
    u32::try_from(index).expect("a route table stays far below four billion bytes")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn finds_what_a_scan_finds(
            prefixes in prop::collection::vec("[/abü]{0,5}", 0..24),
            paths in prop::collection::vec("[/abcü]{0,7}", 1..8),
            refused: u32,
        ) {
            let tree = Tree::build(prefixes.iter().zip(0..).map(|(prefix, rank)| (prefix.as_bytes(), rank)));
            let accepts = |rank: u32| (refused >> (rank % 32)) & 1 == 0;
            for path in &paths {
                let expected = prefixes
                    .iter()
                    .zip(0..)
                    .find(|(prefix, rank)| path.starts_with(prefix.as_str()) && accepts(*rank))
                    .map(|(_, rank)| rank);
                prop_assert_eq!(tree.lowest(path.as_bytes(), false, NONE, accepts), expected);
                let upper = path.to_uppercase();
                if upper.is_ascii() {
                    prop_assert_eq!(tree.lowest(upper.as_bytes(), true, NONE, accepts), expected);
                }
            }
        }
    }

    #[test]
    fn an_empty_tree_finds_nothing() {
        assert_eq!(Tree::default().lowest(b"/", false, NONE, |_| true), None);
        assert_eq!(Tree::build([]).lowest(b"", true, NONE, |_| true), None);
    }
}
