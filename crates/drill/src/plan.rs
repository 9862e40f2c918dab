//! Which experiments a drill makes, in which order, and how long each phase lasts.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use evenkeel_checker::measure::Steady;
use evenkeel_model::fault::FaultKind;
use evenkeel_model::place::SurvivalGoal;

use crate::targets::{Role, RoleError, Selector};

/// One fault on one part of the system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Experiment {
    /// What is done.
    pub fault: FaultKind,
    /// To what.
    pub selector: Selector,
}

impl Experiment {
    const fn new(fault: FaultKind, role: Role) -> Self {
        Self { fault, selector: Selector { role, place: None } }
    }

    /// Returns its name in reports: `kill-leader`.
    #[must_use]
    pub fn id(&self) -> String {
        format!("{}-{}", self.fault, self.selector.role)
    }
}

impl fmt::Display for Experiment {
    /// Writes what `--only` takes: `kill@leader`.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}@{}", self.fault, self.selector)
    }
}

/// What `--only` asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Only {
    /// The fault.
    pub fault: FaultKind,
    /// Its target; every role that the fault fits when absent.
    pub selector: Option<Selector>,
}

/// Reports an `--only` that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OnlyError {
    /// The part before `@`.
    #[error("`{0}` is none of kill, pause, isolate")]
    Fault(String),
    /// The part behind `@`.
    #[error(transparent)]
    Role(#[from] RoleError),
    /// The two do not go together.
    #[error("a {role} cannot be hit by {fault}")]
    Mismatch {
        /// The fault.
        fault: FaultKind,
        /// The role.
        role: Role,
    },
}

impl FromStr for Only {
    type Err = OnlyError;

    fn from_str(text: &str) -> Result<Self, OnlyError> {
        let (fault, selector) = match text.split_once('@') {
            Some((fault, selector)) => (fault, Some(selector.parse::<Selector>()?)),
            None => (text, None),
        };
        let fault = match fault {
            "kill" => FaultKind::Kill,
            "pause" => FaultKind::Pause,
            "isolate" => FaultKind::Isolate,
            other => return Err(OnlyError::Fault(other.to_owned())),
        };
        if let Some(role) = selector.as_ref().map(|selector| selector.role)
            && !fits(fault, role)
        {
            return Err(OnlyError::Mismatch { fault, role });
        }
        Ok(Self { fault, selector })
    }
}

/// How thorough a drill is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// The ten experiments of the demo: each role once.
    Demo,
    /// Every fault on every role that it fits.
    Standard,
}

/// Returns whether a fault can be injected into a role: processes have no network of their own,
/// and a link has no processes.
#[must_use]
pub const fn fits(fault: FaultKind, role: Role) -> bool {
    match fault {
        FaultKind::Kill | FaultKind::Pause => !matches!(role, Role::Link),
        FaultKind::Isolate => !role.is_process(),
    }
}

/// Returns the experiments of a drill, the smallest blast radius first.
#[must_use]
pub fn experiments(scope: Scope, only: Option<&Only>) -> Vec<Experiment> {
    let faults = [FaultKind::Kill, FaultKind::Pause, FaultKind::Isolate];
    let matrix = Role::ALL.into_iter().flat_map(|role| {
        let fitting = faults.into_iter().filter(move |fault| fits(*fault, role));
        fitting.map(move |fault| Experiment::new(fault, role))
    });
    match (only, scope) {
        (Some(Only { fault, selector: Some(selector) }), _) => {
            vec![Experiment { fault: *fault, selector: selector.clone() }]
        }
        (Some(only), _) => matrix.filter(|experiment| experiment.fault == only.fault).collect(),
        (None, Scope::Standard) => matrix.collect(),
        (None, Scope::Demo) => Role::ALL
            .into_iter()
            .map(|role| match role {
                Role::Zone | Role::Region | Role::Link => Experiment::new(FaultKind::Isolate, role),
                Role::Replica
                | Role::Gateway
                | Role::Node
                | Role::Shim
                | Role::Leader
                | Role::Follower
                | Role::Host => Experiment::new(FaultKind::Kill, role),
            })
            .collect(),
    }
}

/// Returns whether an experiment has to be made: its target was named, or the goal promises that
/// the system lives through it. Any other may be left out.
#[must_use]
pub fn is_required(experiment: &Experiment, only: Option<&Only>, goal: SurvivalGoal) -> bool {
    let is_named = only.is_some_and(|only| only.selector.is_some());
    is_named || is_promised(goal, experiment.selector.role)
}

/// Returns whether a goal promises to live through the loss of a part with this role.
#[must_use]
pub const fn is_promised(goal: SurvivalGoal, role: Role) -> bool {
    let size = match role {
        Role::Replica | Role::Gateway | Role::Node | Role::Shim | Role::Leader | Role::Follower => {
            SurvivalGoal::Process
        }
        Role::Host => SurvivalGoal::Host,
        Role::Zone => SurvivalGoal::Zone,
        Role::Region | Role::Link => SurvivalGoal::Region,
    };
    size as u8 <= goal as u8
}

/// How long the phases of an experiment last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Phases {
    /// Load without a fault before it: what is normal here.
    pub control: Duration,
    /// From the fault to its end, or to the end of looking at what was killed.
    pub hold: Duration,
    /// At least this long after the end of the fault.
    pub settle: Duration,
    /// At most this long after it, waiting for full redundancy.
    pub redundancy_max: Duration,
    /// What counts as being served again.
    pub steady: Steady,
}

impl Phases {
    /// The demo: seconds, not minutes.
    pub const DEMO: Self = Self::of(3, 4, 2, 1);
    /// `--quick`: the shortest that still shows a fail-over.
    pub const QUICK: Self = Self::of(1, 3, 1, 1);
    /// `drill --standard`.
    pub const STANDARD: Self = Self::of(20, 30, 20, 5);

    const fn of(control: u64, hold: u64, settle: u64, window: u64) -> Self {
        Self {
            control: Duration::from_secs(control),
            hold: Duration::from_secs(hold),
            settle: Duration::from_secs(settle),
            redundancy_max: Duration::from_secs(30),
            steady: Steady {
                latency_max: Duration::from_millis(500),
                window: Duration::from_secs(window),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_demo_hits_each_role_once() {
        let names: Vec<String> =
            experiments(Scope::Demo, None).iter().map(ToString::to_string).collect();
        let expected = "kill@replica kill@gateway kill@node kill@shim kill@follower kill@leader \
             kill@host isolate@zone isolate@region isolate@link";
        assert_eq!(names.join(" "), expected);
        assert_eq!(experiments(Scope::Standard, None).len(), 6 * 2 + 3 * 3 + 1);
    }

    #[test]
    fn only_narrows_the_choice() {
        let only = |text: &str| text.parse::<Only>();
        let one = experiments(Scope::Demo, Some(&only("pause@host:fra-1").unwrap()));
        assert_eq!(one.iter().map(ToString::to_string).collect::<Vec<_>>(), ["pause@host:fra-1"]);
        assert_eq!(experiments(Scope::Demo, Some(&only("isolate").unwrap())).len(), 4);
        assert_eq!(only("burn").unwrap_err(), OnlyError::Fault("burn".to_owned()));
        assert!(matches!(only("kill@link"), Err(OnlyError::Mismatch { .. })));
        assert!(matches!(only("kill@moon"), Err(OnlyError::Role(_))));
    }
}
