//! Looks after this host's own certificate, and moves the authority of a new system into the store.

use std::net::SocketAddr;
use std::time::Duration;

use evenkeel_consensus::answer::Answer;
use evenkeel_consensus::command::Expect;
use evenkeel_trust::credentials::Key;
use evenkeel_trust::join;
use evenkeel_trust::renewal::{Standing, now};
use evenkeel_trust::request::CertificateRequest;
use tokio::time::sleep;

use super::routes::RENEW_PATH;
use super::{AUTHORITY, Membership, Seat};
use crate::protection;

/// Time between two looks at the certificate.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// Time until the next try when renewing has failed: most often no leader was there.
const RETRY_AFTER: Duration = Duration::from_secs(10);
/// Time between two tries to move the authority: a system that has its first quorum should not
/// depend on one disk for longer than needed.
const MOVE_EVERY: Duration = Duration::from_secs(1);
/// Time for the leader's answer.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// Runs for as long as the node.
pub(super) async fn run(membership: Membership) {
    let mut warned = None;
    loop {
        let on_disk = matches!(membership.seat(), Ok(Seat::Disk(_)));
        if on_disk && let Err(reason) = membership.move_authority().await {
            tracing::debug!(reason, "the certificate authority stays on this host's disk");
        }
        let looked = membership.look_at_certificate().await;
        let pause = match (on_disk, &looked) {
            (true, _) => MOVE_EVERY,
            (false, Err(_)) => RETRY_AFTER,
            (false, Ok(())) => LOOK_EVERY,
        };
        if let Err(reason) = looked {
            let warning = protection::warning(&membership.parts.trust, now());
            if warning.is_some() && warning != warned {
                let warning = warning.as_deref().unwrap_or_default();
                tracing::warn!(warning, reason, "the certificate was not renewed");
            } else {
                tracing::info!(reason, "the certificate was not renewed");
            }
            warned = warning;
        }
        sleep(pause).await;
    }
}

impl Membership {
    /// Puts the authority and its tokens into the store, and then forgets them here. Interrupted
    /// anywhere, it can begin again.
    async fn move_authority(&self) -> Result<(), String> {
        let parts = &self.parts;
        // Asked before the disk is held: without a leader, hosts must still be able to join.
        let present = parts.store.get(AUTHORITY).await?;
        let _disk = parts.disk.lock().await;
        let Seat::Disk(authority) = self.seat()? else { return Ok(()) };
        for (hash, record) in self.read_disk()? {
            self.put(&hash, &record, Expect::Any).await?;
        }
        let text = authority.to_pem();
        match present {
            None => {
                let put = parts.store.put(AUTHORITY, text.into_bytes(), Expect::Absent).await?;
                let Answer::Written { .. } = put else {
                    return Err(format!("the authority was not stored: {put:?}"));
                };
            }
            Some((stored, _)) if *stored == *text.as_bytes() => {}
            Some(_) => return Err("the store holds another authority".to_owned()),
        }
        parts.folder.remove_authority().map_err(|error| error.to_string())?;
        tracing::info!("the certificate authority is in the store now");
        Ok(())
    }

    /// Renews the own certificate when it is time.
    async fn look_at_certificate(&self) -> Result<(), String> {
        let parts = &self.parts;
        let validity = parts.trust.validity().ok_or("its times can't be read")?;
        match validity.standing(now()) {
            Standing::Fresh => return Ok(()),
            Standing::Due | Standing::Late | Standing::Over(_) => {}
        }
        let key = Key::generate().map_err(|error| error.to_string())?;
        let request = CertificateRequest::new(&key).map_err(|error| error.to_string())?;
        let certificates = self.ask_for_renewal(&request).await?;
        let credentials = join::read_certificates(&key, &certificates)
            .ok_or("the answer holds no certificates")?;
        // On disk first: what is shown to others must be there after a restart.
        let kept = evenkeel_trust::credentials::Credentials::from_pem(&credentials.to_pem())
            .map_err(|error| error.to_string())?;
        credentials.check(&self.system().name).map_err(|error| error.to_string())?;
        parts.folder.store_credentials(&credentials).map_err(|error| error.to_string())?;
        parts.trust.replace(kept).map_err(|error| error.to_string())?;
        tracing::info!("this host's certificate was renewed");
        Ok(())
    }

    async fn ask_for_renewal(&self, request: &CertificateRequest) -> Result<String, String> {
        let parts = &self.parts;
        let leader = parts.store.leadership().leader;
        let own = leader.as_ref() == Some(&parts.host) || matches!(self.seat()?, Seat::Disk(_));
        if own {
            return self.renew(&parts.host, request).await;
        }
        let leader = leader.ok_or("no leader is known")?;
        let system = self.system();
        let place = system.hosts.get(&leader).ok_or("the leader is no host of this file")?;
        let address = SocketAddr::new(place.address, system.ports.api);
        let body = serde_json::to_vec(request).map_err(|error| error.to_string())?;
        let answer = parts.client.post(address, RENEW_PATH, body, ANSWER_MAX).await?;
        String::from_utf8(answer.to_vec()).map_err(|error| error.to_string())
    }
}
