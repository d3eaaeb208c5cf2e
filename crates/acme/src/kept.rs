//! What lasts of a certificate: itself with its key, in one file that is replaced at once, the account, and how the last orders
//! went. Nobody but the user that we run as may read any of it.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::ErrorKind::{InvalidData, NotFound};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde::{Deserialize, Serialize};
use tls::certificate::Certificate;
use tls::ordered::{Ordered, plain};

use crate::plan::{Cause, Life};
use crate::wanted::Wanted;

/// What a file begins with while its certificate is none of the authority's.
const STAND_IN: &str = "# Until the authority has issued one.\n";
/// Largest file that is read.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The files of one certificate.
pub(crate) struct Kept {
    name: String,
    /// Of all authorities.
    folder: PathBuf,
    pub(crate) pem: PathBuf,
    state: PathBuf,
    account: PathBuf,
}

/// A certificate that an authority has issued.
pub(crate) struct Issued {
    pub(crate) life: Life,
    pub(crate) certificate: CertificateDer<'static>,
    /// The same for it each time, different from others'.
    pub(crate) dice: f64,
}

/// How the last orders went.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Tries {
    /// Failures in a row.
    pub(crate) failures: u32,
    /// When the last was, in seconds since 1970.
    pub(crate) last: u64,
    /// When the next may be.
    pub(crate) again: u64,
    /// The authority itself has said so.
    pub(crate) said: bool,
    /// What the authority, or we, said was wrong.
    pub(crate) why: String,
}

impl Tries {
    /// Returns what a failure leaves.
    pub(crate) fn failed(
        &self,
        cause: Cause,
        why: String,
        now: SystemTime,
        rest: Duration,
    ) -> Self {
        Tries {
            failures: self.failures.saturating_add(1),
            last: seconds(now),
            // Rather later than earlier.
            again: seconds(now + rest) + 1,
            said: cause == Cause::Busy,
            why,
        }
    }

    /// Returns what is kept while an order is under way: should we end before it does, nobody knows how it went.
    pub(crate) fn begun(&self, now: SystemTime, rest: Duration) -> Self {
        Tries {
            last: seconds(now),
            again: seconds(now + rest) + 1,
            said: false,
            ..self.clone()
        }
    }

    /// Returns when the next order may be.
    pub(crate) fn again(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(self.again)
    }

    /// Forgets what failed, since the user has changed something; what the authority has said stays.
    pub(crate) fn anew(&mut self) {
        self.failures = 0;
        if !self.said {
            self.again = 0;
        }
    }

    /// Comes back after a restart: somebody may have mended what was wrong, or it is the restarts that go wrong.
    pub(crate) fn after_restart(&mut self, most: Duration) {
        if !self.said {
            self.again = self.again.min(self.last.saturating_add(most.as_secs()));
        }
    }
}

impl Kept {
    pub(crate) fn of(ordered: &Ordered, wanted: &Wanted) -> Self {
        let folder = ordered.authority(&wanted.authority);
        Kept {
            name: wanted.name.clone(),
            pem: ordered.file(&wanted.authority, &wanted.name),
            state: folder.join(format!("{}.json", plain(&wanted.name))),
            account: folder.join(wanted.account()),
            folder: ordered.folder().to_owned(),
        }
    }

    /// Puts a certificate there where there is none, so that clients are shown something: that of another authority, or a
    /// self-signed one. Returns whether it did.
    pub(crate) fn stand_in(&self) -> io::Result<bool> {
        match read(&self.pem) {
            Ok(text) if text.starts_with(STAND_IN) && leaf(&text).is_some() => return Ok(false),
            Ok(text) if self.is_issued(&text) => return Ok(false),
            Ok(_) => (),
            // What is there and cannot be read may be good.
            Err(error) if !matches!(error.kind(), NotFound | InvalidData) => return Err(error),
            Err(_) => (),
        }
        let text = match self.another() {
            Some(text) => text,
            None => self_signed(&self.name).map_err(io::Error::other)?,
        };
        write(&self.pem, (STAND_IN.to_owned() + &text).as_bytes())?;
        Ok(true)
    }

