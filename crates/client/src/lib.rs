//! A client of the key-value API: asks one host after another until one answers, and never guesses.
//!
//! Every request may be sent again: a question changes nothing, and a change carries an
//! `Idempotency-Key` under which the store does it once. What an error says of a change is certain:
//! it was not made, unless the error is [`Error::Unknown`].
//!
//! ```no_run
//! # async fn example() -> Result<(), evenkeel_client::Error> {
//! use evenkeel_client::{Client, Options, PutOptions, ReadOptions, Wanted};
//!
//! let client = Client::new(["http://10.0.1.11:7401", "http://10.0.2.11:7401"], Options::STANDARD)?;
//! let written = client.put("greeting", "hello", &PutOptions::default()).await?;
//! let found = client.get("greeting", &ReadOptions::default()).await?;
//! assert!(found.is_some_and(|found| found.revision >= written.revision));
//! let mut watch = client.watch(Wanted::prefix("gr"), Some(written.revision)).await?;
//! loop {
//!     println!("{:?}", watch.next().await?);
//! }
//! # }
//! ```
//!
//! A lock, or an election, has a token; with [`Lock::guard`] a transaction is made by its holder or
//! not at all:
//!
//! ```no_run
//! # async fn example(client: evenkeel_client::Client) -> Result<(), evenkeel_client::Error> {
//! use evenkeel_client::{Bytes, LockOptions, Operation, Transaction};
//!
//! let mut lock = client.lock("report", &LockOptions::default()).await?;
//! let report = Bytes::from_static(b"done");
//! let put = Operation::Put { key: "report".to_owned(), value: report, lease: None };
//! let transaction =
//!     Transaction { compare: vec![lock.guard()], success: vec![put], failure: Vec::new() };
//! tokio::select! {
//!     done = client.transact(&transaction, None) => assert!(done?.succeeded),
//!     lost = lock.lost() => return Err(lost.cause),
//! }
//! lock.release().await?;
//! # Ok(())
//! # }
//! ```

mod client;
mod effort;
mod error;
mod events;
mod keeping;
mod keys;
mod leases;
mod locks;
mod pages;
mod response;
mod target;
mod transactions;
mod transport;
mod value;
mod watch;

pub use client::Client;
pub use error::{Error, Refusal};
pub use hyper::body::Bytes;
pub use keys::{
    DeleteOptions, Deleted, Expect, Found, KeyValue, ListOptions, Page, PutOptions, ReadOptions,
    Written,
};
pub use leases::{Granted, Lease, LeaseId};
pub use locks::{Holder, Lock, LockOptions, LockState, Lost, Observation};
pub use pages::Pages;
pub use transactions::{
    Compare, Operand, Operation, OperationResult, Relation, Transacted, Transaction,
};
pub use transport::Options;
pub use watch::{Change, Changes, Wanted, Watch};
