//! Answers are compressed for clients that want it, and bodies of requests are unpacked for services that do not.
//!
//! [`Compression`] decides by the heads, [`encode`] packs while the body streams, [`decode`] unpacks. What waits is flushed
//! whenever the source pauses, so that events reach the client as they happen.

pub(crate) mod decode;
pub(crate) mod encode;

use http::header::{self, HeaderMap, HeaderValue};
use http::{Response, StatusCode};
use model::module::{Algorithm, Compression as Said, Gzip, Module};

use self::encode::Encoded;
use super::cors::add_vary;
use crate::body::ResponseBody;

/// Shortest body that is compressed where nothing is said (Envoy's default).
const LENGTH_MIN: u64 = 30;

/// Content types that are compressed where nothing is said (Envoy's default).
const CONTENT_TYPES: [&str; 8] = [
    "application/javascript",
    "application/json",
    "application/xhtml+xml",
    "image/svg+xml",
    "text/css",
    "text/html",
    "text/plain",
    "text/xml",
];

/// When and how answers are compressed.
#[derive(Debug)]
pub(crate) struct Compression {
    /// The one we like best first.
    algorithms: Vec<Algorithm>,
    level: encode::Level,
    length_min: u64,
    content_types: Vec<String>,
    not_with_etag: bool,
    /// Whether services do not see `accept-encoding`.
    pub(crate) accept_removed: bool,
}

impl Compression {
    /// Compiles what the Module says; most say nothing.
    pub(crate) fn of(module: &Module) -> Option<Self> {
        let types = |said: &Option<Vec<String>>| match said {
            Some(types) => types.iter().map(|name| name.to_ascii_lowercase()).collect(),
            None => CONTENT_TYPES.map(str::to_owned).to_vec(),
        };
        let level = |said: Option<&str>| match said {
            Some("BEST") => encode::Level::Best,
            Some("SPEED") => encode::Level::Speed,
            _ => encode::Level::Default,
        };
        match (&module.compression, &module.gzip) {
            (Some(said), _) => {
                let Said {
                    algorithms,
                    min_content_length,
                    content_type,
                    compression_level,
                    disable_on_etag_header,
                    remove_accept_encoding_header,
                } = said;
                Some(Compression {
                    algorithms: algorithms
                        .clone()
                        .unwrap_or_else(|| Algorithm::ALL.to_vec()),
                    level: level(compression_level.as_deref()),
                    length_min: min_content_length.unwrap_or(LENGTH_MIN),
                    content_types: types(content_type),
                    not_with_etag: *disable_on_etag_header,
                    accept_removed: *remove_accept_encoding_header,
                })
            }
            (None, Some(said)) => {
                let Gzip {
                    memory_level: _,
                    min_content_length,
                    window_bits: _,
                    compression_level,
                    compression_strategy: _,
                    content_type,
                    disable_on_etag_header,
                    remove_accept_encoding_header,
                } = said;
                Some(Compression {
                    algorithms: vec![Algorithm::Gzip],
                    level: level(compression_level.as_deref()),
                    length_min: min_content_length.unwrap_or(LENGTH_MIN),
                    content_types: types(content_type),
                    not_with_etag: *disable_on_etag_header,
                    accept_removed: *remove_accept_encoding_header,
                })
            }
            (None, None) => None,
        }
    }

    /// Returns what the client wants most among what we have (RFC 9110, 12.5.3).
    pub(crate) fn wanted(&self, request: &HeaderMap) -> Option<Algorithm> {
        let wishes = request
            .get_all(header::ACCEPT_ENCODING)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','));
        let (mut any, mut plain) = (None, None);
        let mut told: Vec<(Algorithm, u16)> = Vec::new();
        for wish in wishes {
            let (name, weight) = wish.split_once(';').unwrap_or((wish, ""));
            let weight = quality(weight);
            match name.trim().to_ascii_lowercase().as_str() {
                "*" => any = Some(weight),
                "identity" => plain = Some(weight),
                "gzip" | "x-gzip" => told.push((Algorithm::Gzip, weight)),
                "br" => told.push((Algorithm::Br, weight)),
                "zstd" => told.push((Algorithm::Zstd, weight)),
                _ => (),
            }
        }
        let weight = |algorithm: Algorithm| {
            let told = told.iter().find(|(name, _)| *name == algorithm);
            told.map(|(_, weight)| *weight).or(any).unwrap_or(0)
        };
        let mut best: Option<(Algorithm, u16)> = None;
        for algorithm in &self.algorithms {
            let weight = weight(*algorithm);
            if weight > best.map_or(0, |(_, best)| best) {
                best = Some((*algorithm, weight));
            }
        }
        let (algorithm, weight) = best?;
        plain
            .is_none_or(|plain| weight >= plain)
            .then_some(algorithm)
    }

    /// Compresses the answer when it is worth it and allowed. `head_only` says that there is no body to compress.
    pub(crate) fn apply(
        &self,
        wanted: Option<Algorithm>,
        head_only: bool,
        mut response: Response<ResponseBody>,
    ) -> Response<ResponseBody> {
        if !self.suits(&response) {
            return response;
        }
        add_vary(response.headers_mut(), "accept-encoding");
        let Some(algorithm) = wanted.filter(|_| !head_only) else {
            return response;
        };
        let headers = response.headers_mut();
        headers.remove(header::CONTENT_LENGTH);
        headers.remove(header::ACCEPT_RANGES);
        let name = HeaderValue::from_static(algorithm.name());
        headers.insert(header::CONTENT_ENCODING, name);
        if let Some(etag) = headers.get(header::ETAG)
            && !etag.as_bytes().starts_with(b"W/")
        {
            // The bytes are others now, what they mean is the same.
            match HeaderValue::from_bytes(&[b"W/", etag.as_bytes()].concat()) {
                Ok(weak) => headers.insert(header::ETAG, weak),
                Err(_) => headers.remove(header::ETAG),
            };
        }
        response.map(|body| ResponseBody::boxed(Encoded::new(body, algorithm, self.level)))
    }

    /// Whether the answer would be compressed for a client that wants it.
    fn suits(&self, response: &Response<ResponseBody>) -> bool {
        let headers = response.headers();
        let status = response.status();
        let bodiless = status.is_informational()
            || matches!(
                status,
                StatusCode::NO_CONTENT
                    | StatusCode::RESET_CONTENT
                    | StatusCode::PARTIAL_CONTENT
                    | StatusCode::NOT_MODIFIED
            );
        let length = headers
            .get(header::CONTENT_LENGTH)
            .and_then(|length| length.to_str().ok()?.parse::<u64>().ok())
            .or_else(|| http_body::Body::size_hint(response.body()).exact());
        let short = length.is_some_and(|length| length < self.length_min.max(1));
        let kept = [header::CONTENT_ENCODING, header::CONTENT_RANGE];
        if bodiless || short || kept.iter().any(|name| headers.contains_key(name)) {
            return false;
        }
        if self.not_with_etag && headers.contains_key(header::ETAG) {
            return false;
        }
        !has_no_transform(headers) && self.takes_type(headers)
    }

    fn takes_type(&self, headers: &HeaderMap) -> bool {
        let Some(value) = headers.get(header::CONTENT_TYPE) else {
            return true; // as Envoy does
        };
        let name = value.as_bytes().split(|byte| *byte == b';').next();
        let name = name.unwrap_or_default().trim_ascii();
        let mut types = self.content_types.iter();
        types.any(|known| name.eq_ignore_ascii_case(known.as_bytes()))
    }
}

