//! Services that cannot start, or end by themselves.

use expect_test::expect;
use services::board::State;
use services::output::{LINE_BYTES_MAX, Source};

use crate::{IDLE, LIMIT, Stage};

#[tokio::test]
async fn a_missing_runtime_is_one_clear_line_and_the_rest_runs() {
    let mut stage = Stage::start(
        &[("shop", "no-such-runtime app.js"), ("idle", IDLE)],
        |_| (),
    );
    let status = stage.state("shop", State::Failed).await;
    expect!["needs `no-such-runtime`, which is not installed or not on the PATH"]
        .assert_eq(&status.reason.unwrap_or_default());
    assert_eq!(status.restarts, 0, "there is no use in trying again");

    stage.state("idle", State::Starting).await;
    stage.services.stop().await;
}

#[tokio::test]
async fn a_missing_command_and_a_missing_folder_are_told() {
    let mut stage = Stage::start(&[("image", ""), ("lost", IDLE)], |spec| {
        match spec.name.as_str() {
            "image" => spec.run = None,
            _ => spec.folder = "/no/such/folder".into(),
        }
    });
    let board = stage
        .board(|board| board.services.iter().all(|s| s.state == State::Failed))
        .await;
    assert!(board.settled());
    let reasons: Vec<String> = board
        .services
        .into_iter()
        .map(|s| s.reason.unwrap_or_default())
        .collect();
    expect![[r#"
        has no `run:` command, and containers cannot be started yet
        its folder `/no/such/folder` does not exist"#]]
    .assert_eq(&reasons.join("\n"));
    stage.services.stop().await;
}

#[tokio::test]
async fn a_crash_loop_is_failed_with_the_reason() {
    let crash =
        "echo starting; echo 'Error: connect ECONNREFUSED db:5432' >&2; echo bye >&2; exit 1";
    let mut stage = Stage::start(&[("orders", crash)], |_| ());
    let status = stage.state("orders", State::Failed).await;
    expect!["exit 1, Error: connect ECONNREFUSED db:5432"]
        .assert_eq(&status.reason.unwrap_or_default());
    assert_eq!(status.restarts, 5);
    stage.services.stop().await;
}

#[tokio::test]
async fn a_service_that_dies_is_started_again() {
    // Dies by a signal the first time, and stays the second.
    let once = format!("if [ -e was ]; then {IDLE}; fi; touch was; kill -9 $$");
    let mut stage = Stage::start(&[("a", &once)], |_| ());
    let note = stage.line().await;
    assert_eq!(note.source, Source::Note);
    expect!["killed by signal 9; starting again in 250ms"].assert_eq(&note.text);
    stage.line_is("up").await;
    let status = stage.state("a", State::Starting).await;
    assert_eq!(status.restarts, 1);
    stage.services.stop().await;
}

#[tokio::test]
async fn a_failed_preparation_is_told_and_the_service_is_not_started() {
    let mut stage = Stage::start(&[("a", "touch started; sleep 9")], |spec| {
        spec.prepare = Some("echo compiling; echo 'error: expected `;`' >&2; exit 101".into());
    });
    let status = stage.state("a", State::Failed).await;
    expect!["could not be prepared: exit 101, error: expected `;`"]
        .assert_eq(&status.reason.unwrap_or_default());
    assert!(!stage.path("started").exists());
    stage.services.stop().await;
}

#[tokio::test]
async fn a_preparation_ends_before_the_start() {
    let mut stage = Stage::start(&[("a", "cat made; sleep 9")], |spec| {
        spec.prepare = Some("sleep 0.1; echo made > made".into());
    });
    stage.state("a", State::Building).await;
    stage.line_is("made").await;
    stage.services.stop().await;
}

#[tokio::test]
async fn lines_carry_their_service_and_their_source() {
    let prints = format!(
        "echo out; echo err >&2; printf '%*s\\n' {} x; echo end; sleep 9",
        LINE_BYTES_MAX + 5
    );
    let mut stage = Stage::start(&[("quiet", "sleep 9"), ("loud", &prints)], |_| ());
    let mut seen = Vec::new();
    while seen.len() < 4 {
        seen.push(stage.line().await);
    }
    let find = |text: &str| {
        seen.iter()
            .find(|line| line.text == text)
            .expect("it was printed")
    };
    assert_eq!(
        (find("out").source, find("err").source),
        (Source::Out, Source::Err)
    );
    assert!(
        seen.iter()
            .all(|line| &*line.service == "loud" && line.place == 1)
    );
    assert!(
        seen.iter()
            .any(|line| line.text.ends_with(" … (5 more bytes)"))
    );
    assert_eq!(find("end").source, Source::Out);
    stage.services.stop().await;
}

#[tokio::test]
async fn the_environment_says_where_everything_is() {
    let says = "echo \"$HOST:$PORT $OTHER_ONE_URL $GREETING\"; test -d \"$DATA_DIR\" && echo data; sleep 9";
    let mut stage = Stage::start(&[("a", says), ("other-one", "sleep 9")], |spec| {
        spec.environment = vec![("GREETING".into(), "hello $HOME".into())];
    });
    let [own, other] = stage.plan.services() else {
        panic!("two were planned")
    };
    let expected = format!("{} http://{} hello $HOME", own.address, other.address);
    assert_eq!(stage.line().await.text, expected);
    assert_eq!(stage.line().await.text, "data");
    stage.services.stop().await;
}

#[tokio::test]
async fn what_cargo_says_about_us_is_not_said_to_services() {
    assert!(
        std::env::var_os("CARGO_MANIFEST_DIR").is_some(),
        "Cargo runs this test"
    );
    let says = "echo \"${CARGO_MANIFEST_DIR-nothing} ${PATH:+path}\"; sleep 9";
    let mut stage = Stage::start(&[("a", says)], |_| ());
    assert_eq!(stage.line().await.text, "nothing path");
    stage.services.stop().await;
}

#[tokio::test]
async fn a_reader_who_leaves_holds_nobody_up() {
    let floods =
        "i=0; while [ $i -lt 3000 ]; do echo line; i=$((i+1)); done; touch flooded; sleep 9";
    let stage = Stage::start(&[("a", floods)], |_| ());
    let Stage {
        services,
        lines,
        folder,
        ..
    } = stage;
    drop(lines);
    let flooded = folder.path().join("flooded");
    crate::until("it has printed all", || flooded.exists()).await;
    tokio::time::timeout(LIMIT, services.stop())
        .await
        .expect("it stops");
}
