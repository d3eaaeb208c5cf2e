# Every command of the project; the work itself is in xtask, so that plain cargo is enough.

# What this file offers.
default:
    @just --list

# Run a folder's services behind the gateway and over the broker.
up folder="examples/shop":
    cargo run --release -- up {{folder}}

# Everything that must hold before a change lands.
test:
    cargo xtask test

# The Rust tests alone.
quick:
    cargo xtask test --quick

# Write the reference pages and JSON schemas from the model.
reference:
    cargo xtask reference

# Compare with Envoy (`just bench gateway`) or Apache Kafka (`just bench broker`).
bench what:
    cargo xtask bench {{what}}

# Random bytes against a target in fuzz/ for an hour, or as said: `just fuzz routes 5`.
fuzz target minutes="60":
    cargo xtask fuzz {{target}} --minutes {{minutes}}
