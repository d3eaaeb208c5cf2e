//! Users and what proves them: those of the configuration, and those that administrators made over the protocol.
//!
//! A credential that was stored goes before the one that the configuration's password makes; when it is deleted, that one
//! holds again.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};

use aws_lc_rs::{constant_time, digest, rand};
use kafka::error::ErrorCode;
use parking_lot::{Mutex, RwLock};

use super::plain::Claim;
use super::scram::{Credential, Hash, ITERATIONS_MAX, ITERATIONS_MIN};
use super::{Refused, User};
use crate::files;

/// Bytes of salt for a password of the configuration.
const SALT_BYTES: usize = 20;
/// Most users that are stored: all of them are in memory, and the file is written anew at each change.
const USERS_MAX: usize = 100_000;

type Credentials = BTreeMap<Hash, Credential>;

/// All users.
#[derive(Debug)]
pub(crate) struct Users {
    path: PathBuf,
    configured: RwLock<Configured>,
    stored: RwLock<BTreeMap<String, Credentials>>,
    /// Held while the file is written, so that readers need not wait for the disk.
    writing: Mutex<()>,
    /// Makes salts for users who do not exist.
    secret: [u8; 32],
}

/// The users of the configuration.
#[derive(Debug, Default)]
struct Configured {
    passwords: HashMap<String, Password>,
    credentials: BTreeMap<String, Credentials>,
}

impl Configured {
    /// Makes credentials of passwords; those that were made before of the same are kept. It takes some milliseconds for each.
    fn new(users: &[User], before: &RwLock<Configured>) -> io::Result<Self> {
        let mut configured = Configured::default();
        for user in users {
            let password = Password::of(user.password.reveal());
            let kept = before.read().kept(&user.name, &password);
            let credentials = match kept {
                Some(credentials) => credentials,
                None => salted(user.password.reveal())?,
            };
            configured
                .credentials
                .insert(user.name.clone(), credentials);
            configured.passwords.insert(user.name.clone(), password);
        }
        Ok(configured)
    }

    fn kept(&self, name: &str, password: &Password) -> Option<Credentials> {
        let same =
            constant_time::verify_slices_are_equal(&self.passwords.get(name)?.0, &password.0);
        same.ok()?;
        self.credentials.get(name).cloned()
    }
}

fn salted(password: &str) -> io::Result<Credentials> {
    let mut credentials = Credentials::new();
    for hash in Hash::ALL {
        let mut salt = [0; SALT_BYTES];
        random(&mut salt)?;
        credentials.insert(hash, Credential::of_password(hash, password, &salt));
    }
    Ok(credentials)
}

/// The digest of a password: all of them take as long to be compared.
struct Password([u8; 32]);

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(hidden)")
    }
}

impl Password {
    fn of(password: &str) -> Self {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest::digest(&digest::SHA256, password.as_bytes()).as_ref());
        Self(bytes)
    }
}

/// A credential that a client wants stored.
pub(crate) struct Upsert {
    pub name: String,
    pub mechanism: i8,
    pub iterations: i32,
    pub salt: Vec<u8>,
    pub salted: Vec<u8>,
}

