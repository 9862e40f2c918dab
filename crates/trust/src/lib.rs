//! Who belongs to a system: its certificate authority, the certificates of its hosts, tokens to
//! join it by, and TLS between its hosts in which both sides prove who they are.
//!
//! What holds here:
//! - A connection is trusted for the certificate at its other end alone, never for what is said on
//!   it. The connecting side names the host that it wants, and speaks with no other.
//! - No connection ends because a certificate does, and none is refused because a clock is wrong:
//!   see `verify`.
//! - Keys are in files that their owner alone may read, each replaced whole or not at all.
//!
//! Who may join, where tokens are kept and when a certificate is renewed is decided by the node.

pub mod authority;
pub mod credentials;
pub mod folder;
pub mod http;
pub mod identity;
pub mod join;
mod pem;
pub mod renewal;
pub mod request;
pub mod stream;
pub mod tls;
pub mod token;
mod verify;

/// Text for people about the crypto library's own errors, which are never shown as a source twice.
pub(crate) type Cause = Box<dyn std::error::Error + Send + Sync>;
