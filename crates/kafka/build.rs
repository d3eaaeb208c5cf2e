//! Turns the message tables in `messages/` into plain Rust, in the style a person would write.

use std::{env, error::Error, fs, path::Path};

#[path = "build/emit.rs"]
mod emit;
#[path = "build/errors.rs"]
mod errors;
#[path = "build/table.rs"]
mod table;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=build");
    println!("cargo::rerun-if-changed=messages");
    println!("cargo::rerun-if-changed=errors.txt");

    let out = env::var("OUT_DIR")?;
    let files = table::read_all(Path::new("messages"))?;
    fs::write(Path::new(&out).join("messages.rs"), emit::messages(&files)?)?;
    fs::write(
        Path::new(&out).join("errors.rs"),
        errors::emit(&fs::read_to_string("errors.txt")?)?,
    )?;
    Ok(())
}
