//! Keys: read, listed, set, removed, and their history forgotten.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, Uri};
use axum::response::Response;
use evenkeel_consensus::command::{Change, Query, Space};
use serde::Deserialize;

use super::headers::Conditions;
use super::response::Reply;
use super::target::{self, Parameters};
use super::{Api, BODY_TIME, VALUE_MAX, read_body, read_json, watch};

const SPACE: Space = Space::User;

pub(super) async fn read(State(api): State<Arc<Api>>, uri: Uri, headers: HeaderMap) -> Response {
    let read = async {
        let key = target::key(&uri)?;
        let parameters = Parameters::parse(&uri, &["stale", "revision", "watch", "since"])?;
        if parameters.watch {
            return watch::watch(&api, watch::Wanted::Key(key), &parameters, &headers).await;
        }
        let conditions = Conditions::parse_read(&headers)?;
        let query = Query::Get { space: SPACE, key, at: parameters.revision };
        let answer = api.ask(query, parameters.stale).await?;
        Reply::to_read(answer, &conditions).map(Reply::into_response)
    };
    api.respond(read.await)
}

pub(super) async fn list(State(api): State<Arc<Api>>, uri: Uri, headers: HeaderMap) -> Response {
    let list = async {
        let known = ["stale", "prefix", "limit", "after", "revision", "watch", "since"];
        let parameters = Parameters::parse(&uri, &known)?;
        if parameters.watch {
            let wanted = watch::Wanted::Prefix(parameters.prefix.clone());
            return watch::watch(&api, wanted, &parameters, &headers).await;
        }
        let Parameters { stale, prefix, limit, after, revision, .. } = parameters;
        let query = Query::Range { space: SPACE, prefix, after, limit, at: revision };
        Reply::to_list(api.ask(query, stale).await?).map(Reply::into_response)
    };
    api.respond(list.await)
}

pub(super) async fn put(State(api): State<Arc<Api>>, request: Request) -> Response {
    let put = async {
        let key = target::key(request.uri())?;
        let Parameters { lease, .. } = Parameters::parse(request.uri(), &["lease"])?;
        let expect = Conditions::parse_write(request.headers())?;
        let (head, body) = request.into_parts();
        let _permit = api.admit()?;
        let value = read_body(body, VALUE_MAX, BODY_TIME).await?;
        let change = Change::Put { space: SPACE, key, value, expect, lease };
        Reply::to_change(api.change(change, &head.headers).await?).map(Reply::into_response)
    };
    api.respond(put.await)
}

pub(super) async fn delete(State(api): State<Arc<Api>>, uri: Uri, headers: HeaderMap) -> Response {
    let delete = async {
        let key = target::key(&uri)?;
        Parameters::parse(&uri, &[])?;
        let expect = Conditions::parse_write(&headers)?;
        let _permit = api.admit()?;
        let change = Change::Delete { space: SPACE, key, expect };
        Reply::to_change(api.change(change, &headers).await?).map(Reply::into_response)
    };
    api.respond(delete.await)
}

/// The body of a request to forget history.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Compact {
    through: u64,
}

pub(super) async fn compact(State(api): State<Arc<Api>>, request: Request) -> Response {
    let compact = async {
        Parameters::parse(request.uri(), &[])?;
        let (head, body) = request.into_parts();
        let _permit = api.admit()?;
        let Compact { through } = read_json(body).await?;
        let answer = api.change(Change::Compact { through }, &head.headers).await?;
        Reply::to_change(answer).map(Reply::into_response)
    };
    api.respond(compact.await)
}
