//! The last accepted plan on this host's disk, so that it starts all it ran with no leader in reach.
//!
//! The file holds one line with format, system and checksum, then the plan as JSON. The copy before
//! it is kept beside it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use evenkeel_control::plan::Plan;
use evenkeel_files::{Readers, replace};
use evenkeel_model::name::SystemName;

use crate::wire::{FORMAT, PlanWire};

/// Replaces the plan at `path`, keeping the present one as `plan.previous.json`.
///
/// # Errors
/// When the disk refuses; the present plan then still stands.
pub fn write(path: &Path, system: &SystemName, plan: &Plan) -> io::Result<()> {
    let body = serde_json::to_string(&PlanWire::from(plan)).map_err(io::Error::other)?;
    let text = format!(
        "evenkeel-plan {FORMAT} {system} {:08x}\n{body}\n",
        crc32c::crc32c(body.as_bytes())
    );
    // Damage must not spread: only a plan that can be read becomes the previous one.
    if parse(path, system).is_some() {
        fs::copy(path, previous(path))?;
    }
    replace(path, text.as_bytes(), Readers::Usual)
}

/// Reads the plan at `path`, or the one before it when that is damaged. `None` when the host never
/// had one, or both are damaged: the host then waits for a leader's.
#[must_use]
pub fn read(path: &Path, system: &SystemName) -> Option<Plan> {
    if let Some(plan) = parse(path, system) {
        return Some(plan);
    }
    let before = parse(&previous(path), system);
    if path.exists() {
        let number = before.as_ref().map_or(0, |plan| plan.number);
        tracing::warn!(path = %path.display(), number, "the plan is damaged; the one before is used");
    }
    before
}

fn previous(path: &Path) -> PathBuf {
    path.with_extension("previous.json")
}

fn parse(path: &Path, system: &SystemName) -> Option<Plan> {
    let text = fs::read_to_string(path).ok()?;
    let (head, body) = text.split_once('\n')?;
    let body = body.trim_end_matches('\n');
    let expected =
        format!("evenkeel-plan {FORMAT} {system} {:08x}", crc32c::crc32c(body.as_bytes()));
    if head != expected {
        return None;
    }
    let wire: PlanWire = serde_json::from_str(body).ok()?;
    Plan::try_from(wire).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::tests::plan;

    #[test]
    fn a_damaged_plan_falls_back_to_the_one_before() {
        let folder = std::env::temp_dir().join(format!("evenkeel-plan-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join("plan.json");
        let system = SystemName::parse("shop").unwrap();
        assert_eq!(read(&path, &system), None);
        let first = plan();
        let second = Plan { number: 8, parent: 7, ..plan() };
        write(&path, &system, &first).unwrap();
        write(&path, &system, &second).unwrap();
        assert_eq!(read(&path, &system), Some(second));
        assert_eq!(read(&path, &SystemName::parse("blog").unwrap()), None);
        let mut bytes = fs::read(&path).unwrap();
        let last = bytes.len() - 5;
        bytes[last] ^= 1;
        fs::write(&path, &bytes).unwrap();
        assert_eq!(read(&path, &system), Some(first));
        fs::remove_dir_all(&folder).unwrap();
    }
}
