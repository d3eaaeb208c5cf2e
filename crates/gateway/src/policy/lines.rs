//! Access lines in the form that the Module asks for (`envoy_log_type`, `envoy_log_format`). Without these fields the
//! gateway writes its own JSON line and none of this is used.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, StatusCode};
use jiff::Timestamp;
use model::Module;
use model::format::{Fact, Format};
use model::module::LogType;
use serde_json::{Map, Value};

use crate::access::Ticket;
use crate::format::{self, Asked, Facts, Kept, Needs};
use crate::listener::Connection;
use crate::policy::memory;

/// Ambassador's line where only `envoy_log_type: text` is said.
const TEXT: &str = "ACCESS [%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" \
    %RESPONSE_CODE% %RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %DURATION% \
    %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \
    \"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\"";
/// The fields where only `envoy_log_type: json` is said: Ambassador's, but for those that tell of Istio and of Envoy's own
/// transport sockets.
const JSON: &[(&str, &str)] = &[
    ("start_time", "%START_TIME%"),
    ("method", "%REQ(:METHOD)%"),
    ("path", "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%"),
    ("protocol", "%PROTOCOL%"),
    ("response_code", "%RESPONSE_CODE%"),
    ("response_code_details", "%RESPONSE_CODE_DETAILS%"),
    ("response_flags", "%RESPONSE_FLAGS%"),
    ("bytes_received", "%BYTES_RECEIVED%"),
    ("bytes_sent", "%BYTES_SENT%"),
    ("duration", "%DURATION%"),
    (
        "upstream_service_time",
        "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%",
    ),
    ("x_forwarded_for", "%REQ(X-FORWARDED-FOR)%"),
    ("user_agent", "%REQ(USER-AGENT)%"),
    ("request_id", "%REQ(X-REQUEST-ID)%"),
    ("authority", "%REQ(:AUTHORITY)%"),
    ("upstream_host", "%UPSTREAM_HOST%"),
    ("upstream_cluster", "%UPSTREAM_CLUSTER%"),
    ("downstream_local_address", "%DOWNSTREAM_LOCAL_ADDRESS%"),
    ("downstream_remote_address", "%DOWNSTREAM_REMOTE_ADDRESS%"),
    ("requested_server_name", "%REQUESTED_SERVER_NAME%"),
];

/// How access lines look.
#[derive(Debug)]
pub(crate) struct Lines {
    form: Form,
    needs: Needs,
    /// Headers of the answer that are told.
    answer: Vec<HeaderName>,
}

#[derive(Debug)]
enum Form {
    Text(Format),
    Json {
        fields: Vec<(String, Format)>,
        /// Numbers stay numbers, and what is not known is null.
        typed: bool,
    },
}

impl Lines {
    /// Compiles what the Module says; `None` when it says nothing. What cannot be compiled is told and left out.
    pub(crate) fn of(module: &Module, problem: &mut impl FnMut(String)) -> Option<Arc<Self>> {
        let (kind, said) = (module.envoy_log_type, &module.envoy_log_format);
        if kind.is_none() && said.is_none() {
            return None;
        }
        let mut compile = |text: &str| match format::compile(text) {
            Ok(format) => Some(format),
            Err(wrong) => {
                problem(format!("`envoy_log_format`: {}", wrong.what));
                None
            }
        };
        let kind = kind.unwrap_or(match said {
            Some(Value::Object(_)) => LogType::Json,
            _ => LogType::Text,
        });
        let form = match kind {
            LogType::Text => Form::Text(match said {
                Some(Value::String(text)) => compile(text.trim_end_matches('\n'))?,
                _ => compile(TEXT)?,
            }),
            LogType::Json | LogType::TypedJson => {
                let said: Vec<(String, String)> = match said {
                    Some(Value::Object(fields)) => fields
                        .iter()
                        .filter_map(|(name, text)| Some((name.clone(), text.as_str()?.to_owned())))
                        .collect(),
                    _ => JSON
                        .iter()
                        .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()))
                        .collect(),
                };
                let fields = said
                    .into_iter()
                    .filter_map(|(name, text)| Some((name, compile(&text)?)));
                Form::Json {
                    fields: fields.collect(),
                    typed: kind == LogType::TypedJson,
                }
            }
        };
        Some(Arc::new(Lines::new(form)))
    }

    fn new(form: Form) -> Self {
        let formats: Vec<&Format> = match &form {
            Form::Text(format) => vec![format],
            Form::Json { fields, .. } => fields.iter().map(|(_, format)| format).collect(),
        };
        let mut answer: Vec<HeaderName> = Vec::new();
        for fact in formats.iter().flat_map(|format| format.facts()) {
            if let Fact::ResponseHeader(named) = fact {
                let names = [Some(&named.name), named.otherwise.as_ref()];
                answer.extend(names.into_iter().flatten().filter_map(|n| n.parse().ok()));
            }
        }
        let needs = Needs::of(formats).unwrap_or_default();
        Lines {
            form,
            needs,
            answer,
        }
    }

    fn write(&self, facts: &Facts<'_>) -> String {
        match &self.form {
            Form::Text(format) => {
                let mut line = format::fill(format, facts, "-");
                line.push('\n');
                line
            }
            Form::Json { fields, typed } => {
                let fields = fields.iter().map(|(name, format)| {
                    let value = match typed {
                        true => format::typed(format, facts),
                        false => format::fill(format, facts, "-").into(),
                    };
                    (name.clone(), value)
                });
                let mut line = Value::Object(fields.collect::<Map<_, _>>()).to_string();
                line.push('\n');
                line
            }
        }
    }
}

