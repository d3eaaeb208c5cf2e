//! What is said about orders.

use serde::{Deserialize, Serialize};

/// The topic of orders that customers have placed.
pub const ORDERS_PLACED: &str = "orders.placed";

/// The topic of orders whose items were set aside.
pub const RESERVED: &str = "inventory.reserved";

/// The topic of orders that cannot be fulfilled.
pub const SOLD_OUT: &str = "inventory.sold-out";

/// An order, as `orders.placed` tells it and as our answers repeat it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Order {
    pub order_id: String,
    pub customer: String,
    pub items: Vec<Item>,
}

/// So many of one thing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Item {
    pub sku: String,
    pub quantity: u32,
}
