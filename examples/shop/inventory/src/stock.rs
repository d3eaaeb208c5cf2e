//! The stock: what the shop began with, less what was reserved since.
//!
//! Every decision is a line of JSON in a ledger that only grows, and is on disk before anybody hears of it. An order
//! that comes again gets the answer that it got the first time.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::events::{Item, Order};

/// What the shop begins with.
const BEGINNING: [(&str, u32); 3] =
    [("coffee-grinder", 25), ("espresso-cup", 100_000), ("tea-pot", 1_000)];

/// What became of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// All its items are set aside.
    Reserved,
    /// At least one is not there, so that none is set aside.
    SoldOut,
}

/// One line of the ledger.
#[derive(Serialize, Deserialize)]
struct Decision {
    order_id: String,
    outcome: Outcome,
    items: Vec<Item>,
}

/// The stock and the ledger behind it.
pub struct Stock {
    ledger: File,
    available: BTreeMap<String, u32>,
    outcomes: HashMap<String, Outcome>,
}

impl Stock {
    /// Opens the ledger, or begins it, and reads what was decided.
    pub fn open(path: &Path) -> io::Result<Stock> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let mut ledger = OpenOptions::new().read(true).append(true).create(true).open(path)?;
        let mut content = Vec::new();
        ledger.read_to_end(&mut content)?;

        // A line without its end was being written when the machine went down; its order comes again.
        let complete = content.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        ledger.set_len(complete as u64)?;

        let available = BEGINNING.map(|(sku, quantity)| (sku.to_owned(), quantity)).into();
        let mut stock = Stock { ledger, available, outcomes: HashMap::new() };
        for line in content[..complete].split(|byte| *byte == b'\n').filter(|line| !line.is_empty())
        {
            stock.apply(serde_json::from_slice(line)?);
        }
        Ok(stock)
    }

    /// Sets the order's items aside when all are there. The answer is on disk when this returns.
    pub fn reserve(&mut self, order: &Order) -> io::Result<Outcome> {
        if let Some(outcome) = self.outcomes.get(&order.order_id) {
            return Ok(*outcome);
        }
        let outcome = if self.has(&order.items) { Outcome::Reserved } else { Outcome::SoldOut };
        let (order_id, items) = (order.order_id.clone(), order.items.clone());
        let decision = Decision { order_id, outcome, items };

        let mut line = serde_json::to_vec(&decision)?;
        line.push(b'\n');
        self.ledger.write_all(&line)?;
        self.ledger.sync_data()?;
        self.apply(decision);
        Ok(outcome)
    }

    /// Returns how many there are of each thing.
    pub fn available(&self) -> &BTreeMap<String, u32> {
        &self.available
    }

    fn has(&self, items: &[Item]) -> bool {
        // One thing may stand in several lines of an order.
        let mut wanted: HashMap<&str, u64> = HashMap::new();
        for item in items {
            *wanted.entry(&item.sku).or_default() += u64::from(item.quantity);
        }
        let there = |sku| self.available.get(sku).copied().map_or(0, u64::from);
        wanted.into_iter().all(|(sku, quantity)| there(sku) >= quantity)
    }

    fn apply(&mut self, decision: Decision) {
        if decision.outcome == Outcome::Reserved {
            for item in &decision.items {
                if let Some(available) = self.available.get_mut(&item.sku) {
                    *available = available.saturating_sub(item.quantity);
                }
            }
        }
        self.outcomes.insert(decision.order_id, decision.outcome);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(id: &str, items: &[(&str, u32)]) -> Order {
        let item = |(sku, quantity): &(&str, u32)| Item { sku: (*sku).into(), quantity: *quantity };
        Order {
            order_id: id.into(),
            customer: "ada@example.com".into(),
            items: items.iter().map(item).collect(),
        }
    }

    #[test]
    fn an_order_is_reserved_once_even_after_a_crash() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data/ledger");
        let two = order("a", &[("tea-pot", 2)]);

        let mut stock = Stock::open(&path).unwrap();
        assert_eq!(stock.reserve(&two).unwrap(), Outcome::Reserved);
        assert_eq!(stock.reserve(&two).unwrap(), Outcome::Reserved);
        assert_eq!(stock.available()["tea-pot"], 998);
        drop(stock);
        let torn = br#"{"order_id": "b", "outco"#;
        OpenOptions::new().append(true).open(&path).unwrap().write_all(torn).unwrap();

        let mut stock = Stock::open(&path).unwrap();
        assert_eq!(stock.reserve(&two).unwrap(), Outcome::Reserved);
        assert_eq!(stock.reserve(&order("b", &[("tea-pot", 1)])).unwrap(), Outcome::Reserved);
        let stock = Stock::open(&path).unwrap();
        assert_eq!(stock.available()["tea-pot"], 997);
    }

    #[test]
    fn all_or_nothing_is_reserved() {
        let folder = tempfile::tempdir().unwrap();
        let mut stock = Stock::open(&folder.path().join("ledger")).unwrap();
        let mut check = |id, items: &[(&str, u32)], expected| {
            assert_eq!(stock.reserve(&order(id, items)).unwrap(), expected, "{items:?}");
        };
        check("unknown", &[("tea-pot", 1), ("sofa", 1)], Outcome::SoldOut);
        check(
            "twice too many",
            &[("coffee-grinder", 13), ("coffee-grinder", 13)],
            Outcome::SoldOut,
        );
        check("all", &[("coffee-grinder", 25)], Outcome::Reserved);
        check("one more", &[("coffee-grinder", 1)], Outcome::SoldOut);
        assert_eq!(stock.available()["tea-pot"], 1_000);
        assert_eq!(stock.available()["coffee-grinder"], 0);
    }
}
