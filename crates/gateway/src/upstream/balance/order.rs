//! In which order endpoints take turns: as often as their weights say, and as evenly spread as can be.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

/// Longest order; weights that would need a longer one are rounded.
const TURNS_MAX: u64 = 1 << 16;

/// An order of turns, repeated for ever.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Order(
    /// Empty when all weigh the same.
    Box<[u32]>,
);

/// When an endpoint wants its next turn: `turns / weight`.
#[derive(Debug, PartialEq, Eq)]
struct Due {
    turns: u64,
    weight: u64,
    index: u32,
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> Ordering {
        // Compares the fractions without dividing. Half a turn early spreads the heavy ones around the light ones.
        let (ours, theirs) = (2 * self.turns + 1, 2 * other.turns + 1);
        (ours * other.weight)
            .cmp(&(theirs * self.weight))
            .then(self.index.cmp(&other.index))
    }
}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Order {
    /// Makes the order for these weights, earliest deadline first.
    pub(crate) fn of(weights: &[u32]) -> Self {
        if weights.windows(2).all(|pair| pair[0] == pair[1]) {
            return Order::default();
        }
        let weights = rounded(weights);
        let total: u64 = weights.iter().sum();
        let mut due: BinaryHeap<Reverse<Due>> = (0..)
            .zip(weights)
            .map(|(index, weight)| {
                Reverse(Due {
                    turns: 0,
                    weight,
                    index,
                })
            })
            .collect();
        let mut order = Vec::with_capacity(total as usize);
        for _ in 0..total {
            let Some(mut first) = due.peek_mut() else {
                break;
            };
            order.push(first.0.index);
            first.0.turns += 1;
        }
        Order(order.into())
    }

    /// Returns who has this turn among `count`.
    pub(crate) fn at(&self, turn: usize, count: usize) -> usize {
        match self.0.len() {
            0 => turn % count,
            length => self.0[turn % length] as usize,
        }
    }

    /// Returns after how many turns all have had theirs.
    pub(crate) fn length(&self, count: usize) -> usize {
        self.0.len().max(count)
    }
}

/// Returns weights in lowest terms whose sum is no longer than an order may be.
fn rounded(weights: &[u32]) -> Vec<u64> {
    let divisor = weights.iter().copied().fold(0, gcd).max(1);
    let mut weights: Vec<u64> = weights
        .iter()
        .map(|weight| u64::from((weight / divisor).max(1)))
        .collect();
    let total: u64 = weights.iter().sum();
    if total > TURNS_MAX {
        for weight in &mut weights {
            *weight = (*weight * TURNS_MAX / total).max(1);
        }
    }
    weights
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn equal_weights_need_no_order() {
        assert_eq!(Order::of(&[7, 7, 7]), Order::default());
        assert_eq!(Order::of(&[]), Order::default());
        let order = Order::of(&[3, 3, 3]);
        assert_eq!([0, 1, 2, 3].map(|turn| order.at(turn, 3)), [0, 1, 2, 0]);
    }

    #[test]
    fn the_heavy_ones_do_not_come_in_bursts() {
        assert_eq!(*Order::of(&[5, 1, 1]).0, [0, 0, 0, 1, 2, 0, 0]);
        assert_eq!(*Order::of(&[2, 4]).0, [1, 0, 1]);
    }

    #[test]
    fn very_many_endpoints_have_an_order_of_bounded_length() {
        let weights: Vec<u32> = (0..2000).map(|index| 1 + index % 128).collect();
        let order = Order::of(&weights);
        assert!(order.0.len() <= TURNS_MAX as usize + weights.len());
        let mut seen = vec![false; weights.len()];
        order
            .0
            .iter()
            .for_each(|index| seen[*index as usize] = true);
        assert!(seen.iter().all(|seen| *seen), "everybody has a turn");
    }

    proptest! {
        /// Each has exactly its share in a whole order, and is never more than two turns off on the way.
        #[test]
        fn shares_are_exact(weights in prop::collection::vec(1u32..=128, 2..20)) {
            let order = Order::of(&weights);
            let length = order.length(weights.len());
            let total: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
            let mut turns = vec![0u64; weights.len()];
            for turn in 0..length {
                turns[order.at(turn, weights.len())] += 1;
                for (had, weight) in turns.iter().zip(&weights) {
                    let fair = (turn + 1) as f64 * f64::from(*weight) / total as f64;
                    prop_assert!((*had as f64 - fair).abs() < 2.0 + weights.len() as f64 / 2.0);
                }
            }
            for (had, weight) in turns.iter().zip(&weights) {
                prop_assert_eq!(had * total, u64::from(*weight) * length as u64);
            }
        }
    }
}
