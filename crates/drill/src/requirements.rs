//! What this machine must have for the chosen experiments, found out before anything is started.

use std::path::PathBuf;

use evenkeel_model::fault::FaultKind;
use evenkeel_model::place::SurvivalGoal;
use nix::unistd::geteuid;

use crate::plan::{Only, Scope, experiments, is_required};
use crate::targets::Role;

/// A program that the chosen experiments need and this machine does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MissingProgram {
    /// Its name.
    pub program: &'static str,
    /// Where Debian and Ubuntu have it.
    pub package: &'static str,
    /// Whether this user can install it: root.
    pub can_install: bool,
}

/// Returns what is missing for experiments that have to be made on a system with this goal.
#[must_use]
pub fn missing(scope: Scope, only: Option<&Only>, goal: SurvivalGoal) -> Option<MissingProgram> {
    let is_missing = needs_nft(scope, only, goal) && !is_installed("nft");
    is_missing.then_some(MissingProgram {
        program: "nft",
        package: "nftables",
        can_install: geteuid().is_root(),
    })
}

/// Returns whether hosts, zones or regions must be cut off. A link is cut by the lab's own switch.
fn needs_nft(scope: Scope, only: Option<&Only>, goal: SurvivalGoal) -> bool {
    experiments(scope, only).iter().any(|experiment| {
        experiment.fault == FaultKind::Isolate
            && experiment.selector.role != Role::Link
            && is_required(experiment, only, goal)
    })
}

/// Looks also where only administrators look.
fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from);
    let mut folders = std::env::split_paths(&path).chain(usual);
    folders.any(|folder| folder.join(program).is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_cutting_hosts_off_needs_a_program() {
        let check = |scope, only: Option<&str>, goal, expected| {
            let only: Option<Only> = only.map(|only| only.parse().unwrap());
            assert_eq!(needs_nft(scope, only.as_ref(), goal), expected, "{only:?} {goal:?}");
        };
        check(Scope::Demo, None, SurvivalGoal::Region, true);
        // The demo cuts zones and regions off, which such a system does not promise to survive.
        check(Scope::Demo, None, SurvivalGoal::Host, false);
        check(Scope::Standard, None, SurvivalGoal::Host, true);
        check(Scope::Demo, Some("kill"), SurvivalGoal::Region, false);
        check(Scope::Demo, Some("isolate@link"), SurvivalGoal::Region, false);
        check(Scope::Demo, Some("isolate@zone"), SurvivalGoal::Process, true);
        check(Scope::Demo, Some("isolate"), SurvivalGoal::Region, true);
    }

    #[test]
    fn a_program_is_found_by_its_name() {
        assert!(is_installed("sh") && !is_installed("no-such-program"));
    }
}
