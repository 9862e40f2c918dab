//! `evenkeel demo` and `evenkeel drill`: a whole system on this machine, broken part by part.

use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use evenkeel_audit::assessment::assess;
use evenkeel_drill::budgets::Overrides;
use evenkeel_drill::demo::{self, DemoOptions, OwnSystem};
use evenkeel_drill::plan::{Only, Phases, Scope};
use evenkeel_drill::report;
use evenkeel_drill::requirements::{self, MissingProgram};
use evenkeel_drill::screen;
use evenkeel_drill::verdict::Verdict;
use evenkeel_lab::world::{self, Entered};
use evenkeel_model::place::SurvivalGoal;
use evenkeel_telemetry::logs::{self, LogFormat, Place};

use crate::cli::{DemoArguments, DrillArguments};
use crate::commands::{input, packages};
use crate::exit::GOAL_NOT_MET;
use crate::failure::{Failure, Outcome};
use crate::show;

/// Ports tried for the browser, from the wanted one on.
const PORTS_TRIED: u16 = 32;

/// Exit code of a command that Ctrl-C ended.
const INTERRUPTED: u8 = 130;

/// Every lab has its own, which ends with it.
const PRIVATE: &str = "/dev/shm";

/// What the two commands differ in.
struct Course {
    file: Option<PathBuf>,
    first_act: bool,
    scope: Scope,
    phases: Phases,
    only: Option<Only>,
    overrides: Overrides,
    seed: u64,
    once: bool,
    report: Option<PathBuf>,
    /// For the browser; a drill opens none.
    port: Option<u16>,
    command: String,
}

/// Runs the demo. Exit code 3 when a promise was broken.
///
/// # Errors
/// When the system can't be put on this machine.
pub(crate) fn demo(arguments: &DemoArguments) -> Outcome {
    run(Course {
        file: arguments.file.clone(),
        first_act: arguments.only.is_none(),
        scope: Scope::Demo,
        phases: if arguments.quick { Phases::QUICK } else { Phases::DEMO },
        only: arguments.only.clone(),
        overrides: Overrides { gap_max: arguments.gap_max },
        seed: arguments.seed,
        once: arguments.once,
        report: arguments.report.clone(),
        port: Some(arguments.port),
        command: Words {
            name: "demo --once",
            file: arguments.file.as_deref(),
            length: arguments.quick.then_some("quick"),
            gap_max: arguments.gap_max,
        }
        .to_string(),
    })
}

/// Runs the drill. Exit code 3 when a promise was broken.
///
/// # Errors
/// When the system can't be put on this machine.
pub(crate) fn drill(arguments: &DrillArguments) -> Outcome {
    let (phases, length) = match (arguments.standard, arguments.quick) {
        (true, _) => (Phases::STANDARD, Some("standard")),
        (false, true) => (Phases::QUICK, Some("quick")),
        (false, false) => (Phases::DEMO, None),
    };
    run(Course {
        file: arguments.file.clone(),
        first_act: false,
        scope: if arguments.standard { Scope::Standard } else { Scope::Demo },
        phases,
        only: arguments.only.clone(),
        overrides: Overrides { gap_max: arguments.gap_max },
        seed: arguments.seed,
        once: true,
        report: arguments.report.clone(),
        port: None,
        command: Words {
            name: "drill",
            file: arguments.file.as_deref(),
            length,
            gap_max: arguments.gap_max,
        }
        .to_string(),
    })
}

/// The command that repeats a run, without seed and choice of experiments.
struct Words<'a> {
    name: &'static str,
    file: Option<&'a Path>,
    /// The flag that says how long the phases are.
    length: Option<&'static str>,
    gap_max: Option<Duration>,
}

impl fmt::Display for Words<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "evenkeel {}", self.name)?;
        if let Some(file) = self.file {
            write!(formatter, " {}", file.display())?;
        }
        if let Some(length) = self.length {
            write!(formatter, " --{length}")?;
        }
        if let Some(gap_max) = self.gap_max {
            write!(formatter, " --gap-max {}ms", gap_max.as_millis())?;
        }
        Ok(())
    }
}

