//! The SASL conversation of one connection, from the choice of a mechanism to a proven name.

use aws_lc_rs::rand;
use base64::Engine as _;

use super::scram::{self, Hash, Scram};
use super::users::Users;
use super::{Mechanism, Principal, Refused, plain};

/// Random bytes in our part of a nonce.
const NONCE_BYTES: usize = 18;

/// A conversation under way.
#[derive(Debug)]
pub(crate) struct Exchange {
    mechanism: Mechanism,
    state: State,
}

#[derive(Debug)]
enum State {
    Plain,
    Scram(Scram),
    /// Proven or refused: nothing more is taken.
    Over,
}

/// What follows a client's message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// The client is to answer this.
    Ask(Vec<u8>),
    /// The client is who it says.
    Proven(Vec<u8>, Principal),
}

impl Exchange {
    pub(crate) fn new(mechanism: Mechanism) -> Self {
        let state = match Hash::of(mechanism) {
            None => State::Plain,
            Some(hash) => State::Scram(Scram::Begin(hash)),
        };
        Self { mechanism, state }
    }

    pub(crate) fn mechanism(&self) -> Mechanism {
        self.mechanism
    }

    /// Takes a message of the client. After an error, or when somebody is proven, it is over.
    pub(crate) fn step(&mut self, users: &Users, message: &[u8]) -> Result<Step, Refused> {
        match std::mem::replace(&mut self.state, State::Over) {
            State::Plain => {
                let claim = plain::read(message)?;
                users.check_password(&claim)?;
                Ok(Step::Proven(Vec::new(), Principal::user(claim.name)))
            }
            State::Scram(Scram::Begin(hash)) => {
                let first = scram::first(message)?;
                let (credential, known) = users.credential(&first.name, hash);
                let challenge = scram::challenge(hash, first, credential, known, &nonce()?);
                let answer = challenge.message().as_bytes().to_vec();
                self.state = State::Scram(Scram::Challenged(Box::new(challenge)));
                Ok(Step::Ask(answer))
            }
            State::Scram(Scram::Challenged(challenge)) => {
                let (name, answer) = challenge.finish(message)?;
                Ok(Step::Proven(answer.into_bytes(), Principal::user(name)))
            }
            State::Over => Err(Refused::Message("the conversation is over")),
        }
    }

    /// Returns what the client is told when it is refused. It does not say whether there is such a user.
    pub(crate) fn told(&self, refused: &Refused, again: bool) -> String {
        match refused {
            Refused::Told(why) => (*why).to_owned(),
            Refused::Credentials | Refused::Message(_) => format!(
                "Authentication failed during {} due to invalid credentials with SASL mechanism {}",
                if again {
                    "re-authentication"
                } else {
                    "authentication"
                },
                self.mechanism
            ),
        }
    }
}

fn nonce() -> Result<String, Refused> {
    let mut bytes = [0; NONCE_BYTES];
    rand::fill(&mut bytes).map_err(|_| Refused::Message("no random numbers"))?;
    Ok(base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::{Secret, User};

    #[test]
    fn a_name_is_proven_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let user = User {
            name: "u".into(),
            password: Secret::new("p"),
        };
        let users = Users::open(folder.path(), &[user]).expect("opens");
        let mut exchange = Exchange::new(Mechanism::Plain);
        let proven = Step::Proven(Vec::new(), Principal::user("u"));
        assert_eq!(exchange.step(&users, b"\0u\0p"), Ok(proven));
        assert!(exchange.step(&users, b"\0u\0p").is_err());
        let mut exchange = Exchange::new(Mechanism::Plain);
        assert!(exchange.step(&users, b"\0u\0q").is_err());
        assert!(exchange.step(&users, b"\0u\0p").is_err(), "one try only");
    }

    #[test]
    fn a_stranger_is_challenged_as_a_friend_is() {
        let folder = tempfile::tempdir().expect("a folder");
        let users = Users::open(folder.path(), &[]).expect("opens");
        let mut exchange = Exchange::new(Mechanism::ScramSha512);
        let asked = exchange.step(&users, b"n,,n=u,r=abc").expect("a challenge");
        let Step::Ask(challenge) = asked else {
            panic!("not proven yet")
        };
        let challenge = String::from_utf8(challenge).expect("text");
        assert!(challenge.starts_with("r=abc") && challenge.ends_with(",i=4096"));
        let nonce = challenge.split(',').next().expect("a nonce");
        let proof = base64::engine::general_purpose::STANDARD.encode([0; 64]);
        let last = format!("c=biws,{nonce},p={proof}");
        let refused = exchange.step(&users, last.as_bytes()).expect_err("refused");
        assert_eq!(refused, Refused::Credentials);
        assert_eq!(
            exchange.told(&refused, false),
            "Authentication failed during authentication due to invalid credentials with SASL mechanism SCRAM-SHA-512"
        );
    }
}
