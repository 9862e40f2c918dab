//! Carries out actions in the background and reports what came of them.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use evenkeel_control::declaration::Wanted;
use evenkeel_control::members::MembersStep;
use evenkeel_control::plan::Plan;
use evenkeel_control::report::{HostReport, LAST_LINES_MAX, LeaderAnswer};
use evenkeel_coordinator::options::{RoundTrips, patience_for};
use evenkeel_gateway_core::table::RouteTable;
use evenkeel_model::name::HostName;
use evenkeel_model::service::Probe;
use evenkeel_model::system::System;
use evenkeel_model::voting::Voting;
use evenkeel_node_core::action::Action;
use evenkeel_node_core::event::{Event, ProcessChange};
use evenkeel_node_core::process::{ProcessId, ProcessSpec};
use evenkeel_supervisor::shims::{Shims, Signal};
use evenkeel_supervisor::spec;
use tokio::sync::{mpsc, watch};

use crate::check;
use crate::client::Client;
use crate::host::Outcome;
use crate::store::{Leadership, Store, Stored};
use crate::wire::{AnswerWire, ReportWire};
use crate::writer::Writer;

/// Size at which a process's log is rotated, in bytes.
const LOG_MAX: u64 = 8 << 20;

/// Time for the answer of a leader near by to a report, see [`evenkeel_model::patience`].
const HEARTBEAT_MAX: Duration = Duration::from_millis(500);

/// Time between two tries to read the stored plan after an election.
const OFFICE_RETRY: Duration = Duration::from_millis(50);
/// Time between two looks at who takes part in the coordinator.
const MEMBERS_EVERY: Duration = Duration::from_secs(1);

/// What carries actions out.
#[derive(Debug, Clone)]
pub struct Hands {
    /// The system in force.
    pub system: watch::Receiver<Arc<System>>,
    /// Requests to other hosts.
    pub client: Client,
    /// How far other hosts are.
    pub round_trips: watch::Receiver<RoundTrips>,
    /// Where outcomes go.
    pub outcomes: mpsc::Sender<Outcome>,
    /// The plan on disk.
    pub plan: Writer<Plan>,
    /// The gateway's snapshot on disk.
    pub routes: Writer<RouteTable>,
    /// The system file in force, on disk.
    pub system_file: Writer<Arc<str>>,
    /// Text of the system file that this node was started with: the system begins with it if it
    /// has none yet.
    pub system_text: Arc<str>,
}

impl Hands {
    /// Carries out one action of node-core, all but those that the loop does itself.
    pub fn carry_out(&self, action: Action, store: &Store, shims: &Shims) {
        match action {
            Action::SendHeartbeat { to, report } => self.send_heartbeat(&to, &report),
            Action::StorePlan { plan } => self.store_plan(store.clone(), plan),
            Action::ChangeMembers { step } => Self::change_members(store.clone(), step),
            Action::SavePlan { plan } => self.plan.write(plan),
            Action::WriteRoutes { routes } => self.routes.write(routes),
            Action::StartProcess { spec } => self.start(shims.clone(), spec),
            Action::TerminateProcess { id } => Self::signal(shims.clone(), id, Signal::Terminate),
            Action::KillProcess { id } => Self::signal(shims.clone(), id, Signal::Kill),
            Action::RemoveProcess { id } => Self::remove(shims.clone(), id),
            Action::ReadLog { id } => self.read_log(shims.clone(), id),
            Action::Check { id, number, purpose, probe, address, timeout } => {
                let hands = self.clone();
                tokio::spawn(async move {
                    let result = hands.check(&id, &probe, address, timeout).await;
                    hands.tell(Event::CheckFinished { id, number, purpose, result }).await;
                });
            }
            Action::SendProbe { .. } | Action::Finish => {}
        }
    }

    async fn tell(&self, event: Event) {
        // The loop has ended: nobody is left to be told.
        drop(self.outcomes.send(Outcome::Event(Box::new(event))).await);
    }

    fn send_heartbeat(&self, to: &HostName, report: &HostReport) {
        let system = Arc::clone(&self.system.borrow());
        let Some(address) = system.hosts.get(to).map(|host| host.address) else { return };
        let address = SocketAddr::new(address, system.ports.api);
        let body = serde_json::to_vec(&ReportWire::from(report));
        let limit = patience_for(&self.round_trips.borrow(), to, HEARTBEAT_MAX);
        let hands = self.clone();
        tokio::spawn(async move {
            let event = match hands.report(address, body, limit).await {
                Ok(answer) => Event::HeartbeatAnswered { answer },
                Err(reason) => Event::HeartbeatFailed { reason },
            };
            hands.tell(event).await;
        });
    }

    async fn report(
        &self,
        address: SocketAddr,
        body: serde_json::Result<Vec<u8>>,
        limit: Duration,
    ) -> Result<LeaderAnswer, String> {
        let body = body.map_err(|error| error.to_string())?;
        let answer = self.client.post(address, "/internal/heartbeat", body, limit).await?;
        let wire: AnswerWire =
            serde_json::from_slice(&answer).map_err(|error| format!("{address}: {error}"))?;
        LeaderAnswer::try_from(wire).map_err(|error| format!("{address}: {error}"))
    }

    fn store_plan(&self, store: Store, plan: Plan) {
        let hands = self.clone();
        tokio::spawn(async move {
            let number = plan.number;
            match store.replace_plan(&plan).await {
                Stored::Done => hands.tell(Event::PlanStored { number }).await,
                Stored::Refused(present) => {
                    if let Some(plan) = present {
                        hands.tell(Event::PlanSeen { plan }).await;
                    }
                    hands.tell(Event::PlanRefused { number }).await;
                }
            }
        });
    }

