//! Runs whole systems: the real program, as every process of every host, in the lab.
//!
//! `system [FILTER]` runs the cases whose name contains FILTER. Cases of one group share a system and
//! leave it complete; a case that fails costs the group its system, and the next one gets a new one.
//! Nothing outlives this program: the lab's world ends with it.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test with a `main` of its own")]

mod changes;
mod coldstart;
mod damage;
mod disk;
mod drill;
mod http;
mod joining;
mod keys;
mod kv;
mod locks;
mod members;
mod processes;
mod refusals;
mod relay;
mod rig;
mod services;
mod stability;
mod status;

use std::any::Any;
use std::ffi::OsString;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::Instant;

use evenkeel_lab::world::{self, Entered, Isolation, World};

use rig::Rig;

/// One case.
type Case = (&'static str, fn(&mut Rig));

/// Cases that share a system.
struct Group {
    build: fn(&World) -> Rig,
    cases: &'static [Case],
}

const GROUPS: [Group; 9] = [
    Group {
        build: rig::seven_hosts,
        cases: &[
            ("taken-port", processes::a_taken_port_is_replaced),
            ("any-host", keys::any_host_answers_for_any_key),
            ("relay", relay::replicas_are_reached_through_relays_alone),
            ("kv-command", kv::keys_are_read_and_written_by_command),
            ("snapshot", kv::a_store_is_saved_and_restored),
            ("kv-watch", kv::a_watch_outlives_the_node_that_it_asks),
            ("kv-lock", locks::a_lock_passes_on_whoever_is_killed),
            ("kv-elect", locks::an_election_says_who_leads),
            ("large-bodies", keys::large_bodies_are_refused),
            ("status-codes", status::exit_codes_tell_how_it_is),
            ("node-killed", processes::a_killed_node_disturbs_nobody),
            ("leader-killed", processes::a_killed_leader_is_replaced),
            ("down", processes::down_leaves_nothing),
            ("damaged-plan", damage::a_damaged_plan_costs_one_step),
            ("cold-start", coldstart::a_host_starts_alone),
            ("power-loss", coldstart::a_system_starts_without_a_region),
        ],
    },
    Group {
        build: rig::three_hosts_v6,
        cases: &[
            ("ipv6", keys::gateways_answer_over_ipv6),
            ("differing-file", status::the_replicated_file_wins),
            ("damaged-log", damage::a_damaged_log_is_refused),
            ("lost-log", damage::a_lost_log_is_not_taken_for_a_new_one),
            ("damaged-snapshot", damage::a_damaged_snapshot_is_refused),
        ],
    },
    Group {
        build: rig::three_small_disks,
        cases: &[
            ("full-disk", disk::a_full_disk_stops_nobody),
            ("full-disk-leader", disk::a_leader_with_a_full_disk_hands_over),
        ],
    },
    Group {
        build: services::one_host,
        cases: &[
            ("bad-services", services::bad_services_are_told),
            ("back-off", services::a_service_that_quits_is_started_less_and_less),
            ("second-node", refusals::a_second_node_is_refused),
            ("bad-start", refusals::a_bad_start_says_why),
            ("interrupted-start", processes::an_interrupted_start_harms_nothing),
            ("stubborn", services::down_ends_what_ignores_sigterm),
            ("foreign-folder", refusals::a_foreign_folder_is_refused),
        ],
    },
    Group {
        build: changes::three_of_four,
        cases: &[
            ("change-shown", changes::a_change_is_shown_first),
            ("change-refused", changes::a_bad_change_is_refused),
            ("change-deploy", changes::a_deploy_loses_no_request),
            ("change-rollback", changes::a_failed_deploy_is_rolled_back),
            ("change-route", changes::a_new_route_waits_for_its_service),
            ("change-drain", changes::a_drained_host_is_left_and_used_again),
            ("change-hosts", changes::a_host_joins_and_leaves),
            ("change-certificates", joining::certificates_are_replaced_under_load),
            ("logs", changes::logs_and_events_are_shown),
        ],
    },
    Group {
        build: members::three_of_four,
        cases: &[
            ("members-replaced", members::a_dead_voter_is_replaced),
            ("recover", members::a_system_goes_on_from_a_lone_survivor),
            ("leader-removed", members::a_host_that_leads_is_drained_and_removed),
        ],
    },
    Group {
        build: stability::three_hosts,
        cases: &[
            ("stability-frozen", stability::frozen_nodes_stop_no_page),
            ("stability-cut", stability::hosts_without_a_quorum_go_on),
        ],
    },
    Group {
        build: joining::strangers,
        cases: &[
            ("join", joining::hosts_join_one_by_one),
            ("bad-token", joining::bad_tokens_are_refused),
            ("stranger", joining::strangers_are_not_answered),
            ("false-report", joining::a_host_reports_of_itself_alone),
            ("renewal", joining::a_certificate_that_has_ended_is_renewed),
        ],
    },
    Group {
        build: drill::no_system,
        cases: &[
            ("drill-budget", drill::a_broken_budget_ends_with_3),
            ("drill-history", drill::a_survived_fault_leaves_its_history),
            ("drill-seed", drill::a_seed_repeats_the_choice),
            ("demo-interrupt", drill::an_interrupt_leaves_nothing),
            ("demo-twice", drill::two_demos_run_side_by_side),
        ],
    },
];

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    if let Some(code) = evenkeel_lab::run_hidden(&arguments) {
        return code;
    }
    let words: Vec<&str> = arguments.iter().filter_map(|word| word.to_str()).collect();
    let filter = words.iter().find(|word| !word.starts_with('-')).copied().unwrap_or_default();
    match world::enter(Vec::new()).unwrap() {
        Entered::Left(code) => code,
        Entered::Inside(World { isolation: Isolation::None { reason }, .. }) => {
            without_namespaces(&reason, filter)
        }
        Entered::Inside(world) => run_all(&world, filter),
    }
}

