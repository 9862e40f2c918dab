//! Decides which route a request takes: by host, then by the longest path prefix.
//!
//! Paths are compared as they stand in the request: neither `%2f` nor `..` is resolved, because
//! the upstream receives the same bytes and must not see another path than the one matched.

use crate::table::Route;

/// Returns the route of a request, `None` if there is none.
///
/// Routes with a matching host win over routes for every host; among them the longest path wins.
/// `authority` is the request's `Host`, with or without port; `path` is without query.
#[must_use]
pub fn find_route<'a>(routes: &'a [Route], authority: &str, path: &str) -> Option<&'a Route> {
    let host = host_of(authority);
    routes
        .iter()
        .filter(|route| route.host.as_ref().is_none_or(|name| name.eq_ignore_ascii_case(host)))
        .filter(|route| path_matches(&route.path, path))
        .max_by_key(|route| (route.host.is_some(), route.path.trim_end_matches('/').len()))
}

/// Cuts port and final dot off an authority (RFC 3986 §3.2; `[::1]:80` keeps its brackets).
fn host_of(authority: &str) -> &str {
    let host = match authority.rfind([':', ']']) {
        Some(at) if authority.as_bytes().get(at) == Some(&b':') => {
            authority.get(..at).unwrap_or(authority)
        }
        _ => authority,
    };
    host.strip_suffix('.').unwrap_or(host)
}

/// Returns whether `prefix` is `path` or whole leading segments of it: `/a` matches `/a/b`, not
/// `/ab`.
fn path_matches(prefix: &str, path: &str) -> bool {
    path.strip_prefix(prefix.trim_end_matches('/'))
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::UpstreamId;
    use evenkeel_model::name::ServiceName;
    use std::time::Duration;

    fn route(text: &str) -> Route {
        let (place, to) = text.split_once('=').unwrap();
        let (host, path) = place.split_at(place.find('/').unwrap());
        Route {
            host: (!host.is_empty()).then(|| host.to_owned()),
            path: path.to_owned(),
            to: UpstreamId::Service(ServiceName::parse(to).unwrap()),
            body_max: 0,
            timeout: Duration::ZERO,
            tries_max: 1,
        }
    }

    fn check(authority: &str, path: &str, expected: Option<&str>) {
        let routes =
            ["/=web", "/api=api", "/api/v2/=new", "a.test/=site", "a.test/x=part", "[::1]/=six"]
                .map(route);
        let found = find_route(&routes, authority, path).map(|route| route.to.to_string());
        assert_eq!(found.as_deref(), expected, "{authority} {path}");
    }

    #[test]
    fn finds_the_longest_path_of_the_closest_host() {
        check("b.test", "/", Some("web"));
        check("b.test", "/api", Some("api"));
        check("b.test", "/api/", Some("api"));
        check("b.test", "/apis", Some("web"));
        check("b.test", "/api/v2", Some("new"));
        check("b.test", "/api/v2/x", Some("new"));
        check("b.test", "/api/v22", Some("api"));
        check("a.test", "/api", Some("site"));
        check("A.Test.:8080", "/x/y", Some("part"));
        check("[::1]:8080", "/", Some("six"));
        check("[::1]", "/", Some("six"));
        check("", "/", Some("web"));
        check("b.test", "*", None);
    }

    #[test]
    fn what_hosts_say_among_themselves_is_not_for_users() {
        let routes = [Route::key_value()];
        let found = |path| find_route(&routes, "127.0.0.1:7402", path).is_some();
        assert!(found("/v1/kv/key") && found("/v1/txn"));
        assert!(!found("/internal/coordinator/execute") && !found("/join") && !found("/"));
    }
}
