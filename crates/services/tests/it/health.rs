//! Services whose health comes and goes.

use services::board::State;
use services::plan::Health;

use crate::{IDLE, Stage};

/// Answers 200 on `/healthz` while the file `sick` is not there, and 503 while it is.
const SERVER: &str = r#"
import http.server, os
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        well = self.path == "/healthz" and not os.path.exists("sick")
        self.send_response(200 if well else 503)
        self.end_headers()
    def log_message(self, *_): pass
http.server.HTTPServer((os.environ["HOST"], int(os.environ["PORT"])), Handler).serve_forever()
"#;

fn server() -> String {
    format!("exec python3 -c '{SERVER}'")
}

#[tokio::test]
async fn health_comes_and_goes_and_comes_back() {
    let mut stage = Stage::start(&[("a", &server())], |spec| {
        spec.health = Health::Http("/healthz".into());
    });
    let status = stage.state("a", State::Healthy).await;
    assert_eq!(status.reason, None);

    let sick = stage.path("sick");
    std::fs::write(&sick, "").expect("the folder is ours");
    let status = stage.state("a", State::Unhealthy).await;
    assert_eq!(status.reason.as_deref(), Some("GET /healthz answers 503"));
    assert_eq!(status.restarts, 0, "a sick service is told, not killed");

    std::fs::remove_file(&sick).expect("it was just written");
    assert_eq!(stage.state("a", State::Healthy).await.reason, None);
    stage.services.stop().await;
}

#[tokio::test]
async fn a_wrong_path_is_told_while_it_starts() {
    let mut stage = Stage::start(&[("a", &server())], |spec| {
        spec.health = Health::Http("/health".into());
    });
    stage
        .board(|board| board.services[0].reason.as_deref() == Some("GET /health answers 503"))
        .await;
    assert_eq!(stage.state("a", State::Starting).await.restarts, 0);
    stage.services.stop().await;
}

#[tokio::test]
async fn a_service_that_listens_is_healthy_without_a_path() {
    let mut stage = Stage::start(&[("deaf", IDLE), ("a", &server())], |_| ());
    stage.state("a", State::Healthy).await;
    let deaf = stage.state("deaf", State::Starting).await;
    assert!(!stage.services.board().borrow().settled());
    let reason = stage
        .board(|board| board.services[0].reason.is_some())
        .await
        .services
        .swap_remove(0)
        .reason;
    assert_eq!(reason, Some(format!("does not listen on {}", deaf.address)));
    stage.services.stop().await;
}

#[tokio::test]
async fn what_is_needed_is_healthy_first() {
    let dependent = format!("test -e ready && echo in order; {IDLE}");
    // The server only exists once the file does.
    let needed = format!("sleep 0.1; touch ready; {}", server());
    let mut stage = Stage::start(&[("dependent", &dependent), ("needed", &needed)], |spec| {
        if spec.name == "dependent" {
            spec.needs = vec!["needed".into()];
        }
    });
    stage
        .board(|board| {
            let dependent = &board.services[0];
            dependent.state == State::Waiting
                && dependent.reason.as_deref() == Some("waits for `needed`")
        })
        .await;
    stage.line_is("in order").await;
    stage.services.stop().await;
}

#[tokio::test]
async fn waiting_for_what_has_failed_is_settled() {
    let mut stage = Stage::start(
        &[("dependent", IDLE), ("needed", "no-such-program")],
        |spec| {
            if spec.name == "dependent" {
                spec.needs = vec!["needed".into()];
            }
        },
    );
    stage.state("needed", State::Failed).await;
    let board = stage.board(|board| board.settled()).await;
    assert!(!board.healthy());
    assert_eq!(board.services[0].state, State::Waiting);
    stage.services.stop().await;
}