    /// Returns what another authority has issued, as long as it counts.
    fn another(&self) -> Option<String> {
        let file = self.pem.file_name()?;
        let folders = fs::read_dir(&self.folder).ok()?;
        let texts = folders.flatten().filter_map(|entry| {
            let text = read(&entry.path().join(file)).ok()?;
            let life = self.is_issued(&text).then(|| Issued::read(&text))??.life;
            (life.not_after > SystemTime::now()).then_some((life.not_after, text))
        });
        texts.max_by_key(|(until, _)| *until).map(|(_, text)| text)
    }

    fn is_issued(&self, text: &str) -> bool {
        !text.starts_with(STAND_IN)
            && leaf(text).is_some_and(|leaf| {
                Certificate::read(&leaf).is_ok_and(|certificate| certificate.covers(&self.name))
            })
            && rustls::pki_types::PrivateKeyDer::from_pem_slice(text.as_bytes()).is_ok()
    }

    /// Returns the certificate that the authority has issued, if it has.
    pub(crate) fn issued(&self) -> Option<Issued> {
        let text = read(&self.pem).ok()?;
        match self.is_issued(&text) {
            true => Issued::read(&text),
            false => None,
        }
    }

    /// Keeps a certificate that was issued: from now on it is shown.
    ///
    /// # Errors
    /// When the disk does not take it.
    pub(crate) fn keep(&self, chain: &str, key: &str) -> io::Result<()> {
        let mut text = key.trim_end().to_owned();
        text.push('\n');
        text.push_str(chain);
        write(&self.pem, text.as_bytes())
    }

    /// Returns how the last orders went; what cannot be read went well.
    pub(crate) fn tries(&self) -> Tries {
        let read = read(&self.state).ok();
        read.and_then(|text| serde_json::from_str(&text).ok())
            .unwrap_or_default()
    }

    /// Keeps how the last orders went.
    pub(crate) fn keep_tries(&self, tries: &Tries) -> io::Result<()> {
        write(&self.state, &serde_json::to_vec(tries)?)
    }

    /// Returns the account.
    pub(crate) fn account(&self) -> io::Result<Option<String>> {
        match read(&self.account) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(crate) fn keep_account(&self, text: &[u8]) -> io::Result<()> {
        write(&self.account, text)
    }

    /// Lays an account aside that the authority does not know.
    pub(crate) fn forget_account(&self) -> io::Result<()> {
        fs::rename(&self.account, self.account.with_extension("unknown"))
    }
}

impl Issued {
    fn read(text: &str) -> Option<Self> {
        let der = leaf(text)?;
        let certificate = Certificate::read(&der).ok()?;
        let at = |seconds: i64| {
            let seconds = u64::try_from(seconds).unwrap_or_default();
            UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
        };
        // Numbers of certificates are random.
        let digits = certificate.serial.as_bytes();
        let sum = digits.iter().fold(0_u32, |sum, digit| {
            sum.wrapping_mul(31).wrapping_add((*digit).into())
        });
        Some(Issued {
            life: Life {
                not_before: at(certificate.not_before)?,
                not_after: at(certificate.not_after)?,
            },
            certificate: der,
            dice: f64::from(sum % 1000) / 1000.0,
        })
    }
}

fn leaf(text: &str) -> Option<CertificateDer<'static>> {
    CertificateDer::from_pem_slice(text.as_bytes()).ok()
}

/// Makes a certificate that nobody trusts.
fn self_signed(name: &str) -> Result<String, rcgen::Error> {
    let mut params = CertificateParams::new(vec![name.to_owned()])?;
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, "not yet issued");
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?;
    Ok(key.serialize_pem() + &certificate.pem())
}

fn read(file: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(file)?
        .take(FILE_BYTES_MAX)
        .read_to_string(&mut text)?;
    Ok(text)
}

