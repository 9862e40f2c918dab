//! One client of either system, and how many connections a number of them shares.

use std::net::SocketAddr;

use anyhow::{Context as _, Result};
use hyper::body::Bytes;

use crate::system::System;
use crate::{grpc, http};

/// Connections over which clients are multiplexed, as etcd's own clients are.
const SHARED_MAX: usize = 8;
/// Bytes of a value.
const VALUE_BYTES: usize = 128;

/// Where clients go.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Target {
    pub(crate) system: System,
    pub(crate) address: SocketAddr,
    pub(crate) manner: Manner,
}

/// How clients reach a system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    /// By HTTP/2, many over one connection.
    Shared,
    /// By HTTP/1.1, each over a connection of its own. Evenkeel alone can be asked so.
    Own,
}

/// A client that has one request under way at most.
#[derive(Debug)]
pub(crate) enum Client {
    Http(http::Connection),
    Grpc(Box<grpc::Channel>),
}

/// What a client asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    Put,
    Get,
}

impl Client {
    /// Connects one client.
    pub(crate) async fn open(target: Target) -> Result<Self> {
        Ok(match target.system {
            System::Evenkeel => Self::Http(match target.manner {
                Manner::Shared => http::Connection::open(target.address).await?,
                Manner::Own => http::Connection::open_own(target.address).await?,
            }),
            System::Etcd(_) => Self::Grpc(Box::new(grpc::Channel::open(target.address).await?)),
        })
    }

    /// Connects `count` clients.
    pub(crate) async fn open_many(target: Target, count: usize) -> Result<Vec<Self>> {
        let mut clients = Vec::with_capacity(count);
        while clients.len() < count {
            let shared = match clients.len().checked_sub(SHARED_MAX) {
                Some(index) => clients.get(index).and_then(Self::share),
                None => None,
            };
            let client = match shared {
                Some(client) => client,
                None => Self::open(target).await.context("connect a client")?,
            };
            clients.push(client);
        }
        Ok(clients)
    }

    /// Returns another client on the same connection, where the protocol allows that.
    pub(crate) fn share(&self) -> Option<Self> {
        match self {
            Self::Http(connection) => connection.share().map(Self::Http),
            Self::Grpc(channel) => Some(Self::Grpc(channel.clone())),
        }
    }

    /// Carries out one operation and waits for its acknowledgement.
    pub(crate) async fn carry_out(&mut self, operation: Operation, key: u64) -> Result<()> {
        let key = format!("bench/{key:08}");
        match (self, operation) {
            (Self::Http(connection), Operation::Put) => connection.put(&key, value()).await,
            (Self::Http(connection), Operation::Get) => connection.get(&key).await,
            (Self::Grpc(channel), Operation::Put) => channel.put(key, value()).await,
            (Self::Grpc(channel), Operation::Get) => channel.get(key).await,
        }
    }
}

const fn value() -> Bytes {
    Bytes::from_static(&[b'v'; VALUE_BYTES])
}
