//! What the user writes, how it is checked, and its schema. No I/O.
