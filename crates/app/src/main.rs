//! The one binary: `nuncio up`, `serve`, `check`, `explain`, `topics`, `groups`, `produce`, `consume`.

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {}
