//! Probes on the public listener: whoever watches the gateway from outside asks them, so no route and nobody who decides
//! who may ask stands before them.

use http::{HeaderValue, Response, StatusCode, header};
use model::Module;
use model::module::Probe;

use crate::body::ResponseBody;

const ALIVE: &str = "/ambassador/v0/check_alive";
const READY: &str = "/ambassador/v0/check_ready";

/// Where the probes are; `None` where one is switched off.
#[derive(Debug)]
pub(crate) struct Probes {
    alive: Option<String>,
    ready: Option<String>,
}

impl Probes {
    pub(crate) fn of(module: &Module) -> Self {
        let path = |probe: &Option<Probe>, default: &str| {
            let probe = probe.clone().unwrap_or_default();
            let path = probe.prefix.unwrap_or_else(|| default.to_owned());
            probe.enabled.unwrap_or(true).then_some(path)
        };
        Probes {
            alive: path(&module.liveness_probe, ALIVE),
            ready: path(&module.readiness_probe, READY),
        }
    }

    /// Answers when the path is that of a probe. A gateway that is about to stop is alive, but takes no more work.
    pub(crate) fn answer(&self, path: &str, stopping: bool) -> Option<Response<ResponseBody>> {
        let (status, text) = if is(&self.ready, path) {
            match stopping {
                true => (StatusCode::SERVICE_UNAVAILABLE, "stopping\n"),
                false => (StatusCode::OK, "ready\n"),
            }
        } else if is(&self.alive, path) {
            (StatusCode::OK, "alive\n")
        } else {
            return None;
        };
        let mut response = Response::new(ResponseBody::full(text));
        *response.status_mut() = status;
        let plain = HeaderValue::from_static("text/plain");
        response.headers_mut().insert(header::CONTENT_TYPE, plain);
        Some(response)
    }
}

fn is(probe: &Option<String>, path: &str) -> bool {
    let rest = probe.as_deref().and_then(|probe| path.strip_prefix(probe));
    matches!(rest, Some("" | "/"))
}
