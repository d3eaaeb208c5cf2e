//! Why an order came to nothing, in words for the user, and what kind of trouble it is.

use std::io;
use std::time::Duration;

use instant_acme::{Error, Problem};

use crate::client::Refused;
use crate::plan::Cause;

/// What the types of problems begin with (RFC 8555, 6.7).
const PREFIX: &str = "urn:ietf:params:acme:error:";

/// Why an order came to nothing.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub(crate) struct Trouble {
    pub(crate) cause: Cause,
    pub(crate) what: String,
    /// When the authority wants to be asked again.
    pub(crate) after: Option<Duration>,
    /// The authority does not know the account.
    pub(crate) stranger: bool,
}

impl Trouble {
    /// Something that is wrong here, or with what the authority has given.
    pub(crate) fn refused(what: impl Into<String>) -> Self {
        Self::new(Cause::Refused, what.into())
    }

    /// Something that kept us from asking the authority at all.
    pub(crate) fn here(what: String) -> Self {
        Self::new(Cause::Unreachable, what)
    }

    /// The authority did not see what it wanted to.
    pub(crate) fn unproven(what: impl Into<String>) -> Self {
        Self::new(Cause::Unproven, what.into())
    }

    /// The disk does not take, or give, what is kept.
    pub(crate) fn disk(what: &str, error: &io::Error) -> Self {
        // Ordering again and again what cannot be kept would use up what the authority allows.
        Self::refused(format!("{what}: {error}"))
    }

    fn new(cause: Cause, what: String) -> Self {
        Trouble {
            cause,
            what,
            after: None,
            stranger: false,
        }
    }

    /// What an authority, or the way to it, has answered.
    pub(crate) fn of(error: &Error, refused: Option<Refused>) -> Self {
        let mut trouble = match error {
            Error::Api(problem) => of_problem(problem),
            Error::Other(inner) => {
                let mut what = format!("the authority cannot be reached: {inner}");
                let mut source = inner.source();
                while let Some(error) = source {
                    let told = error.to_string();
                    if !what.ends_with(&told) {
                        what = format!("{what}: {told}");
                    }
                    source = error.source();
                }
                Self::new(Cause::Unreachable, what)
            }
            Error::Timeout(_) => Self::new(
                Cause::Unproven,
                "the authority has come to no decision in time".to_owned(),
            ),
            Error::Json(_) | Error::Str(_) => Self::new(
                Cause::Unreachable,
                format!("the authority's answer makes no sense: {error}"),
            ),
            other => Self::new(Cause::Refused, other.to_string()),
        };
        let Some(refused) = refused else {
            return trouble;
        };
        trouble.after = refused.after;
        let said = matches!(error, Error::Api(_));
        match refused.status.as_u16() {
            429 => trouble.cause = Cause::Busy,
            503 if refused.after.is_some() => trouble.cause = Cause::Busy,
            500.. => trouble.cause = Cause::Unreachable,
            _ => (),
        }
        if !said {
            trouble.what = format!("the authority answers {}", refused.status);
        }
        trouble
    }
}

fn of_problem(problem: &Problem) -> Trouble {
    let kind = problem.r#type.as_deref().unwrap_or_default();
    let kind = kind.strip_prefix(PREFIX).unwrap_or(kind);
    let cause = match kind {
        "rateLimited" => Cause::Busy,
        "serverInternal" | "badNonce" | "orderNotReady" | "accountDoesNotExist" => {
            Cause::Unreachable
        }
        "connection" | "dns" | "tls" | "unauthorized" | "incorrectResponse" | "caa" => {
            Cause::Unproven
        }
        _ => Cause::Refused,
    };
    let mut what = match (&problem.detail, kind) {
        (Some(detail), "") => format!("the authority says: {detail}"),
        (Some(detail), kind) => format!("the authority says: {detail} ({kind})"),
        (None, kind) => format!("the authority says `{kind}`"),
    };
    for below in &problem.subproblems {
        what = format!("{what}; {below}");
    }
    Trouble {
        stranger: kind == "accountDoesNotExist",
        ..Trouble::new(cause, what)
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;

    fn problem(kind: &str, status: u16, after: Option<u64>) -> (Cause, Option<u64>) {
        let text = format!("{{\"type\":\"{PREFIX}{kind}\",\"detail\":\"d\"}}");
        let problem = serde_json::from_str(&text).expect("a problem");
        let refused = Refused {
            status: StatusCode::from_u16(status).expect("a status"),
            after: after.map(Duration::from_secs),
        };
        let trouble = Trouble::of(&Error::Api(problem), Some(refused));
        assert_eq!(trouble.what, format!("the authority says: d ({kind})"));
        (trouble.cause, trouble.after.map(|after| after.as_secs()))
    }

    #[test]
    fn problems_differ_in_what_they_mean_for_the_next_try() {
        assert_eq!(
            problem("rateLimited", 429, Some(60)),
            (Cause::Busy, Some(60))
        );
        assert_eq!(problem("rateLimited", 400, None), (Cause::Busy, None));
        assert_eq!(
            problem("serverInternal", 500, None),
            (Cause::Unreachable, None)
        );
        assert_eq!(
            problem("serverInternal", 503, Some(5)),
            (Cause::Busy, Some(5))
        );
        assert_eq!(problem("connection", 400, None), (Cause::Unproven, None));
        assert_eq!(
            problem("rejectedIdentifier", 400, None),
            (Cause::Refused, None)
        );
    }

    #[test]
    fn an_answer_that_is_no_problem_document_counts_by_its_status() {
        let refused = Refused {
            status: StatusCode::BAD_GATEWAY,
            after: None,
        };
        let json = serde_json::from_str::<u8>("<").expect_err("no JSON");
        let trouble = Trouble::of(&Error::Json(json), Some(refused));
        assert_eq!(trouble.cause, Cause::Unreachable);
        assert_eq!(trouble.what, "the authority answers 502 Bad Gateway");
    }
}
