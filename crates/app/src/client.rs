//! What the commands that speak to a broker share: its address, a connection, tables.

use std::fmt::Write as _;

use anyhow::Context;
use krafka::Kafka;

/// Which broker a command speaks to.
#[derive(clap::Args)]
pub(crate) struct Bootstrap {
    /// Address of any Kafka-compatible broker, comma-separated for several.
    #[arg(
        long,
        short = 'b',
        default_value = "127.0.0.1:9092",
        env = "KAFKA_BOOTSTRAP_SERVERS",
        global = true
    )]
    bootstrap: String,
}

impl Bootstrap {
    /// Connects, or says which address did not answer.
    pub(crate) async fn connect(&self) -> anyhow::Result<Kafka> {
        let connecting = Kafka::builder(&self.bootstrap)
            .client_id("nuncio-cli")
            .allow_auto_create_topics(false);
        connecting.connect().await.with_context(|| {
            format!(
                "no broker answers at {}; is `nuncio serve` running? (--bootstrap names another)",
                self.bootstrap
            )
        })
    }
}

/// Returns rows in columns as wide as they need to be, the first row as their head.
pub(crate) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter()
            .filter_map(move |row| row.get(column))
            .map(|cell| cell.chars().count())
            .max()
    };
    let widths: Vec<usize> = (0..columns)
        .map(|column| width(column).unwrap_or(0))
        .collect();
    let mut out = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            write!(line, "{cell:width$}  ").expect("writing to a String cannot fail");
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

/// Parses `NAME=VALUE`.
pub(crate) fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text
        .split_once('=')
        .ok_or_else(|| format!("`{text}` is not NAME=VALUE"))?;
    Ok((name.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_they_need_to_be() {
        let row = |cells: &[&str]| cells.iter().map(|cell| (*cell).to_owned()).collect();
        let text = table(&[row(&["TOPIC", "N"]), row(&["orders.placed", "3"])]);
        assert_eq!(text, "TOPIC          N\norders.placed  3\n");
    }
}
