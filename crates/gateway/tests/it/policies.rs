//! What happens to requests and answers on the way.

mod buffer;
mod cors;
mod errors;
mod guards;
mod shadow;
mod variables;