/// Replaces a file as a whole: after a crash there is the old one or the new.
fn write(file: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = file.parent().unwrap_or(Path::new("."));
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)?;
    let mut beside = file.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    // One that was left there may have other rights.
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != NotFound => return Err(error),
        _ => (),
    }
    let mut new = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&beside)?;
    new.write_all(bytes)?;
    new.sync_all()?;
    fs::rename(&beside, file)?;
    File::open(folder)?.sync_all()
}

/// Returns a time in seconds since 1970.
pub(crate) fn seconds(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn kept(folder: &Path, authority: &str) -> Kept {
        let wanted = Wanted {
            authority: authority.to_owned(),
            name: "shop.example".to_owned(),
            email: None,
            account_key: None,
            challenge: None,
            external: None,
            ca_file: None,
        };
        Kept::of(&Ordered::new(folder), &wanted)
    }

    fn issue(kept: &Kept) {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec!["shop.example".to_owned()]).expect("a name");
        params.not_after = rcgen::date_time_ymd(4000, 1, 1);
        let certificate = params.self_signed(&key).expect("a certificate");
        kept.keep(&certificate.pem(), &key.serialize_pem())
            .expect("a place on disk");
    }

    #[test]
    fn a_stand_in_is_there_until_one_is_issued() {
        let folder = tempfile::tempdir().expect("a folder");
        let kept = kept(folder.path(), "https://a.example/dir");
        assert!(kept.stand_in().expect("a place on disk"));
        assert!(kept.issued().is_none());
        assert!(!kept.stand_in().expect("a place on disk"), "it is there");
        issue(&kept);
        assert!(kept.issued().is_some());
        assert!(!kept.stand_in().expect("a place on disk"));
        assert!(kept.issued().is_some());
        let mode = fs::metadata(&kept.pem)
            .expect("a file")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        // A file that was cut short is no certificate.
        fs::write(&kept.pem, "-----BEGIN CERTIFICATE-----\nMII").expect("the file takes bytes");
        assert!(kept.issued().is_none());
        assert!(kept.stand_in().expect("a place on disk"));
    }

    #[test]
    fn what_another_authority_has_issued_is_shown_meanwhile() {
        let folder = tempfile::tempdir().expect("a folder");
        let before = kept(folder.path(), "https://a.example/dir");
        issue(&before);
        let now = kept(folder.path(), "https://b.example/dir");
        assert!(now.stand_in().expect("a place on disk"));
        assert!(now.issued().is_none(), "it is ordered all the same");
        let shown = leaf(&read(&now.pem).expect("a file")).expect("a certificate");
        assert_eq!(shown, before.issued().expect("the one before").certificate);
    }

    #[test]
    fn a_restart_shortens_the_wait_but_for_what_the_authority_said() {
        let now = UNIX_EPOCH + Duration::from_secs(1_000_000);
        let day = Duration::from_secs(86_400);
        let rest = Duration::from_secs(300);
        let mut own = Tries::default().failed(Cause::Unproven, String::new(), now, day);
        own.after_restart(rest);
        assert_eq!(own.again(), now + rest);
        let mut said = Tries::default().failed(Cause::Busy, String::new(), now, day);
        said.after_restart(rest);
        said.anew();
        assert_eq!(said.again(), now + day + Duration::from_secs(1));
    }

    #[test]
    fn how_orders_went_is_there_after_a_restart() {
        let folder = tempfile::tempdir().expect("a folder");
        let kept = kept(folder.path(), "https://a.example/dir");
        assert_eq!(kept.tries(), Tries::default());
        let now = UNIX_EPOCH + Duration::from_secs(1_000_000);
        let tries = Tries::default().failed(Cause::Busy, "too many".into(), now, Duration::ZERO);
        kept.keep_tries(&tries).expect("a place on disk");
        assert_eq!(kept.tries(), tries);
    }
}
