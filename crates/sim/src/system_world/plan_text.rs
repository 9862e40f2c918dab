//! A plan as the bytes of the store: one line for its numbers, one for each replica, one for each
//! release, one for each place that is avoided. The system file that it refers to is known to all.

use std::fmt::Write as _;

use evenkeel_control::declaration::Declaration;
use evenkeel_control::plan::{Plan, Release};
use evenkeel_model::instance::{Instance, InstanceId, InstancePhase};
use evenkeel_model::name::{HostName, ServiceName};

/// Writes a plan.
pub(super) fn encode(plan: &Plan) -> String {
    let Plan { number, parent, next_serial, revision, .. } = plan;
    let mut text = format!("{number} {parent} {next_serial} {revision}\n");
    for (service, Release { current, .. }) in &plan.releases {
        let written = writeln!(text, "= {service} {current} 0");
        debug_assert!(written.is_ok(), "writing to a string cannot fail");
    }
    for Instance { id, host, port, phase, .. } in &plan.instances {
        let phase = if *phase == InstancePhase::Draining { '-' } else { '+' };
        let written = writeln!(text, "{phase} {id} {host} {port}");
        debug_assert!(written.is_ok(), "writing to a string cannot fail");
    }
    for ((service, host), stand_in) in &plan.avoided {
        let written = writeln!(text, "! {service} {host} {stand_in}");
        debug_assert!(written.is_ok(), "writing to a string cannot fail");
    }
    text
}

/// Reads a plan, all of which refers to one known system file.
pub(super) fn decode(bytes: &[u8], known: &Declaration) -> Option<Plan> {
    let text = std::str::from_utf8(bytes).ok()?;
    let mut lines = text.lines();
    let mut numbers = lines.next()?.split(' ').map(|word| word.parse::<u64>().ok());
    let mut plan = Plan {
        number: numbers.next()??,
        parent: numbers.next()??,
        next_serial: numbers.next()??,
        revision: numbers.next()??,
        declarations: [(known.revision, known.clone())].into(),
        ..Plan::empty()
    };
    for line in lines {
        let mut words = line.split(' ');
        let (kind, first, second, third) =
            (words.next()?, words.next()?, words.next()?, words.next()?);
        if kind == "=" {
            let release = Release { current: second.parse().ok()?, next: None };
            plan.releases.insert(ServiceName::parse(first).ok()?, release);
            continue;
        }
        if kind == "!" {
            let place = (ServiceName::parse(first).ok()?, HostName::parse(second).ok()?);
            plan.avoided.insert(place, InstanceId::parse(third).ok()?);
            continue;
        }
        plan.instances.push(Instance {
            id: InstanceId::parse(first).ok()?,
            host: HostName::parse(second).ok()?,
            port: third.parse().ok()?,
            phase: if kind == "-" { InstancePhase::Draining } else { InstancePhase::Serving },
            revision: known.revision,
        });
    }
    Some(plan)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use evenkeel_model::random::Rng;

    use super::*;

    #[test]
    fn is_read_as_it_was_written() {
        let text = "7 5 9 1\n= web 1 0\n+ web-3 a1 20003\n- web-4 b1 20004\n! web c1 web-3\n";
        let system = super::super::systems::draw(None, &mut Rng::from_seed(1));
        let known = Declaration { revision: 1, text: "".into(), system: Arc::new(system) };
        let plan = decode(text.as_bytes(), &known).unwrap();
        assert_eq!((plan.number, plan.parent, plan.next_serial), (7, 5, 9));
        assert_eq!(plan.instances.len(), 2);
        assert_eq!(encode(&plan), text);
        assert_eq!(decode(b"7 5\n", &known), None);
    }
}
