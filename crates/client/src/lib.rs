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

mod client;
mod effort;
mod error;
mod events;
mod keys;
mod leases;
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
pub use pages::Pages;
pub use transactions::{
    Compare, Operand, Operation, OperationResult, Relation, Transacted, Transaction,
};
pub use transport::Options;
pub use watch::{Change, Changes, Wanted, Watch};
