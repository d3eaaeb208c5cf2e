//! Kafka's wire: frames, messages, record batches, compression. No I/O.