/// Why a change is not made.
pub(crate) type Fault = (ErrorCode, &'static str);

const TWICE: Fault = (
    ErrorCode::DuplicateResource,
    "A user credential cannot be altered twice in the same request",
);

fn check(name: &str, mechanism: i8) -> Result<Hash, Fault> {
    if name.is_empty() {
        let why = "Username must not be empty";
        return Err((ErrorCode::UnacceptableCredential, why));
    }
    let unknown = (
        ErrorCode::UnsupportedSaslMechanism,
        "Unknown SCRAM mechanism",
    );
    Hash::from_number(mechanism).ok_or(unknown)
}

fn check_upsert(upsert: &Upsert) -> Result<Hash, Fault> {
    let hash = check(&upsert.name, upsert.mechanism)?;
    let refuse = |why| Err((ErrorCode::UnacceptableCredential, why));
    match upsert.iterations {
        ..ITERATIONS_MIN => refuse("Too few iterations"),
        ITERATIONS_MIN..=ITERATIONS_MAX if upsert.salted.is_empty() => refuse("Empty password"),
        ITERATIONS_MIN..=ITERATIONS_MAX => Ok(hash),
        _ => refuse("Too many iterations"),
    }
}

impl Users {
    /// Reads the stored users of a data directory and adds those of the configuration.
    pub(crate) fn open(data_dir: &Path, users: &[User]) -> io::Result<Self> {
        let path = data_dir.join("users.json");
        let stored = match files::read(&path)? {
            Some(content) => serde_json::from_slice(&content)?,
            None => BTreeMap::new(),
        };
        let mut secret = [0; 32];
        random(&mut secret)?;
        let configured = Configured::new(users, &RwLock::default())?;
        Ok(Self {
            path,
            configured: RwLock::new(configured),
            stored: RwLock::new(stored),
            writing: Mutex::new(()),
            secret,
        })
    }

    /// Takes other users of the configuration.
    pub(crate) fn change(&self, users: &[User]) -> io::Result<()> {
        let configured = Configured::new(users, &self.configured)?;
        *self.configured.write() = configured;
        Ok(())
    }

    /// Checks a name and a password.
    pub(crate) fn check_password(&self, claim: &Claim<'_>) -> Result<(), Refused> {
        let claimed = Password::of(claim.password);
        let configured = self.configured.read();
        let found = configured.passwords.get(claim.name);
        // Who does not exist takes as long to refuse as a wrong password.
        let expected = found.map_or(self.secret, |password| password.0);
        let equal = constant_time::verify_slices_are_equal(&claimed.0, &expected);
        match (equal, found) {
            (Ok(()), Some(_)) => Ok(()),
            _ => Err(Refused::Told(
                "Authentication failed: Invalid username or password",
            )),
        }
    }

    /// Returns what to check a proof by; the flag says that there is such a user.
    pub(crate) fn credential(&self, name: &str, hash: Hash) -> (Credential, bool) {
        let of = |users: &BTreeMap<String, Credentials>| Some(users.get(name)?.get(&hash)?.clone());
        let found = of(&self.stored.read()).or_else(|| of(&self.configured.read().credentials));
        match found {
            Some(credential) => (credential, true),
            None => (Credential::of_nobody(hash, name, &self.secret), false),
        }
    }

    /// Tells the mechanisms and rounds of a user's credentials, `None` when there is no such user.
    pub(crate) fn describe(&self, name: &str) -> Option<Vec<(Hash, i32)>> {
        let stored = self.stored.read();
        let configured = self.configured.read();
        let mut told = BTreeMap::new();
        for credentials in [configured.credentials.get(name), stored.get(name)] {
            let all = credentials.into_iter().flatten();
            told.extend(all.map(|(hash, credential)| (*hash, credential.iterations())));
        }
        (!told.is_empty()).then(|| told.into_iter().collect())
    }

    /// Returns all users' names.
    pub(crate) fn names(&self) -> BTreeSet<String> {
        let stored = self.stored.read();
        stored
            .keys()
            .chain(self.configured.read().credentials.keys())
            .cloned()
            .collect()
    }

    /// Makes changes, of each user at most one; they are durable when this returns. It waits for the disk.
    pub(crate) fn alter(
        &self,
        deletions: Vec<(String, i8)>,
        upserts: Vec<Upsert>,
    ) -> Vec<(String, Result<(), Fault>)> {
        let _writing = self.writing.lock();
        let mut next = self.stored.read().clone();
        let mut results: BTreeMap<String, Result<(), Fault>> = BTreeMap::new();
        for (name, mechanism) in &deletions {
            let result = match results.get(name) {
                Some(_) => Err(TWICE),
                None => check(name, *mechanism).and_then(|hash| match next.get(name) {
                    Some(credentials) if credentials.contains_key(&hash) => Ok(()),
                    _ => Err((
                        ErrorCode::ResourceNotFound,
                        "Attempt to delete a user credential that does not exist",
                    )),
                }),
            };
            note(&mut results, name, result);
        }
        for upsert in &upserts {
            let result = match results.get(&upsert.name) {
                Some(_) => Err(TWICE),
                None => check_upsert(upsert).map(|_| ()),
            };
            note(&mut results, &upsert.name, result);
        }
        let fine = |name: &String| results.get(name).is_some_and(Result::is_ok);
        let mut changed = false;
        for (name, mechanism) in deletions.iter().filter(|(name, _)| fine(name)) {
            let emptied = match (next.get_mut(name), Hash::from_number(*mechanism)) {
                (Some(credentials), Some(hash)) => {
                    credentials.remove(&hash);
                    credentials.is_empty()
                }
                _ => false,
            };
            if emptied {
                next.remove(name);
            }
            changed = true;
        }
        for upsert in upserts.iter().filter(|upsert| fine(&upsert.name)) {
            if let Some(hash) = Hash::from_number(upsert.mechanism) {
                let credential =
                    Credential::of_salted(hash, &upsert.salt, &upsert.salted, upsert.iterations);
                let credentials = next.entry(upsert.name.clone()).or_default();
                credentials.insert(hash, credential);
                changed = true;
            }
        }
        let refused = match changed {
            false => None,
            true if next.len() > USERS_MAX => {
                Some((ErrorCode::UnacceptableCredential, "Too many users"))
            }
            true => self.store(next).err().map(|error| {
                tracing::error!(%error, "could not store users");
                let why = "the disk has refused the change";
                (ErrorCode::KafkaStorageError, why)
            }),
        };
        let told = |(name, result): (String, Result<(), Fault>)| match refused {
            Some(fault) if result.is_ok() => (name, Err(fault)),
            _ => (name, result),
        };
        results.into_iter().map(told).collect()
    }

    fn store(&self, next: BTreeMap<String, Credentials>) -> io::Result<()> {
        files::replace_private(&self.path, &serde_json::to_vec_pretty(&next)?)?;
        *self.stored.write() = next;
        Ok(())
    }
}

/// Notes a result; a user who is named twice keeps the first fault.
fn note(results: &mut BTreeMap<String, Result<(), Fault>>, name: &str, result: Result<(), Fault>) {
    match results.get_mut(name) {
        Some(Err(_)) => (),
        Some(earlier) => *earlier = result,
        None => _ = results.insert(name.to_owned(), result),
    }
}

fn random(bytes: &mut [u8]) -> io::Result<()> {
    rand::fill(bytes).map_err(|_| io::Error::other("the system has no random numbers"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::Secret;

    fn open(folder: &Path) -> Users {
        let user = User {
            name: "root".into(),
            password: Secret::new("hidden"),
        };
        Users::open(folder, &[user]).expect("opens")
    }

    fn upsert(name: &str, mechanism: i8, iterations: i32) -> Upsert {
        Upsert {
            name: name.into(),
            mechanism,
            iterations,
            salt: b"salt".to_vec(),
            salted: b"salted".to_vec(),
        }
    }

    #[test]
    fn other_users_are_taken_and_those_that_are_the_same_are_kept() {
        let folder = tempfile::tempdir().expect("a folder");
        let users = open(folder.path());
        let user = |name: &str, password: &str| User {
            name: name.into(),
            password: Secret::new(password),
        };
        let (before, _) = users.credential("root", Hash::Sha256);
        let changed = users.change(&[user("root", "hidden"), user("new", "p")]);
        changed.expect("changes");
        assert_eq!(
            users.credential("root", Hash::Sha256),
            (before.clone(), true)
        );
        let claim = |name, password| Claim { name, password };
        assert_eq!(users.check_password(&claim("new", "p")), Ok(()));
        users.change(&[user("root", "other")]).expect("changes");
        assert_ne!(users.credential("root", Hash::Sha256), (before, true));
        assert!(users.check_password(&claim("root", "hidden")).is_err());
        assert_eq!(users.check_password(&claim("root", "other")), Ok(()));
        assert!(users.check_password(&claim("new", "p")).is_err());
        assert!(!users.names().contains("new"));
    }

    fn codes(results: Vec<(String, Result<(), Fault>)>) -> Vec<(String, ErrorCode)> {
        let code = |(name, result): (String, Result<(), Fault>)| {
            (
                name,
                result.map_or_else(|fault| fault.0, |()| ErrorCode::None),
            )
        };
        results.into_iter().map(code).collect()
    }

    #[test]
    fn what_was_stored_is_there_after_a_restart() {
        let folder = tempfile::tempdir().expect("a folder");
        let users = open(folder.path());
        assert_eq!(users.describe("u"), None);
        let made = users.alter(
            Vec::new(),
            vec![upsert("u", 1, 4096), upsert("root", 2, 5000)],
        );
        assert!(made.iter().all(|(_, result)| result.is_ok()), "{made:?}");
        let users = open(folder.path());
        assert_eq!(users.describe("u"), Some(vec![(Hash::Sha256, 4096)]));
        let root = users.describe("root").expect("there");
        assert_eq!(root[1], (Hash::Sha512, 5000), "what is stored goes first");
        assert!(users.credential("u", Hash::Sha256).1);
        assert!(!users.credential("u", Hash::Sha512).1);
        let gone = users.alter(vec![("u".into(), 1), ("root".into(), 2)], Vec::new());
        assert!(gone.iter().all(|(_, result)| result.is_ok()), "{gone:?}");
        let users = open(folder.path());
        assert_eq!(users.describe("u"), None);
        let root = users.describe("root").expect("there");
        assert_eq!(root[1].1, 8192, "the configuration's holds again");
        let text = std::fs::read_to_string(folder.path().join("users.json")).expect("a file");
        assert!(!text.contains("hidden"));
    }

    #[test]
    fn a_user_is_changed_once_in_a_request() {
        let folder = tempfile::tempdir().expect("a folder");
        let users = open(folder.path());
        let twice =
            codes(users.alter(Vec::new(), vec![upsert("u", 1, 4096), upsert("u", 2, 4096)]));
        assert_eq!(twice, [("u".into(), ErrorCode::DuplicateResource)]);
        assert_eq!(users.describe("u"), None);
        let strange = [
            (upsert("u", 1, 4095), ErrorCode::UnacceptableCredential),
            (upsert("u", 1, 16385), ErrorCode::UnacceptableCredential),
            (upsert("", 1, 4096), ErrorCode::UnacceptableCredential),
            (upsert("u", 0, 4096), ErrorCode::UnsupportedSaslMechanism),
        ];
        for (upsert, expected) in strange {
            let found = codes(users.alter(Vec::new(), vec![upsert]));
            assert_eq!(found[0].1, expected);
        }
        let missing = codes(users.alter(vec![("root".into(), 1)], Vec::new()));
        assert_eq!(
            missing[0].1,
            ErrorCode::ResourceNotFound,
            "it is not stored"
        );
    }

    #[test]
    fn passwords_are_checked() {
        let folder = tempfile::tempdir().expect("a folder");
        let users = open(folder.path());
        let claim = |name, password| users.check_password(&Claim { name, password });
        assert_eq!(claim("root", "hidden"), Ok(()));
        assert!(claim("root", "hiddem").is_err());
        assert!(claim("nobody", "hidden").is_err());
        assert!(!format!("{users:?}").contains("hidden\""));
    }
}