fn has_no_transform(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::CACHE_CONTROL)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .any(|part| part.trim_ascii().eq_ignore_ascii_case(b"no-transform"))
}

/// Returns a weight in thousandths; one that cannot be read counts as none at all.
fn quality(parameters: &str) -> u16 {
    let parameters = parameters.trim();
    if parameters.is_empty() {
        return 1000;
    }
    let mut told = parameters
        .split(';')
        .filter_map(|part| part.trim().split_once('='));
    let Some((_, weight)) = told.find(|(name, _)| name.trim().eq_ignore_ascii_case("q")) else {
        return 1000;
    };
    let weight: f32 = weight.trim().parse().unwrap_or(0.0);
    (weight.clamp(0.0, 1.0) * 1000.0) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compression(module: &str) -> Compression {
        let module: Module = serde_saphyr::from_str(module).expect("the test's module");
        Compression::of(&module).expect("the test's module compresses")
    }

    #[test]
    fn the_client_chooses_and_then_we_do() {
        let all = compression("compression: {}");
        let gzip = compression("gzip: {}");
        for (accepted, of_all, of_gzip) in [
            ("gzip", Some("gzip"), Some("gzip")),
            ("gzip, br", Some("br"), Some("gzip")),
            ("gzip;q=1, br;q=0.5", Some("gzip"), Some("gzip")),
            ("gzip, deflate, br, zstd", Some("zstd"), Some("gzip")),
            ("br", Some("br"), None),
            ("*", Some("zstd"), Some("gzip")),
            ("*;q=0.5, zstd;q=0", Some("br"), Some("gzip")),
            ("gzip;q=0", None, None),
            ("identity;q=1, gzip;q=0.5", None, None),
            ("identity;q=0.5, gzip;q=0.5", Some("gzip"), Some("gzip")),
            ("GZIP ; Q=0.3", Some("gzip"), Some("gzip")),
            ("gzip;q=x", None, None),
            ("", None, None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT_ENCODING, accepted.parse().expect("a value"));
            let name =
                |compression: &Compression| compression.wanted(&headers).map(Algorithm::name);
            assert_eq!(name(&all), of_all, "{accepted}");
            assert_eq!(name(&gzip), of_gzip, "{accepted}");
        }
        assert_eq!(all.wanted(&HeaderMap::new()), None);
    }

    #[test]
    fn only_what_gains_and_may_is_compressed() {
        let rules = compression("gzip: { min_content_length: 10, disable_on_etag_header: true }");
        let long = "0123456789";
        for (status, headers, body, expected) in [
            (200, "content-type: text/plain", long, true),
            (200, "content-type: Text/Plain; charset=utf-8", long, true),
            (404, "content-type: text/plain", long, true),
            (200, "", long, true),
            (200, "content-type: text/plain", "short", false),
            (200, "content-type: image/png", long, false),
            (200, "content-encoding: br", long, false),
            (200, "cache-control: public, No-Transform", long, false),
            (200, "etag: \"a\"", long, false),
            (206, "content-range: bytes 0-9/20", long, false),
            (204, "", "", false),
            (304, "", "", false),
        ] {
            let mut response = Response::new(ResponseBody::full(body));
            *response.status_mut() = StatusCode::from_u16(status).expect("a status");
            if let Some((name, value)) = headers.split_once(": ") {
                let name: header::HeaderName = name.parse().expect("a name");
                response
                    .headers_mut()
                    .insert(name, value.parse().expect("a value"));
            }
            let answer = rules.apply(Some(Algorithm::Gzip), false, response);
            let coded = answer.headers().get(header::CONTENT_ENCODING);
            let compressed = coded.is_some_and(|coded| coded == "gzip");
            assert_eq!(compressed, expected, "{status} {headers}");
            let varies = answer.headers().contains_key(header::VARY);
            assert_eq!(varies, expected, "{status} {headers}");
        }
    }
}