/// Only whoever can't have namespaces may do without: as root, something is missing.
fn without_namespaces(reason: &str, filter: &str) -> ExitCode {
    if nix::unistd::geteuid().is_root() {
        println!("FAILED, nothing was tested: hosts need namespaces, and {reason}");
        return ExitCode::FAILURE;
    }
    println!("SKIPPED, nothing was tested: hosts need namespaces, and {reason}");
    let cases = GROUPS.iter().flat_map(|group| group.cases);
    let skipped = cases.filter(|(name, _)| name.contains(filter)).count();
    println!("0 passed, 0 failed, {skipped} skipped");
    ExitCode::SUCCESS
}

fn run_all(world: &World, filter: &str) -> ExitCode {
    let mut failed = Vec::new();
    let mut passed = 0_u32;
    for group in &GROUPS {
        let mut cases = group.cases.iter().filter(|(name, _)| name.contains(filter)).peekable();
        if cases.peek().is_none() {
            continue;
        }
        let mut rig = None;
        for case in cases {
            if run_one(world, group, case, &mut rig) {
                passed += 1;
            } else {
                failed.push(case.0);
            }
        }
        let ended = catch_unwind(AssertUnwindSafe(|| drop(rig)));
        let left = rig::left_over();
        if ended.is_err() || !left.is_empty() {
            println!("FAILED processes outlive their lab: {left:?}");
            failed.push("left-over");
        }
    }
    println!("{passed} passed, {} failed", failed.len());
    if failed.is_empty() {
        return ExitCode::SUCCESS;
    }
    println!("failed: {}", failed.join(" "));
    ExitCode::FAILURE
}

/// Runs a case and returns whether it passed. One that fails takes the system with it.
fn run_one(world: &World, group: &Group, (name, case): &Case, rig: &mut Option<Rig>) -> bool {
    let begun = Instant::now();
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let rig = rig.get_or_insert_with(|| (group.build)(world));
        case(rig);
    }));
    let took = begun.elapsed().as_millis();
    match outcome {
        Ok(()) => println!("ok {name} ({took} ms)"),
        Err(panic) => {
            println!("FAILED {name} ({took} ms): {}", message(panic.as_ref()));
            if let Some(rig) = rig.take() {
                rig.print_logs();
            }
            return false;
        }
    }
    true
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default()
}
