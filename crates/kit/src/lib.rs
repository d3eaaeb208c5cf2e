//! The seams to the world that every room shares: human units, stop signals, work aside, shared memory.
//! It knows no word of the domain.

pub mod aside;
pub mod human;
pub mod memory;
pub mod stop;
