//! Answers one request of a client: checks it, finds its route, has it carried out, forwards.

use std::net::SocketAddr;
use std::rc::Rc;

use evenkeel_gateway_core::pace::{Pace, is_stream};
use evenkeel_gateway_core::retry::{Marks, Tries, may_repeat};
use evenkeel_gateway_core::table::ListenerId;
use hyper::body::{Body, Incoming};
use hyper::header::{
    CONTENT_LENGTH, CONTENT_TYPE, EXPECT, HeaderMap, HeaderName, HeaderValue, IF_MATCH,
    IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE,
};
use hyper::http::{Method, StatusCode, request};
use hyper::upgrade::OnUpgrade;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;

use crate::body::{self, Answer, Flow, Forwarded, Received};
use crate::exchange::{Answered, Exchange, Message};
use crate::head;
use crate::live::LiveRoute;
use crate::problem::{Effect, Problem};
use crate::record::Record;
use crate::shared::Shared;

const GATEWAY: HeaderName = HeaderName::from_static("evenkeel-gateway");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// One client's connection.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    pub(crate) shared: Rc<Shared>,
    pub(crate) listener: Rc<ListenerId>,
    pub(crate) peer: SocketAddr,
}

impl Client {
    /// Answers one request.
    pub(crate) async fn handle(self, mut request: Request<Incoming>) -> Response<Answer> {
        let upgrade = hyper::upgrade::on(&mut request);
        let (head, body) = request.into_parts();
        let shared = Rc::clone(&self.shared);
        let mut record =
            Record::begin(Rc::clone(&shared), Rc::clone(&self.listener), self.peer, &head);
        let mut response = match self.forward(head, body, upgrade, &mut record).await {
            Ok(answer) => answer.into_response(&shared, record),
            Err(problem) => {
                record.answer(problem.status.as_u16());
                record.note(problem.code);
                problem.into_response()
            }
        };
        response.headers_mut().insert(GATEWAY, shared.host.clone());
        response
    }

    async fn forward(
        &self,
        head: request::Parts,
        body: Incoming,
        upgrade: OnUpgrade,
        record: &mut Record,
    ) -> Result<Carried, Problem> {
        if head.method == Method::CONNECT {
            return Err(Problem::method(head.method.as_str()));
        }
        if let Some(ambiguity) = head::find_ambiguity(&head) {
            return Err(Problem::ambiguous(ambiguity));
        }
        let live = self.shared.live.borrow().clone();
        let route = live
            .find(&self.listener, head::authority(&head), head.uri.path())
            .ok_or_else(|| Problem::no_route(head.uri.path()))?;
        record.begin_route(Rc::clone(&route));
        let body_max = route.route.body_max;
        if body.size_hint().lower() > body_max {
            return Err(Problem::too_large(body_max));
        }
        let protocol = head::wanted_upgrade(&head).filter(|_| body.is_end_stream());
        let flow = Rc::new(Flow::new(self.shared.clock));
        let body = body::receive(body, body_max, &flow)
            .await
            .map_err(|fault| Problem::body(fault, body_max, Effect::None))?;
        let repeatable = self.is_repeatable(&head, &body, &route);
        let pace = Pace::of(head.method.as_str(), head.uri.path(), &route.route.to);
        let message = self.message(head, body, protocol.clone(), flow);
        let tries = {
            let balancer = self.shared.balancer.borrow();
            let (policy, now) = (balancer.policy(), self.shared.clock.now());
            Tries::new(&route.route, repeatable, policy, now).at_pace(pace)
        };
        let shared = &self.shared;
        let (room, doubted) = (None, Vec::new());
        let exchange = Exchange { shared, route: &route, record, message, tries, room, doubted };
        let answered = exchange.run().await?;
        let switches = answered.response.status() == StatusCode::SWITCHING_PROTOCOLS;
        match (switches, protocol) {
            (false, _) => Ok(Carried { answered, upgrade: None }),
            (true, Some(_)) => Ok(Carried { answered, upgrade: Some(upgrade) }),
            // Nobody asked for it, so nobody could speak it.
            (true, None) => Err(Problem::broken(&route.route.to.to_string())),
        }
    }

