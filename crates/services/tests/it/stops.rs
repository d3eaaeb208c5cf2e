//! Whatever a service started ends with it.

use std::time::{Duration, Instant};

use crate::{IDLE, LIMIT, Stage, runs, until};

/// Starts a grandchild that ignores every polite signal, and tells its process id.
const STUBBORN: &str = "sh -c 'trap \"\" TERM INT HUP; echo $$; while :; do sleep 1; done' & wait";

#[tokio::test]
async fn an_orderly_stop_lets_a_service_finish() {
    let finish = "trap 'echo finished > done; exit 0' TERM; echo up; while :; do sleep 0.05; done";
    let mut stage = Stage::start(&[("a", finish)], |_| ());
    stage.line_is("up").await;
    let done = stage.path("done");
    stage.services.stop().await;
    assert_eq!(
        std::fs::read_to_string(done).expect("it finished"),
        "finished\n"
    );
}

#[tokio::test]
async fn forcing_kills_grandchildren_that_ignore_the_signal() {
    let mut stage = Stage::start(&[("a", STUBBORN)], |spec| spec.stop_timeout = LIMIT * 2);
    let grandchild = stage.line().await.text;
    assert!(runs(&grandchild));

    stage.services.force().cancel();
    let start = Instant::now();
    stage.services.stop().await;
    assert!(!runs(&grandchild));
    assert!(
        start.elapsed() < LIMIT,
        "it did not wait for the polite end"
    );
}

#[tokio::test]
async fn what_ignores_the_signal_is_killed_after_the_limit() {
    let timeout = Duration::from_secs(2);
    let mut stage = Stage::start(&[("a", STUBBORN), ("b", STUBBORN)], |spec| {
        spec.stop_timeout = timeout;
    });
    let (one, other) = (stage.line().await.text, stage.line().await.text);

    let start = Instant::now();
    stage.services.stop().await;
    assert!(!runs(&one) && !runs(&other));
    assert!(start.elapsed() >= timeout, "they had their time");
    assert!(start.elapsed() < timeout * 2, "they stop side by side");
}

#[tokio::test]
async fn leftovers_of_a_service_that_ended_are_killed_before_it_starts_again() {
    let leaves =
        "sh -c 'trap \"\" TERM; echo $$; while :; do sleep 1; done' & read -r x; sleep 0.1; exit 3";
    let mut stage = Stage::start(&[("a", leaves)], |_| ());
    let first = stage.line_is_number().await;
    let second = stage.line_is_number().await;
    assert!(
        !runs(&first),
        "the first one's child is gone when the second one's speaks"
    );
    assert!(runs(&second));
    stage.services.force().cancel();
    stage.services.stop().await;
    assert!(!runs(&second));
}

/// As when our process is killed: nothing of ours runs any more, and the guard's pipe closes.
#[tokio::test]
async fn without_us_the_guard_ends_everything() {
    let mut stage = Stage::start(&[("a", &format!("echo $$; {IDLE}"))], |_| ());
    let process = stage.line().await.text;
    assert!(runs(&process));
    drop(stage);
    until("the guard has ended it", || !runs(&process)).await;
}

#[tokio::test]
async fn a_stop_while_preparing_ends_the_preparation() {
    let mut stage = Stage::start(&[("a", IDLE)], |spec| {
        spec.prepare = Some(format!("echo $$; {IDLE}"));
    });
    let process = stage.line().await.text;
    stage.services.stop().await;
    assert!(!runs(&process));
}

impl Stage {
    async fn line_is_number(&mut self) -> String {
        loop {
            let line = self.line().await;
            if line.text.parse::<u32>().is_ok() {
                return line.text;
            }
        }
    }
}
