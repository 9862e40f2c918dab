//! System files as the store counts them, and what is wanted now.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use evenkeel_model::name::HostName;
use evenkeel_model::system::System;
use evenkeel_model::voting::Voting;

/// A system file that was in force once or is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Declaration {
    /// The store's revision of the file: rises with each change.
    pub revision: u64,
    /// The file, as its author wrote it.
    pub text: Arc<str>,
    /// What it declares.
    pub system: Arc<System>,
}

impl Declaration {
    /// Returns the same with others taking part in the coordinator.
    #[must_use]
    pub fn with_voting(&self, voting: &Voting) -> Self {
        let system = System::clone(&self.system).with_voting(voting);
        Self { system: Arc::new(system), ..self.clone() }
    }
}

/// Declarations by revision.
pub type Declarations = BTreeMap<u64, Declaration>;

/// What the store wants the system to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The newest system file.
    pub declaration: Declaration,
    /// Hosts that are to run no replica, so that they can be worked on.
    pub drained: BTreeSet<HostName>,
    /// The store's revision of `drained`, 0 when nobody ever drained a host.
    pub drained_revision: u64,
}

impl Wanted {
    /// Wants `system`, read from `text`, at the store's `revision`, with no host drained.
    #[must_use]
    pub fn new(revision: u64, text: &str, system: System) -> Self {
        let declaration = Declaration { revision, text: text.into(), system: Arc::new(system) };
        Self { declaration, drained: BTreeSet::new(), drained_revision: 0 }
    }

    /// Returns the system that is wanted.
    #[must_use]
    pub fn system(&self) -> &System {
        &self.declaration.system
    }

    /// Takes over what `news` knows better. Returns whether that is anything.
    pub fn update(&mut self, news: Self) -> bool {
        let mut changed = false;
        if news.declaration.revision > self.declaration.revision {
            self.declaration = news.declaration;
            changed = true;
        }
        if news.drained_revision > self.drained_revision {
            self.drained = news.drained;
            self.drained_revision = news.drained_revision;
            changed = true;
        }
        changed
    }
}

#[cfg(test)]
mod tests {
    use evenkeel_model::name::SystemName;
    use evenkeel_model::place::SurvivalGoal;
    use evenkeel_model::system::Ports;

    use super::*;

    fn system() -> System {
        System {
            name: SystemName::parse("shop").unwrap(),
            goal: SurvivalGoal::Process,
            regions: Vec::new(),
            hosts: BTreeMap::new(),
            services: BTreeMap::new(),
            gateways: BTreeMap::new(),
            ports: Ports { peer: 1, api: 2, kv: 3, gateway_admin: 4, relay: 5, replicas: 6..=7 },
            voters: Vec::new(),
            learners: Vec::new(),
            replace_after: evenkeel_model::voting::REPLACE_AFTER,
        }
    }

    #[test]
    fn what_is_wanted_never_goes_back() {
        let mut wanted = Wanted::new(5, "five", system());
        assert!(!wanted.update(Wanted::new(4, "four", system())));
        assert_eq!(&*wanted.declaration.text, "five");
        let host = HostName::parse("fra-a1").unwrap();
        let drained = Wanted {
            drained: [host.clone()].into(),
            drained_revision: 7,
            ..Wanted::new(5, "five", system())
        };
        assert!(wanted.update(drained));
        assert!(wanted.update(Wanted::new(9, "nine", system())));
        assert_eq!((wanted.declaration.revision, wanted.drained.contains(&host)), (9, true));
    }
}
