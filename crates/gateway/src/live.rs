//! The routes in force, each with what is kept beside it.

use std::rc::Rc;
use std::sync::Arc;

use evenkeel_gateway_core::route::find_route;
use evenkeel_gateway_core::table::{ListenerId, Route, RouteTable};

use crate::metrics::{Metrics, RouteMetrics};

/// A route table in force.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) table: Arc<RouteTable>,
    /// In the order of the table's listeners and their routes.
    routes: Vec<Vec<Rc<LiveRoute>>>,
}

/// A route, as long as a request uses it.
#[derive(Debug)]
pub(crate) struct LiveRoute {
    pub(crate) route: Route,
    pub(crate) metrics: RouteMetrics,
}

impl Live {
    pub(crate) fn new(table: Arc<RouteTable>, metrics: &Metrics) -> Self {
        let mut routes = Vec::with_capacity(table.listeners.len());
        for listener in &table.listeners {
            let of_listener = listener.routes.iter().map(|route| {
                let metrics = RouteMetrics::new(metrics, listener, route);
                Rc::new(LiveRoute { route: route.clone(), metrics })
            });
            routes.push(of_listener.collect());
        }
        Self { table, routes }
    }

    /// Returns the route of a request.
    pub(crate) fn find(
        &self,
        id: &ListenerId,
        authority: &str,
        path: &str,
    ) -> Option<Rc<LiveRoute>> {
        let position = self.table.listeners.iter().position(|listener| listener.id == *id)?;
        let listener = self.table.listeners.get(position)?;
        let found = find_route(&listener.routes, authority, path)?;
        let at = listener.routes.iter().position(|route| std::ptr::eq(route, found))?;
        self.routes.get(position)?.get(at).cloned()
    }
}
