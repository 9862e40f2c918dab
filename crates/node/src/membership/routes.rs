//! What is asked of the membership over HTTP.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use axum::{Extension, Router};
use evenkeel_trust::join::{JOIN_PATH, JoinRequest, Refusal};
use evenkeel_trust::request::CertificateRequest;
use evenkeel_trust::tls::Caller;

use super::{Membership, TokenError};

/// Where hosts have their certificates renewed.
pub(super) const RENEW_PATH: &str = "/internal/trust/renew";
/// Where the command line asks for tokens, on the unix socket.
pub const TOKENS_PATH: &str = "/v1/tokens";
/// Longest request in bytes.
const REQUEST_MAX: usize = 16 << 10;

/// Returns the routes for the API port.
pub fn public(membership: Membership) -> Router {
    Router::new()
        .route(JOIN_PATH, post(redeem))
        .route(RENEW_PATH, post(renew))
        .layer(DefaultBodyLimit::max(REQUEST_MAX))
        .with_state(membership)
}

/// Returns the routes for the unix socket. Without protection there is nobody to let in.
pub fn local(membership: Option<Membership>) -> Router {
    Router::new().route(TOKENS_PATH, post(give_token)).with_state(membership)
}

async fn redeem(State(membership): State<Membership>, body: Bytes) -> Response {
    let redeemed = match serde_json::from_slice::<JoinRequest>(&body) {
        Ok(request) => membership.redeem(&request).await,
        Err(_) => Err(Refusal::Malformed),
    };
    let (status, body) = match redeemed {
        Ok(answer) => (StatusCode::OK, serde_json::to_vec(&answer)),
        Err(refusal) => (status_of(refusal), serde_json::to_vec(&refusal)),
    };
    let body = body.unwrap_or_default();
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}

const fn status_of(refusal: Refusal) -> StatusCode {
    match refusal {
        Refusal::Unknown | Refusal::Used | Refusal::Expired | Refusal::NoHost => {
            StatusCode::FORBIDDEN
        }
        Refusal::Malformed => StatusCode::BAD_REQUEST,
        Refusal::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
    }
}

/// Renews the certificate of whoever shows one: nothing in the request says for which host.
async fn renew(
    State(membership): State<Membership>,
    caller: Option<Extension<Caller>>,
    body: Bytes,
) -> Response {
    let Some(Extension(Caller::Host(host))) = caller else {
        return (StatusCode::FORBIDDEN, "only hosts have certificates renewed").into_response();
    };
    let Ok(request) = serde_json::from_slice::<CertificateRequest>(&body) else {
        return (StatusCode::BAD_REQUEST, "not a request for a certificate").into_response();
    };
    match membership.renew(&host, &request).await {
        Ok(certificates) => certificates.into_response(),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, reason).into_response(),
    }
}

async fn give_token(
    State(membership): State<Option<Membership>>,
    RawQuery(query): RawQuery,
) -> Response {
    let Some(membership) = membership else {
        let text = "hosts of this system do not prove who they are: each just starts";
        return (StatusCode::CONFLICT, text).into_response();
    };
    let query = query.unwrap_or_default();
    let find = |name: &str| {
        let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.find(|(key, _)| *key == name).map(|(_, value)| value)
    };
    let life = find("seconds").and_then(|seconds| seconds.parse().ok());
    let (Some(host), Some(life)) = (find("host"), life) else {
        return (StatusCode::BAD_REQUEST, "host or seconds are missing").into_response();
    };
    match membership.give_token(host, Duration::from_secs(life)).await {
        Ok(token) => token.to_text().into_response(),
        Err(error) => {
            let status = match error {
                TokenError::NoHost(_) => StatusCode::NOT_FOUND,
                TokenError::Life => StatusCode::BAD_REQUEST,
                TokenError::Random(_) => StatusCode::INTERNAL_SERVER_ERROR,
                TokenError::Store(_) => StatusCode::SERVICE_UNAVAILABLE,
            };
            (status, error.to_string()).into_response()
        }
    }
}
