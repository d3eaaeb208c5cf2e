//! The seams to the world that every room shares: human units, clock, stop signals.
//! It knows no word of the domain.

pub mod human;
pub mod stop;