fn run(course: Course) -> Outcome {
    let own = course.file.as_deref().map(read_own).transpose()?;
    let outside = !world::is_inside();
    if outside {
        check_programs(&course, own.as_ref())?;
        if let Some(folder) = &course.report {
            prepare_report(folder)?;
        }
    }
    let listeners = match course.port {
        Some(port) if outside => vec![listen(port)?],
        Some(_) | None => Vec::new(),
    };
    let world = match world::enter(listeners).context("make a world for the lab")? {
        Entered::Left(code) => {
            if code == ExitCode::from(INTERRUPTED) {
                show::say("\nended early; nothing of it is left");
            }
            return Ok(code);
        }
        Entered::Inside(world) => world,
    };
    logs::start(Place::default(), LogFormat::Text);
    let program = std::env::current_exe().context("find this program")?;
    let program_text = program.to_str().context("the path of this program is not UTF-8")?;
    let options = DemoOptions {
        node_command: node_command(&program),
        profiles: vec![program_text.to_owned(), "profiles".to_owned()],
        first_act: course.first_act && own.is_none(),
        own,
        scope: course.scope,
        only: course.only,
        phases: course.phases,
        overrides: course.overrides,
        seed: course.seed,
        once: course.once,
        report: course.report,
        command: course.command,
    };
    let mut screen = screen::of_this_process();
    let verdict = demo::run(world, &options, screen.as_mut()).map_err(anyhow::Error::new)?;
    Ok(match verdict {
        Verdict::Pass | Verdict::Inconclusive => ExitCode::SUCCESS,
        Verdict::Invalid | Verdict::Fail => ExitCode::from(GOAL_NOT_MET),
    })
}

/// Reads the user's own file. What is wrong with it is shown once, outside.
fn read_own(file: &Path) -> Result<OwnSystem, Failure> {
    let text = input::read(file)?;
    let parsed = input::parse(file, &text)?;
    if !world::is_inside() {
        let assessment = assess(&parsed.system);
        let findings = assessment.findings.iter();
        let shown: Vec<_> =
            findings.map(|finding| finding.to_diagnostic(|path| parsed.spans.find(path))).collect();
        show::diagnostics(&shown, file, &text);
    }
    Ok(OwnSystem { text, system: parsed.system })
}

/// Finds out before anything is started whether this machine has what the experiments need.
///
/// An ordinary user may not be able to install it, and where namespaces are forbidden too it would
/// be of no use: the experiments that need it are then reported as not made.
fn check_programs(course: &Course, own: Option<&OwnSystem>) -> Result<(), Failure> {
    let goal = own.map_or(SurvivalGoal::Region, |own| own.system.goal);
    let Some(missing) = requirements::missing(course.scope, course.only.as_ref(), goal) else {
        return Ok(());
    };
    let MissingProgram { program, package, can_install } = missing;
    let what = format!("cutting hosts, zones and regions off needs the program `{program}`");
    let install = format!("apt-get install {package}");
    if !can_install {
        show::say(&format!("{what}: ask for `{install}`; those experiments are not made without"));
        return Ok(());
    }
    if packages::can_install() {
        return packages::install(package);
    }
    Err(Failure::new(format!(
        "{what}: install it with `{install}`, or choose others, such as `--only kill`; nothing was \
         started"
    )))
}

/// Finds out before anything is started whether the report can be written, and removes that of an
/// earlier run.
fn prepare_report(folder: &Path) -> Result<(), Failure> {
    if std::path::absolute(folder).is_ok_and(|folder| folder.starts_with(PRIVATE)) {
        let text = format!("a report in `{PRIVATE}` would go with the hosts, whose memory this is");
        return Err(Failure::bad_input(anyhow::Error::msg(text))
            .with_help("give another folder with --report"));
    }
    let probe = folder.join(".evenkeel");
    let written = fs::create_dir_all(folder).and_then(|()| fs::write(&probe, ""));
    let removed = written.and_then(|()| fs::remove_file(&probe));
    removed.and_then(|()| report::remove_earlier(folder)).map_err(|error| {
        let text = format!("can't write into the report's folder `{}`", folder.display());
        Failure::bad_input(anyhow::Error::new(error).context(text))
            .with_help("give another folder with --report")
    })
}

/// Opens the port for the user's browser, or one of the next when it is taken.
fn listen(port: u16) -> Result<TcpListener> {
    let ports = port..=port.saturating_add(PORTS_TRIED);
    let free = ports.into_iter().find_map(|port| TcpListener::bind(("127.0.0.1", port)).ok());
    match free {
        Some(listener) => Ok(listener),
        None => {
            TcpListener::bind(("127.0.0.1", 0)).context("open a port on 127.0.0.1 for your browser")
        }
    }
}

fn node_command(program: &Path) -> Vec<OsString> {
    let words = ["node", "--system", "{system}", "--host", "{host}", "--data", "{data}"];
    let words = words.iter().map(OsString::from);
    std::iter::once(program.into()).chain(words).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_repeated_with_all_that_changes_its_verdict() {
        let file = Path::new("shop.toml");
        let gap_max = Some(Duration::from_millis(1500));
        let words = Words { name: "drill", file: Some(file), length: Some("quick"), gap_max };
        assert_eq!(words.to_string(), "evenkeel drill shop.toml --quick --gap-max 1500ms");
        let words = Words { name: "demo --once", file: None, length: None, gap_max: None };
        assert_eq!(words.to_string(), "evenkeel demo --once");
    }
}
