//! Breaking things by hand: the keys of the demo while it stays up.

use std::time::Duration;

use evenkeel_model::fault::{FaultKind, Target};
use evenkeel_model::random::Rng;

use crate::bench::Bench;
use crate::experiment::{DrillError, live_line};
use crate::load::{Load, LoadOptions};
use crate::screen::{Key, Screen};
use crate::strike::{Strike, strike};
use crate::targets::{Role, Selector, resolve};
use crate::watch::Watch;

/// Time between two live lines.
const TICK: Duration = Duration::from_millis(200);
/// A fault made by hand ends by itself after this, if nobody mends it.
const HOLD: Duration = Duration::from_mins(9);

/// Keeps the system under load and breaks what a person asks for, until that person leaves.
pub(crate) fn play(
    bench: &Bench,
    options: &LoadOptions,
    screen: &mut dyn Screen,
) -> Result<(), DrillError> {
    let watch = Watch::start(bench.enter(&bench.lookout(None)), bench.apis());
    let watch = watch.map_err(DrillError::Load)?;
    let load = Load::start(&bench.stations(), options, None).map_err(DrillError::Load)?;
    let live = load.live();
    let mut rng = Rng::from_seed(options.seed);
    let mut broken: Vec<(Target, Strike)> = Vec::new();
    loop {
        let what = match broken.len() {
            0 => "all is whole".to_owned(),
            count => format!("{count} broken by hand"),
        };
        screen.live(&live_line(&what, &live));
        let (fault, role) = match screen.key(TICK) {
            None => continue,
            Some(Key::Process) => (FaultKind::Kill, Role::Replica),
            Some(Key::Host) => (FaultKind::Kill, Role::Host),
            Some(Key::Zone) => (FaultKind::Isolate, Role::Zone),
            Some(Key::Region) => (FaultKind::Isolate, Role::Region),
            Some(Key::Heal) => {
                heal(bench, &mut broken, screen);
                continue;
            }
            Some(Key::Quit) => break,
        };
        let Some(status) = watch.seen().leader_view else {
            screen.line("no leader answers now: nothing was broken");
            continue;
        };
        let selector = Selector { role, place: None };
        match resolve(&selector, bench.lab.system(), &status, rng.next_u64()) {
            Ok(target) => break_it(bench, fault, target, &mut broken, screen),
            Err(error) => screen.line(&error.to_string()),
        }
    }
    heal(bench, &mut broken, screen);
    load.stop().map_err(DrillError::Load)?;
    Ok(())
}

fn break_it(
    bench: &Bench,
    fault: FaultKind,
    target: Target,
    broken: &mut Vec<(Target, Strike)>,
    screen: &mut dyn Screen,
) {
    if let Err(reason) = bench.lab.can(fault, &target) {
        screen.line(&format!("{fault} {target}: not possible here, {reason}"));
        return;
    }
    match strike(bench, fault, &target, HOLD) {
        Ok(struck) => {
            let seen = struck.evidence().unwrap_or("no effect was seen");
            screen.line(&format!("{fault} {target}: {seen}"));
            // A killed process is started again by the system: there is nothing to mend.
            if fault != FaultKind::Kill || matches!(target, Target::Host(_)) {
                broken.push((target, struck));
            }
        }
        Err(error) => screen.line(&format!("{fault} {target}: {error}")),
    }
}

fn heal(bench: &Bench, broken: &mut Vec<(Target, Strike)>, screen: &mut dyn Screen) {
    for (target, struck) in broken.drain(..) {
        match struck.heal(bench, &target) {
            Ok(()) => screen.line(&format!("{target} is whole again")),
            Err(reason) => screen.line(&format!("{target} could not be mended: {reason}")),
        }
    }
}