    fn start(&self, shims: Shims, spec: ProcessSpec) {
        let hands = self.clone();
        tokio::spawn(async move {
            let id = spec.id.clone();
            // That it runs is told by its shim, in order with its end.
            if let Err(change) = start(&shims, spec).await {
                hands.tell(Event::Process { id, change }).await;
            }
        });
    }

    fn signal(shims: Shims, id: ProcessId, signal: Signal) {
        tokio::spawn(async move {
            if let Err(error) = shims.signal(&id.to_string(), signal).await {
                tracing::warn!(%id, ?signal, %error, "a signal was not sent");
            }
        });
    }

    fn remove(shims: Shims, id: ProcessId) {
        tokio::spawn(async move {
            if let Err(error) = shims.remove(&id.to_string()).await {
                tracing::warn!(%id, %error, "a shim was not removed");
            }
        });
    }

    async fn check(
        &self,
        id: &ProcessId,
        probe: &Probe,
        address: SocketAddr,
        timeout: Duration,
    ) -> Result<(), String> {
        let name = match id {
            ProcessId::Gateway => None,
            ProcessId::Replica(instance) => Some(instance.to_string()),
        };
        check::ask(probe, address, name.as_deref(), timeout).await
    }

    /// Reads the stored plan, as often as needed, and then tells the core that this host leads.
    pub fn take_office(&self, store: &Store, leadership: Leadership) {
        let (hands, store) = (self.clone(), store.clone());
        tokio::spawn(async move {
            while store.leadership() == leadership {
                match hands.read_office(&store).await {
                    Ok((plan, wanted)) => {
                        let outcome = Outcome::Office(leadership.clone(), plan, Box::new(wanted));
                        // The loop has ended: nobody is left to be told.
                        drop(hands.outcomes.send(outcome).await);
                        return hands.watch_members(&store, &leadership).await;
                    }
                    Err(reason) => {
                        tracing::info!(reason, "this host leads but can't read the plan yet")
                    }
                }
                tokio::time::sleep(OFFICE_RETRY).await;
            }
        });
    }

    /// Tells the core who takes part in the coordinator, for as long as this host leads.
    async fn watch_members(&self, store: &Store, leadership: &Leadership) {
        while store.leadership() == *leadership {
            if let Some(membership) = store.membership().await {
                self.tell(Event::MembersSeen { membership }).await;
            }
            tokio::time::sleep(MEMBERS_EVERY).await;
        }
    }

    fn change_members(store: Store, step: MembersStep) {
        tokio::spawn(async move {
            match store.change_members(&step).await {
                Ok(()) => tracing::info!(?step, "who takes part in the coordinator changes"),
                Err(reason) => tracing::debug!(?step, reason, "who takes part can't change now"),
            }
        });
    }

    async fn read_office(&self, store: &Store) -> Result<(Option<Plan>, Wanted), String> {
        store.begin_system(&self.system_text).await?;
        let wanted = store.read_wanted(&self.voting()).await?;
        let wanted = wanted.ok_or_else(|| "the store has no system file".to_owned())?;
        let plan = store.read_plan().await?.map(|(plan, _)| plan);
        Ok((plan, wanted))
    }

    fn voting(&self) -> Voting {
        self.system.borrow().voting()
    }

    /// Reads the plan and what is wanted, as the store holds them on this host, and tells the core.
    pub fn look_at_store(&self, store: &Store) {
        let (hands, store) = (self.clone(), store.clone());
        tokio::spawn(async move {
            match store.seen_wanted(&hands.voting()).await {
                Ok(Some(wanted)) => hands.tell(Event::WantedSeen { wanted }).await,
                Ok(None) => {}
                Err(reason) => tracing::debug!(reason, "the wanted system was not read"),
            }
            match store.seen_plan().await {
                Ok(Some(plan)) => hands.tell(Event::PlanSeen { plan }).await,
                Ok(None) => {}
                Err(reason) => tracing::debug!(reason, "the applied plan was not read"),
            }
        });
    }

    fn read_log(&self, shims: Shims, id: ProcessId) {
        let hands = self.clone();
        tokio::spawn(async move {
            let name = id.to_string();
            let read = tokio::task::spawn_blocking(move || shims.log_tail(&name, LAST_LINES_MAX));
            if let Ok(lines) = read.await {
                hands.tell(Event::LogRead { id, lines }).await;
            }
        });
    }
}

async fn start(shims: &Shims, spec: ProcessSpec) -> Result<(), ProcessChange> {
    if spec.binds.is_some_and(is_taken) {
        return Err(ProcessChange::PortTaken);
    }
    let spec = spec::ProcessSpec {
        id: spec.id.to_string(),
        command: spec.command,
        directory: spec.directory,
        environment: spec.environment,
        listen: spec.listen,
        log_max_bytes: LOG_MAX,
    };
    match shims.start(spec).await {
        Ok(_) => Ok(()),
        Err(error) => Err(ProcessChange::StartFailed { reason: error.to_string() }),
    }
}

/// Returns whether another program listens on an address. The listener used to find out has never
/// accepted a connection, so it leaves nothing behind.
fn is_taken(address: SocketAddr) -> bool {
    TcpListener::bind(address).is_err_and(|error| error.kind() == std::io::ErrorKind::AddrInUse)
}
