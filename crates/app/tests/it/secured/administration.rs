//! `nuncio users` and `nuncio acls`: at our own broker and at Apache Kafka.

use std::fs;

use serde_json::Value;
use tempfile::TempDir;
use testkit::apache::{Apache, Users};
use testkit::lab;
use testkit::nuncio::{Nuncio, Setup};
use testkit::wait;

use crate::commands::nuncio;

/// Memory of the Apache Kafka that is administered.
const APACHE_HEAP_MB: u32 = 320;
/// How long a change may take until all parts of Apache Kafka know of it.
const SETTLED: std::time::Duration = std::time::Duration::from_secs(30);
const PASSWORD: &str = "open sesame";

const CONFIG: &str = "\
broker:
  listeners:
  - name: USERS
    listen: 127.0.0.1:0
    protocol: SASL_PLAINTEXT
    sasl_enabled_mechanisms: [PLAIN, SCRAM-SHA-256, SCRAM-SHA-512]
  users:
  - { name: admin, password_env: ADMIN }
  authorization:
    super_users: ['User:admin']
";

/// A broker that asks for users, and the files of those who are asked.
struct At {
    bootstrap: String,
    folder: TempDir,
}

impl At {
    fn new(bootstrap: String) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        At { bootstrap, folder }
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.folder.path().join(name);
        fs::write(&path, text).expect("written");
        path.display().to_string()
    }

    /// Runs a command as a user; gives what it reads.
    fn run(&self, mechanism: &str, user: &str, password: &str, command: &str, input: &str) -> Told {
        let file = self.file(&format!("{user}.password"), password);
        let login = [
            "--bootstrap",
            &self.bootstrap,
            "--security-protocol",
            "SASL_PLAINTEXT",
            "--sasl-mechanism",
            mechanism,
            "--user",
            user,
            "--password-file",
            &file,
        ];
        let words: Vec<&str> = command.split_whitespace().chain(login).collect();
        let output = nuncio(&words, input);
        Told {
            done: output.status.success(),
            said: String::from_utf8_lossy(&output.stdout).into_owned(),
            errors: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    fn admin(&self, command: &str, input: &str) -> Told {
        self.run("PLAIN", "admin", PASSWORD, command, input)
    }

    /// Runs a command as the administrator, which must end well.
    #[track_caller]
    fn ask(&self, command: &str) -> String {
        self.give(command, "")
    }

    #[track_caller]
    fn give(&self, command: &str, input: &str) -> String {
        let told = self.admin(command, input);
        assert!(told.done, "{command}: {}\n{}", told.said, told.errors);
        told.said
    }

    #[track_caller]
    fn refused(&self, command: &str) -> String {
        let told = self.admin(command, "");
        assert!(!told.done, "{command}: {}", told.said);
        told.errors
    }

    /// Asks until the answer is as it should be: Apache Kafka tells of a change before all of its parts know.
    #[track_caller]
    fn settles(&self, what: &str, mut as_it_should_be: impl FnMut() -> bool) {
        wait::until(what, SETTLED, || as_it_should_be().then_some(()));
    }
}

struct Told {
    done: bool,
    said: String,
    errors: String,
}

fn ours() -> (Nuncio, At) {
    let nuncio = Setup::new(env!("CARGO_BIN_EXE_nuncio"))
        .file("nuncio.yaml", CONFIG)
        .environment("ADMIN", PASSWORD)
        .start();
    let bootstrap = nuncio.kafka().to_string();
    (nuncio, At::new(bootstrap))
}

#[test]
fn our_broker_is_administered() {
    let (_nuncio, at) = ours();
    users(&at);
    rules(&at);
}

#[test]
fn an_apache_kafka_is_administered() {
    let users_ = Users {
        names: &["admin"],
        password: PASSWORD,
    };
    let Some(apache) = lab::or_skip(Apache::start_secured(APACHE_HEAP_MB, &users_)) else {
        return;
    };
    let at = At::new(apache.secured_address().to_string());
    users(&at);
    rules(&at);
    lab::say("Apache Kafka: users and rules by the command line");
}

fn users(at: &At) {
    assert_eq!(at.give("users set bob", "bread\n"), "set bob\n");
    let butter = at.file("butter", "butter\r\n");
    let both = format!(
        "users add eve --mechanism scram-sha-256,SCRAM-SHA-512 --iterations 4096 --new-password-file {butter}"
    );
    assert_eq!(at.ask(&both), "set eve\n");
    at.settles("the users to be listed", || {
        let told = at.ask("users list");
        let line = |words: [&str; 3]| {
            told.lines()
                .any(|line| line.split_whitespace().eq(words.iter().copied()))
        };
        line(["bob", "SCRAM-SHA-512", "8192"])
            && line(["eve", "SCRAM-SHA-256", "4096"])
            && line(["eve", "SCRAM-SHA-512", "4096"])
    });
    let told: Value = serde_json::from_str(&at.ask("users list eve --json")).expect("JSON");
    assert_eq!(told[0]["user"], "eve", "{told}");
    assert_eq!(told[0]["credentials"][1]["mechanism"], "SCRAM-SHA-512");
    // They come in, by what they have.
    for (mechanism, user, password, comes_in) in [
        ("SCRAM-SHA-512", "bob", "bread", true),
        ("SCRAM-SHA-256", "bob", "bread", false),
        ("SCRAM-SHA-512", "bob", "butter", false),
        ("SCRAM-SHA-256", "eve", "butter", true),
        ("SCRAM-SHA-512", "eve", "butter", true),
    ] {
        let told = at.run(mechanism, user, password, "topics list", "");
        assert_eq!(told.done, comes_in, "{mechanism} {user}: {}", told.errors);
    }
    at.ask("users remove eve --mechanism SCRAM-SHA-512");
    at.settles("half of eve to be gone", || {
        !at.run("SCRAM-SHA-512", "eve", "butter", "topics list", "")
            .done
    });
    let told = at.run("SCRAM-SHA-256", "eve", "butter", "topics list", "");
    assert!(told.done, "{}", told.errors);
    assert_eq!(at.ask("users remove eve"), "removed eve\n");
    at.settles("eve to be gone", || {
        let told = at.admin("users list eve", "");
        !told.done && told.errors.contains("there is no user `eve`")
    });
    assert!(at.refused("users remove eve").contains("no user `eve`"));
    assert!(at.refused("users set bob").contains("no characters"));
    let few = at.admin("users set bob --iterations 4095", "x\n");
    assert!(!few.done && few.errors.contains("4096"), "{}", few.errors);
}

fn rules(at: &At) {
    at.ask("topics create orders.placed -p 1");
    at.ask("topics create secret -p 1");
    let bob = |command: &str, input: &str| at.run("SCRAM-SHA-512", "bob", "bread", command, input);
    let told = bob("produce orders.placed x", "");
    assert!(!told.done, "{}", told.said);
    let added = at.ask(
        "acls add --topic orders. --pattern PREFIXED --principal User:bob --operation read,Write,describe",
    );
    assert!(
        added.contains("added ALLOW User:bob READ on TOPIC orders. (PREFIXED) from *\n"),
        "{added}"
    );
    at.ask("acls add --cluster --principal User:bob --operation idempotent-write --host 127.0.0.1");
    at.settles("bob to be let in", || {
        bob("produce orders.placed x", "").done
    });
    assert!(!bob("produce secret x", "").done);
    at.ask("acls add --topic orders.placed --principal User:bob --operation WRITE --deny");
    at.settles("bob to be kept out", || {
        !bob("produce orders.placed y", "").done
    });

    let told = at.ask("acls list --topic orders.placed");
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let lines: Vec<String> = told.lines().map(words).collect();
    assert_eq!(
        lines,
        [
            "TYPE NAME PATTERN PRINCIPAL HOST PERMISSION OPERATION",
            "TOPIC orders. PREFIXED User:bob * ALLOW READ",
            "TOPIC orders. PREFIXED User:bob * ALLOW WRITE",
            "TOPIC orders. PREFIXED User:bob * ALLOW DESCRIBE",
            "TOPIC orders.placed LITERAL User:bob * DENY WRITE",
        ]
    );
    let count = |command: &str| {
        let told: Value = serde_json::from_str(&at.ask(command)).expect("JSON");
        told.as_array().expect("a list").len()
    };
    assert_eq!(count("acls list --json"), 5);
    assert_eq!(
        count("acls list --topic orders.placed --pattern literal --json"),
        1
    );
    assert_eq!(count("acls list --type cluster --json"), 1);
    assert_eq!(count("acls list --permission deny --json"), 1);
    assert_eq!(count("acls list --operation describe --json"), 1);
    assert_eq!(count("acls list --principal User:eve --json"), 0);
    assert_eq!(count("acls list --host 127.0.0.1 --json"), 1);

    assert!(at.refused("acls remove").contains("--all"));
    let told = at.ask("acls remove --topic orders.placed --dry-run");
    assert!(told.starts_with("would be removed: 1\n"), "{told}");
    let told = at.ask("acls remove --topic orders.placed");
    assert!(told.starts_with("removed: 1\n"), "{told}");
    at.settles("bob to be let in again", || {
        bob("produce orders.placed z", "").done
    });
    assert!(
        at.refused("acls remove --topic orders.placed")
            .contains("no such rule")
    );
    // Who may not is told so.
    let told = bob("acls list", "");
    assert!(
        !told.done && told.errors.contains("CLUSTER_AUTHORIZATION_FAILED"),
        "{}",
        told.errors
    );
    let told = bob("users set mallory", "x\n");
    assert!(
        !told.done && told.errors.contains("CLUSTER_AUTHORIZATION_FAILED"),
        "{}",
        told.errors
    );
    assert!(at.ask("acls remove --all").starts_with("removed: 4\n"));
    assert!(
        at.refused("acls add --topic t --principal bob --operation read")
            .contains("`User:bob`")
    );
}

#[test]
fn rules_that_nobody_asks_for_are_told_so() {
    let nuncio_ = Setup::new(env!("CARGO_BIN_EXE_nuncio"))
        .argument("--role")
        .argument("broker")
        .start();
    let output = nuncio(&["acls", "list", "-b", &nuncio_.kafka().to_string()], "");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(told.contains("SECURITY_DISABLED"), "{told}");
}

#[test]
fn users_and_super_users_change_with_the_file() {
    let (nuncio, at) = ours();
    let told = at.run("PLAIN", "eve", PASSWORD, "topics list", "");
    assert!(
        !told.done && told.errors.contains("no entry"),
        "{}",
        told.errors
    );
    let file = nuncio.config().join("nuncio.yaml");
    let changed = CONFIG
        .replace("super_users: ['User:admin']", "super_users: ['User:eve']")
        .replace(
            "  users:\n",
            "  users:\n  - { name: eve, password_env: ADMIN }\n",
        );
    fs::write(&file, &changed).expect("written");
    let eve = |command: &str| at.run("SCRAM-SHA-256", "eve", PASSWORD, command, "");
    at.settles("eve to come in and to be free", || eve("acls list").done);
    // The one before is a user like others now.
    at.settles("the other to be bound", || {
        let told = at.admin("acls list", "");
        !told.done && told.errors.contains("CLUSTER_AUTHORIZATION_FAILED")
    });
    let told = at.ask("topics list");
    assert!(!told.contains("orders"), "{told}");
    // Gone again; what cannot change is told.
    let gone = CONFIG.replace("127.0.0.1:0", "127.0.0.1:1");
    fs::write(&file, gone).expect("written");
    at.settles("eve to be gone", || {
        let told = eve("acls list");
        !told.done && told.errors.contains("no entry")
    });
    at.ask("acls list");
    at.settles("the restart to be asked for", || {
        nuncio
            .log()
            .lines()
            .any(|line| line.contains("need a restart") && line.contains("settings=\"listeners\""))
    });
    assert!(!nuncio.log().contains(PASSWORD));
}
