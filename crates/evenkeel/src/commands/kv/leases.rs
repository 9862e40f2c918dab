//! Leases: made, kept alive, looked at, ended.

use std::process::ExitCode;
use std::time::Duration;

use evenkeel_client::{Client, Error, Lease, LeaseId};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::keys::tell;
use super::{interrupted, refuse, text};
use crate::cli::kv::LeaseCommand;
use crate::failure::Outcome;
use crate::show;

/// Pause before a lease that nobody could keep alive is tried again.
const PAUSE: Duration = Duration::from_secs(1);

pub(super) async fn run(client: &Client, command: &LeaseCommand, json: bool) -> Outcome {
    match command {
        LeaseCommand::Grant { ttl, idempotency_key } => {
            let granted = client.grant(*ttl, idempotency_key.as_deref()).await.map_err(refuse)?;
            let (lease, ttl) = (granted.lease, granted.ttl.as_secs_f64());
            tell(json, &json!({ "lease": lease.0, "ttl_seconds": ttl }), &lease.to_string())
        }
        LeaseCommand::Keep { lease, once: true } => {
            let kept = client.keep_alive(*lease).await.map_err(refuse)?;
            tell(json, &object(&kept), &sentence(&kept))
        }
        LeaseCommand::Keep { lease, once: false } => {
            tokio::select! {
                ended = interrupted() => ended.map(|()| ExitCode::SUCCESS).map_err(Into::into),
                failed = keep(client, *lease) => Err(refuse(failed)),
            }
        }
        LeaseCommand::Show { lease } => {
            let lease = client.lease(*lease).await.map_err(refuse)?;
            let keys = lease.keys.iter().map(|key| format!("\n{}", text::name(key)));
            let shown = format!("{}{}", sentence(&lease), keys.collect::<String>());
            tell(json, &object(&lease), &shown)
        }
        LeaseCommand::Revoke { lease, idempotency_key } => {
            let revoked = client.revoke(*lease, idempotency_key.as_deref()).await;
            let revision = revoked.map_err(refuse)?;
            let sentence = format!("lease {lease} has ended at revision {revision}");
            tell(json, &json!({ "revision": revision }), &sentence)
        }
    }
}

/// Keeps a lease alive until it has ended all the same.
async fn keep(client: &Client, lease: LeaseId) -> Error {
    let mut told = false;
    loop {
        let pause = match client.keep_alive(lease).await {
            Ok(kept) => {
                if !told {
                    let seconds = kept.ttl.as_secs_f64();
                    show::say(&format!("keeping lease {lease} of {seconds} s alive until Ctrl-C"));
                }
                told = true;
                kept.ttl / 3
            }
            // It has ended, or this makes no sense: only else it may be kept yet.
            Err(error) if error.refusal().is_some_and(|refusal| refusal.status < 500) => {
                return error;
            }
            Err(error) => {
                show::say(&format!("lease {lease} could not be kept alive: {error}"));
                PAUSE
            }
        };
        sleep(pause).await;
    }
}

fn sentence(lease: &Lease) -> String {
    let keys = show::count(lease.keys.len(), "key", "keys");
    let left = lease.left.map(|left| format!(", {:.1} s left", left.as_secs_f64()));
    let (id, ttl) = (lease.lease, lease.ttl.as_secs_f64());
    format!("lease {id} of {ttl} s with {keys}{}", left.unwrap_or_default())
}

fn object(lease: &Lease) -> Value {
    let left = lease.left.map(|left| left.as_secs_f64());
    json!({
        "lease": lease.lease.0, "ttl_seconds": lease.ttl.as_secs_f64(), "left_seconds": left,
        "keys": lease.keys,
    })
}
