//! Answers that the gateway gives itself, as JSON that says what happened and what to do.

use hyper::Response;
use hyper::header::{CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use hyper::http::StatusCode;
use serde::Serialize;

use crate::body::{Answer, BodyError};

/// Says whether the request may have had an effect, as the key-value API does.
pub(crate) const OUTCOME: HeaderName = HeaderName::from_static("evenkeel-outcome");

/// Whether an upstream may have acted on the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Surely not.
    None,
    /// Not known.
    Unknown,
}

/// Why a request got no answer from an upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) status: StatusCode,
    pub(crate) code: &'static str,
    message: String,
    help: &'static str,
    effect: Effect,
    /// Whether the client's connection cannot be used any more.
    closes: bool,
}

#[derive(Serialize)]
struct ErrorText<'a> {
    error: ErrorFields<'a>,
}

#[derive(Serialize)]
struct ErrorFields<'a> {
    code: &'a str,
    message: &'a str,
    help: &'a str,
}

impl Problem {
    fn new(status: StatusCode, code: &'static str, message: String, help: &'static str) -> Self {
        Self { status, code, message, help, effect: Effect::None, closes: false }
    }

    const fn closing(mut self) -> Self {
        self.closes = true;
        self
    }

    const fn effect(mut self, effect: Effect) -> Self {
        self.effect = effect;
        self
    }

    pub(crate) fn ambiguous(message: &str) -> Self {
        let help = "send a request that RFC 9112 gives one meaning";
        Self::new(StatusCode::BAD_REQUEST, "ambiguous-request", message.to_owned(), help).closing()
    }

    pub(crate) fn method(method: &str) -> Self {
        let message = format!("this gateway does not tunnel, so it refuses {method}");
        let help = "ask for a path of a service";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", message, help).closing()
    }

    pub(crate) fn no_route(path: &str) -> Self {
        let message = format!("no route leads from `{path}` to a service");
        let help = "look at the routes of this gateway in the system file";
        Self::new(StatusCode::NOT_FOUND, "no-route", message, help)
    }

    pub(crate) fn too_large(length_max: u64) -> Self {
        let message = format!("the body is longer than the {length_max} bytes the route allows");
        let help = "send less, or raise `body_max` of the route";
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", message, help).closing()
    }

    /// The client's body could not be read to its end.
    pub(crate) fn body(fault: BodyError, length_max: u64, effect: Effect) -> Self {
        let help = "send the request again";
        let (status, code) = match fault {
            BodyError::TooLong => return Self::too_large(length_max).effect(effect),
            BodyError::Silent => (StatusCode::REQUEST_TIMEOUT, "body-timeout"),
            BodyError::Broken => (StatusCode::BAD_REQUEST, "body-broken"),
        };
        Self::new(status, code, fault.to_string(), help).closing().effect(effect)
    }

    pub(crate) fn no_endpoint(upstream: &str) -> Self {
        let message = format!("no endpoint of `{upstream}` can be reached; nothing was sent");
        let help = "look at the endpoints with `evenkeel status`";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "no-endpoint", message, help)
    }

    pub(crate) fn overloaded(upstream: &str) -> Self {
        let message = format!("every endpoint of `{upstream}` is at its bound; nothing was sent");
        let help = "try again later, or add replicas";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "overloaded", message, help)
    }

    pub(crate) fn broken(upstream: &str) -> Self {
        let message = format!("the connection to `{upstream}` ended before an answer");
        let help = "the request may have been carried out: send it again with an Idempotency-Key";
        Self::new(StatusCode::BAD_GATEWAY, "upstream-broken", message, help).effect(Effect::Unknown)
    }

    pub(crate) fn timeout(upstream: &str, effect: Effect) -> Self {
        let message = format!("`{upstream}` did not answer within the route's timeout");
        let help = "the request may have been carried out: send it again with an Idempotency-Key";
        Self::new(StatusCode::GATEWAY_TIMEOUT, "upstream-timeout", message, help).effect(effect)
    }

    /// A try got no answer, and the next one was refused: that says nothing about the first.
    pub(crate) fn in_doubt(upstream: &str) -> Self {
        let message = format!("`{upstream}` refused the request after an earlier try was lost");
        let help = "the request may have been carried out: send it again with an Idempotency-Key";
        Self::new(StatusCode::GATEWAY_TIMEOUT, "outcome-unknown", message, help)
            .effect(Effect::Unknown)
    }

    /// Makes the answer.
    pub(crate) fn into_response(self) -> Response<Answer> {
        let fields = ErrorFields { code: self.code, message: &self.message, help: self.help };
        let mut body = serde_json::to_vec(&ErrorText { error: fields }).unwrap_or_default();
        body.push(b'\n');
        let mut response = Response::new(Answer::Own(body.into()));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let effect = match self.effect {
            Effect::None => "none",
            Effect::Unknown => "unknown",
        };
        headers.insert(OUTCOME, HeaderValue::from_static(effect));
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if self.closes {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}
