//! What happens to requests and answers on the way.

mod buffer;
mod compress;
mod cors;
mod errors;
mod guards;
mod probes;
mod shadow;
mod variables;