    fn is_repeatable(&self, head: &request::Parts, body: &Received, route: &LiveRoute) -> bool {
        let conditions =
            [IF_MATCH, IF_NONE_MATCH, IF_UNMODIFIED_SINCE, IF_MODIFIED_SINCE, IF_RANGE];
        let marks = Marks {
            idempotency_key: head.headers.contains_key(IDEMPOTENCY_KEY),
            conditional: conditions.iter().any(|name| head.headers.contains_key(name)),
            body_kept: matches!(body, Received::Whole(_)),
        };
        may_repeat(head.method.as_str(), marks, &route.route.to)
    }

    /// Makes the request for the upstream.
    fn message(
        &self,
        head: request::Parts,
        body: Received,
        protocol: Option<HeaderValue>,
        flow: Rc<Flow>,
    ) -> Message {
        let mut headers = head.headers;
        head::strip_hop_by_hop(&mut headers);
        // hyper has answered it by the time that the body is read.
        headers.remove(EXPECT);
        if let Received::Whole(bytes) = &body
            && (!bytes.is_empty() || headers.contains_key(CONTENT_LENGTH))
        {
            headers.insert(CONTENT_LENGTH, HeaderValue::from(bytes.len()));
        }
        if let Some(protocol) = protocol {
            head::put_upgrade(&mut headers, protocol);
        }
        if *self.listener != ListenerId::KeyValue {
            self.add_forwarded(&mut headers);
        }
        headers.insert(GATEWAY, self.shared.host.clone());
        let uri = head::origin_form(&head.uri);
        Message { method: head.method, uri, headers, body: Some(body), flow }
    }

    /// Tells the upstream whom the request comes from.
    fn add_forwarded(&self, headers: &mut HeaderMap) {
        let peer = self.peer.ip().to_canonical();
        let mut chain = String::new();
        for earlier in headers.get_all(&FORWARDED_FOR) {
            if let Ok(earlier) = earlier.to_str() {
                chain.push_str(earlier);
                chain.push_str(", ");
            }
        }
        chain.push_str(&peer.to_string());
        if let Ok(chain) = HeaderValue::from_str(&chain) {
            headers.insert(FORWARDED_FOR, chain);
        }
        headers.insert(FORWARDED_PROTO, HeaderValue::from_static("http"));
    }
}

/// A request that was carried out.
#[derive(Debug)]
struct Carried {
    answered: Answered,
    /// The client's side of a switch of protocols.
    upgrade: Option<OnUpgrade>,
}

impl Carried {
    fn into_response(self, shared: &Rc<Shared>, mut record: Record) -> Response<Answer> {
        let Answered { response, connection, mut in_flight } = self.answered;
        let status = response.status().as_u16();
        record.answer(status);
        let kind = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        if is_stream(status, kind) {
            in_flight.last();
        }
        let Some(client) = self.upgrade else {
            let (mut head, body) = response.into_parts();
            head::strip_hop_by_hop(&mut head.headers);
            let shared = Rc::clone(shared);
            let forwarded = Forwarded::new(body, connection, shared, in_flight, record);
            return Response::from_parts(head, Answer::Forwarded(Box::new(forwarded)));
        };
        let mut switched = Response::new(Answer::Own(hyper::body::Bytes::new()));
        *switched.status_mut() = response.status();
        let protocol = response.headers().get(hyper::header::UPGRADE).cloned();
        *switched.headers_mut() = response.headers().clone();
        head::strip_hop_by_hop(switched.headers_mut());
        if let Some(protocol) = protocol {
            head::put_upgrade(switched.headers_mut(), protocol);
        }
        let tunnel = async move {
            let (Ok(client), Ok(upstream)) = (client.await, hyper::upgrade::on(response).await)
            else {
                return;
            };
            let (mut client, mut upstream) = (TokioIo::new(client), TokioIo::new(upstream));
            // Either side may end it in any way; there is nobody left to tell.
            let passed = tokio::io::copy_bidirectional(&mut client, &mut upstream).await;
            record.count(passed.map_or(0, |(_, down)| down));
            drop((connection, in_flight));
        };
        drop(tokio::task::spawn_local(tunnel));
        switched
    }
}
