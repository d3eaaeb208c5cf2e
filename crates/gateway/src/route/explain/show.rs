//! An explanation as lines of plain text for people.

use std::fmt::{self, Write};

use super::{Destination, Explanation, Outcome, Taker};

impl fmt::Display for Explanation {
    /// Several lines of plain text for people.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "{}", self.request)?;
        if !self.path.is_empty() {
            writeln!(out, "  path    {}", self.path)?;
            writeln!(out, "  host    {}", self.host)?;
        }
        match &self.outcome {
            Outcome::Refused { why } => writeln!(out, "  answer  400, {why}")?,
            Outcome::Preflight(answer) => {
                writeln!(out, "  route   {} ({})", answer.route, answer.origin)?;
                writeln!(
                    out,
                    "  answer  200, the gateway answers preflights by itself"
                )?;
                for header in &answer.headers {
                    writeln!(out, "          - {header}")?;
                }
            }
            Outcome::NotFound { why } => writeln!(out, "  answer  404, {why}")?,
            Outcome::RedirectedToHttps { location, route } => {
                writeln!(out, "  route   {route}, but by HTTPS only")?;
                writeln!(out, "  answer  301 {location}")?;
            }
            Outcome::Routed(takers) => takers.iter().try_for_each(|taker| taker.write(out))?,
        }
        if !self.losers.is_empty() {
            writeln!(out, "others")?;
        }
        for loser in &self.losers {
            writeln!(out, "  {} ({}): {}", loser.route, loser.origin, loser.why)?;
        }
        match self.losers_more {
            0 => Ok(()),
            1 => writeln!(out, "  and 1 more, further away"),
            more => writeln!(out, "  and {more} more, further away"),
        }
    }
}

impl Taker {
    fn write(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "  route   {}", self.route)?;
        if !self.origin.is_empty() {
            write!(out, " ({})", self.origin)?;
        }
        if self.share_percent < 100.0 {
            let share = (self.share_percent * 1000.0).round() / 1000.0;
            write!(out, ", {share} % of such requests")?;
        }
        out.write_char('\n')?;
        for reason in &self.reasons {
            writeln!(out, "          - {reason}")?;
        }
        match &self.destination {
            Destination::Service {
                service,
                path,
                host,
            } => {
                writeln!(out, "  goes to {service}, path {path}, host {host}")?;
            }
            Destination::Redirect { status, location } => {
                writeln!(out, "  answer  {status} {location}")?;
            }
            Destination::Topic { topic } => writeln!(out, "  goes to topic {topic}")?,
            Destination::Refused { status, why } => writeln!(out, "  answer  {status}, {why}")?,
            Destination::NotFound => writeln!(out, "  answer  404")?,
        }
        for policy in &self.policies {
            write!(out, "{policy}")?;
        }
        match &self.live {
            Some(live) => write!(out, "{live}"),
            None => Ok(()),
        }
    }
}
