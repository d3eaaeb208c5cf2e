//! What happens to requests and answers on the way.

mod cors;
mod errors;
mod variables;
