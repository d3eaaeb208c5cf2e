//! Bodies of error answers as the user wants them, for what the gateway answers by itself and for what services answer.

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{HeaderName, Response, StatusCode};
use model::format::Format;
use model::mapping::{ErrorBody, ErrorResponseOverride};

use crate::body::ResponseBody;
use crate::format::{self, Facts};

/// Largest file with a text.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// What described the body that is gone.
const OF_THE_OLD_BODY: [HeaderName; 8] = [
    header::CONTENT_LENGTH,
    header::CONTENT_ENCODING,
    header::CONTENT_LANGUAGE,
    header::CONTENT_RANGE,
    header::TRAILER,
    header::ETAG,
    header::LAST_MODIFIED,
    HeaderName::from_static("digest"),
];

/// Compiled overrides; the first for a status counts.
#[derive(Debug, Default)]
pub(crate) struct Overrides(Vec<Override>);

#[derive(Debug)]
struct Override {
    status: u16,
    content: Content,
    content_type: HeaderValue,
}

#[derive(Debug)]
enum Content {
    Text(Format),
    Json(Vec<(String, Format)>),
}

impl Overrides {
    /// Compiles what is written and checked; a file that cannot be read is told, and its status keeps its body.
    pub(crate) fn new(said: &[ErrorResponseOverride], problem: &mut impl FnMut(String)) -> Self {
        let mut overrides = Overrides::default();
        for one in said {
            match content(&one.body) {
                Ok((content, content_type)) => overrides.0.push(Override {
                    status: one.on_status_code,
                    content,
                    content_type,
                }),
                Err(what) => problem(format!(
                    "`error_response_overrides`, status {}: {what}",
                    one.on_status_code
                )),
            }
        }
        overrides
    }

    /// Returns the texts with variables.
    pub(crate) fn formats(&self) -> impl Iterator<Item = &Format> {
        self.0.iter().flat_map(|one| match &one.content {
            Content::Text(format) => vec![format],
            Content::Json(fields) => fields.iter().map(|(_, format)| format).collect(),
        })
    }

    /// Returns whether answers of this status have another body.
    pub(crate) fn has(&self, status: StatusCode) -> bool {
        self.0.iter().any(|one| one.status == status.as_u16())
    }

    /// Returns the answer with its new body. Its old one is dropped unread, and with it the connection it came on, when
    /// more of it was still to come.
    pub(crate) fn apply(
        &self,
        response: Response<ResponseBody>,
        facts: &Facts<'_>,
    ) -> Response<ResponseBody> {
        let status = response.status().as_u16();
        let Some(one) = self.0.iter().find(|one| one.status == status) else {
            return response;
        };
        let facts = Facts {
            response: Some(response.headers()),
            ..*facts
        };
        let body = match &one.content {
            Content::Text(format) => format::fill(format, &facts, "-").into(),
            Content::Json(fields) => {
                let value = |(name, format): &(String, Format)| {
                    (name.clone(), format::typed(format, &facts))
                };
                let object: serde_json::Map<_, _> = fields.iter().map(value).collect();
                Bytes::from(serde_json::Value::Object(object).to_string())
            }
        };
        let (mut head, _) = response.into_parts();
        for name in &OF_THE_OLD_BODY {
            head.headers.remove(name);
        }
        head.headers
            .insert(header::CONTENT_TYPE, one.content_type.clone());
        Response::from_parts(head, ResponseBody::full(body))
    }
}

fn content(body: &ErrorBody) -> Result<(Content, HeaderValue), String> {
    let compile = |text: &str| format::compile(text).map_err(|wrong| wrong.what);
    let (content, content_type) = if let Some(text) = &body.text_format {
        (Content::Text(compile(text)?), "text/plain")
    } else if let Some(fields) = &body.json_format {
        let field = |(name, text): (&String, &String)| Ok((name.clone(), compile(text)?));
        let fields = fields.iter().map(field).collect::<Result<_, String>>()?;
        (Content::Json(fields), "application/json")
    } else if let Some(source) = &body.text_format_source {
        (
            Content::Text(compile(&read(&source.filename)?)?),
            "text/plain",
        )
    } else {
        return Err("there is no body".to_owned());
    };
    let content_type = body.content_type.as_deref().unwrap_or(content_type);
    let content_type = HeaderValue::from_str(content_type)
        .map_err(|_| format!("`{content_type}` is no content type"))?;
    Ok((content, content_type))
}

fn read(path: &str) -> Result<String, String> {
    let unreadable = |error| format!("`{path}` could not be read: {error}");
    let length = std::fs::metadata(path).map_err(unreadable)?.len();
    if length > FILE_BYTES_MAX {
        return Err(format!("`{path}` is larger than {FILE_BYTES_MAX} bytes"));
    }
    std::fs::read_to_string(path).map_err(unreadable)
}
