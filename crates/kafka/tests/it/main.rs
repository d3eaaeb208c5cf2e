//! The wire held against its tables, against another implementation, and against hostile bytes.

#[macro_use]
mod list;

mod blobs;
mod cases;
mod frames;
mod hostile;
mod inside;
mod oracle;
mod random;
mod sealed;
mod tags;

#[expect(dead_code, reason = "the build uses the rest")]
#[path = "../../build/table.rs"]
mod table;
