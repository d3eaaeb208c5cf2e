//! The seams to the world: clock, stop signals, human units.