/// A line under way.
pub(crate) struct Pending {
    lines: Arc<Lines>,
    started: Timestamp,
    kept: Kept,
    answer: HeaderMap,
    trace_id: Option<u128>,
}

impl Pending {
    /// A request begins.
    pub(crate) fn begin(lines: &Arc<Lines>, asked: &Asked<'_>) -> Self {
        Pending {
            lines: lines.clone(),
            started: Timestamp::now(),
            kept: Kept::of(&lines.needs, asked),
            answer: HeaderMap::new(),
            trace_id: None,
        }
    }

    /// The request's headers are what the upstream will see, but for the route's changes.
    pub(crate) fn identified(&mut self, headers: &HeaderMap, trace_id: u128) {
        self.kept.headers_again(&self.lines.needs, headers);
        self.trace_id = Some(trace_id);
    }

    /// The head of the answer is known.
    pub(crate) fn answered(&mut self, headers: &HeaderMap) {
        for name in &self.lines.answer {
            for value in headers.get_all(name) {
                self.answer.append(name.clone(), value.clone());
            }
        }
    }

    /// The request has ended.
    pub(crate) fn line(
        &self,
        connection: &Connection,
        ticket: &Ticket,
        status: Option<StatusCode>,
        duration: Duration,
        sent: u64,
    ) -> String {
        let known = status.unwrap_or_default();
        let facts = Facts {
            asked: Some(self.kept.asked()),
            started: Some(self.started),
            duration: Some(duration),
            status,
            sent,
            trace_id: self.trace_id,
            ..memory::facts(
                connection,
                ticket,
                ticket.memory.as_deref(),
                known,
                Some(&self.answer),
            )
        };
        self.lines.write(&facts)
    }
}

#[cfg(test)]
mod tests {
    use http::{Method, Version};
    use model::module::LogType;
    use observe::flags::Flags;
    use serde_json::json;

    use super::*;

    fn lines(kind: Option<LogType>, format: Option<Value>) -> Option<Arc<Lines>> {
        let module = Module {
            envoy_log_type: kind,
            envoy_log_format: format,
            ..Module::default()
        };
        Lines::of(&module, &mut |what| panic!("{what}"))
    }

    fn facts<'a>(headers: &'a HeaderMap, answer: &'a HeaderMap) -> Facts<'a> {
        Facts {
            asked: Some(Asked {
                version: Version::HTTP_11,
                method: &Method::GET,
                secure: false,
                authority: "shop.example",
                path: "/orders?x=1",
                headers,
            }),
            response: Some(answer),
            started: Some(Timestamp::UNIX_EPOCH),
            duration: Some(Duration::from_millis(12)),
            status: Some(StatusCode::NOT_FOUND),
            flags: Flags::NR,
            ..Facts::default()
        }
    }

    #[test]
    fn ambassadors_text_line_is_told_in_its_order() {
        let mut headers = HeaderMap::new();
        headers.insert("user-agent", "me".parse().unwrap());
        let mut answer = HeaderMap::new();
        answer.insert("x-envoy-upstream-service-time", "7".parse().unwrap());
        let lines = lines(Some(LogType::Text), None).unwrap();
        assert_eq!(
            lines.write(&facts(&headers, &answer)),
            "ACCESS [1970-01-01T00:00:00.000Z] \"GET /orders?x=1 HTTP/1.1\" 404 NR 0 0 12 7 \"-\" \"me\" \"-\" \"shop.example\" \"-\"\n"
        );
    }

    #[test]
    fn json_tells_text_and_typed_json_numbers() {
        let (headers, answer) = (HeaderMap::new(), HeaderMap::new());
        let format = json!({ "code": "%RESPONSE_CODE%", "agent": "%REQ(USER-AGENT)%" });
        let told = |kind| {
            let lines = lines(kind, Some(format.clone())).unwrap();
            lines.write(&facts(&headers, &answer))
        };
        let text = "{\"agent\":\"-\",\"code\":\"404\"}\n";
        assert_eq!(told(Some(LogType::Json)), text);
        assert_eq!(told(None), text);
        assert_eq!(
            told(Some(LogType::TypedJson)),
            "{\"agent\":null,\"code\":404}\n"
        );
    }

    #[test]
    fn without_a_word_the_line_is_ours() {
        assert!(lines(None, None).is_none());
    }
}
