//! What a broker refused, in words.

use std::collections::HashMap;

use anyhow::{anyhow, bail};
use krafka::KrafkaError;
use krafka::error::ErrorCode;

/// A result whose failure is told in words rather than in the protocol's codes.
pub(crate) trait Told<T> {
    fn told(self) -> anyhow::Result<T>;
}

impl<T> Told<T> for krafka::Result<T> {
    fn told(self) -> anyhow::Result<T> {
        self.map_err(words)
    }
}

/// Returns an error in words.
pub(crate) fn words(error: KrafkaError) -> anyhow::Error {
    match error {
        KrafkaError::Broker { code, message } => anyhow!("{}", refusal(code, &message)),
        KrafkaError::UnknownTopic { topic } => anyhow!("there is no topic `{topic}`"),
        KrafkaError::Timeout { operation } => {
            anyhow!("no answer in time to {operation}; --timeout allows more")
        }
        KrafkaError::Config { message } => anyhow!("{message}"),
        other => other.into(),
    }
}

/// Returns an error of the protocol's answers in words.
pub(crate) fn checked(code: i16, message: Option<&str>) -> anyhow::Result<()> {
    if code == 0 {
        return Ok(());
    }
    let code = ErrorCode::from_i16(code);
    bail!("{}", refusal(code, message.unwrap_or_default()))
}

/// Returns whether the topic is not there.
pub(crate) fn is_unknown_topic(error: &KrafkaError) -> bool {
    match error {
        KrafkaError::UnknownTopic { .. } => true,
        KrafkaError::Broker { code, .. } => *code == ErrorCode::UnknownTopicOrPartition,
        _ => false,
    }
}

fn refusal(code: ErrorCode, message: &str) -> String {
    let number = code.to_i16();
    let known = kafka::error::ErrorCode::from_code(number);
    // The client puts the name of the code where the broker said nothing.
    let silent = message.is_empty() || message == format!("{code:?}");
    match (code, known) {
        (ErrorCode::NonEmptyGroup, _) => "the group still has members; stop them first".to_owned(),
        (ErrorCode::GroupIdNotFound, _) => "there is no such group".to_owned(),
        (ErrorCode::UnknownTopicOrPartition, _) => "there is no such topic or partition".to_owned(),
        (_, Some(known)) if silent => format!("{} ({})", known.message(), known.name()),
        (_, Some(known)) => format!("{message} ({})", known.name()),
        (_, None) => format!("{message} (error {number})"),
    }
}

/// Prints each result, and fails when one of them did.
pub(crate) fn each(results: HashMap<String, krafka::Result<()>>, done: &str) -> anyhow::Result<()> {
    let mut results: Vec<_> = results.into_iter().collect();
    results.sort_by(|left, right| left.0.cmp(&right.0));
    let mut failed = 0;
    for (name, result) in results {
        match result {
            Ok(()) => anstream::println!("{done} {name}"),
            Err(error) => {
                failed += 1;
                anstream::eprintln!("{name}: {:#}", words(error));
            }
        }
    }
    if failed > 0 {
        bail!("{failed} not {done}")
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_brokers_words_come_before_ours() {
        assert_eq!(
            refusal(ErrorCode::InvalidConfig, "retention.ms must be at least -1"),
            "retention.ms must be at least -1 (INVALID_CONFIG)"
        );
        let silent = refusal(ErrorCode::InvalidPartitions, "InvalidPartitions");
        assert!(
            silent.ends_with("(INVALID_PARTITIONS)") && silent.len() > 25,
            "{silent}"
        );
        assert!(refusal(ErrorCode::NonEmptyGroup, "NonEmptyGroup").contains("stop them first"));
    }
}
