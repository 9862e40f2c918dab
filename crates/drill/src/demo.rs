//! The demo: the same service under the same load, first on one host, then on three regions.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use evenkeel_chaos::Chaos;
use evenkeel_chaos::journal::JournalError;
use evenkeel_lab::world::{Isolation, World};
use evenkeel_lab::{BuildError, Lab, LabOptions, PowerError, Storage, Wan};
use evenkeel_model::fault::FaultKind;
use evenkeel_model::system::System;
use hyper::StatusCode;

use crate::bench::Bench;
use crate::budgets::Overrides;
use crate::experiment::{Drill, DrillError, DrillOptions, Outages};
use crate::hands;
use crate::history::HistoryFile;
use crate::load::{LoadOptions, Page, Traffic};
use crate::network::run_in;
use crate::plan::{Only, Phases, Scope};
use crate::relay;
use crate::report::Report;
use crate::screen::Screen;
use crate::table::{commands, render, sentence, time};
use crate::targets::{Role, Selector};
use crate::verdict::Verdict;

/// Operations per second of all clients together.
const RATE: u32 = 240;
/// Clients in each region of a system with three.
const CLIENTS: usize = 4;
/// Time for the first good answer.
const FIRST_ANSWER_MAX: Duration = Duration::from_secs(60);
/// Time for the example service to list its profiles, which needs a leader of the store.
const PROFILES_MAX: Duration = Duration::from_secs(60);
/// Time for the user's own service to show that it is the example service.
const OWN_SERVICE_MAX: Duration = Duration::from_secs(10);
/// Time between two looks at a system that starts.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// The first act: the outage is longer than the patience of any client.
const FIRST_ACT: Phases =
    Phases { control: Duration::from_secs(2), hold: Duration::from_secs(5), ..Phases::QUICK };
/// Memory for each host's data.
const STORAGE_MAX: u64 = 256 << 20;

/// What to show and how.
#[derive(Debug, Clone)]
pub struct DemoOptions {
    /// The command that runs a host: program and arguments, in which `{system}`, `{host}` and
    /// `{data}` stand for the system file, the host's name and its data folder.
    pub node_command: Vec<OsString>,
    /// The command that runs the example service.
    pub profiles: Vec<String>,
    /// The user's own system in place of the two acts.
    pub own: Option<OwnSystem>,
    /// Whether the first act, on one host, is shown. Never with an own system.
    pub first_act: bool,
    /// Which experiments.
    pub scope: Scope,
    /// Only these of them.
    pub only: Option<Only>,
    /// How long the phases of an experiment last.
    pub phases: Phases,
    /// Limits in place of the standard ones.
    pub overrides: Overrides,
    /// Seed of every choice.
    pub seed: u64,
    /// Whether to end after the experiments.
    pub once: bool,
    /// Folder for `report.json` and `history.jsonl`; made when it does not exist.
    pub report: Option<PathBuf>,
    /// The command that repeats this run, without `--only` and `--seed`.
    pub command: String,
}

/// A system file of the user, read and checked.
#[derive(Debug, Clone)]
pub struct OwnSystem {
    /// Its text.
    pub text: String,
    /// What it declares.
    pub system: System,
}

/// Reports why the demo could not be shown.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// The lab could not be built.
    #[error("put the system on this machine")]
    Build(#[from] BuildError),
    /// A host could not be switched on.
    #[error(transparent)]
    Power(#[from] PowerError),
    /// The fault journal could not be opened.
    #[error("open the fault journal")]
    Journal(#[from] JournalError),
    /// A file could not be written.
    #[error("write `{0}`")]
    Write(PathBuf, #[source] io::Error),
    /// The built-in system does not parse.
    #[error("the built-in system file is not valid: {0}")]
    BuiltIn(String),
    /// The network of the clients could not be entered.
    #[error("enter the clients' network")]
    Clients(#[source] io::Error),
    /// Nothing answered.
    #[error(
        "no gateway gave a good answer within {} s; the hosts' logs say why, the last of `{host}`: {log}",
        FIRST_ANSWER_MAX.as_secs()
    )]
    NoAnswer {
        /// A host.
        host: String,
        /// The last lines of its log.
        log: String,
    },
    /// The built-in system answers, but not with profiles.
    #[error(
        "the example service did not list its profiles within {} s; its last answer: {last}",
        PROFILES_MAX.as_secs()
    )]
    NoProfiles {
        /// The last answer.
        last: String,
    },
    /// An experiment could not be made.
    #[error(transparent)]
    Drill(#[from] DrillError),
}

/// Shows the demo and returns the verdict on its experiments: of the second act, or of the own
/// system. Call with the world that [`evenkeel_lab::world::enter`] gave; its listeners let browsers
/// in.
///
/// # Errors
/// See [`DemoError`]. A broken promise is no error.
pub fn run(
    world: World,
    options: &DemoOptions,
    screen: &mut dyn Screen,
) -> Result<Verdict, DemoError> {
    let mut demo = Demo { work: work_folder(&world), world, options, screen };
    fs::create_dir_all(&demo.work).map_err(|error| DemoError::Write(demo.work.clone(), error))?;
    let outcome = demo.show();
    if let Err(error) = fs::remove_dir_all(&demo.work) {
        tracing::debug!(%error, "the demo's folder is still there");
    }
    outcome
}

/// Returns a folder that goes with the world, where there is one.
fn work_folder(world: &World) -> PathBuf {
    let parent = match world.isolation {
        Isolation::Root | Isolation::User => PathBuf::from("/dev/shm"),
        Isolation::None { .. } => std::env::temp_dir(),
    };
    parent.join(format!("evenkeel-demo-{}", std::process::id()))
}

struct Demo<'a> {
    world: World,
    work: PathBuf,
    options: &'a DemoOptions,
    screen: &'a mut dyn Screen,
}

impl Demo<'_> {
    fn show(&mut self) -> Result<Verdict, DemoError> {
        if let Isolation::None { reason } = &self.world.isolation {
            self.screen.line(&format!(
                "Hosts are loopback addresses here, so only processes can be struck: {reason}"
            ));
        }
        if let Some(OwnSystem { text, system }) = &self.options.own {
            self.screen.line(&format!("Your system `{}`, on this machine", system.name));
            return self.main_act(text, system);
        }
        if self.options.first_act {
            self.screen.line("First act: one host. Everything is well until it is not.");
            let (text, system) = self.built_in(include_str!("demo/one-host.toml"))?;
            self.first_act(&text, &system)?;
        }
        self.screen.line("Second act: three regions, five hosts, no single point of failure.");
        let (text, system) = self.built_in(include_str!("demo/three-regions.toml"))?;
        self.main_act(&text, &system)
    }

    fn built_in(&self, template: &str) -> Result<(String, System), DemoError> {
        let text = fill_in(template, &self.options.profiles, &self.world.isolation);
        let parsed = evenkeel_system_file::parse(&text).map_err(|diagnostics| {
            let first = diagnostics.first().map(|diagnostic| diagnostic.message.clone());
            DemoError::BuiltIn(first.unwrap_or_default())
        })?;
        Ok((text, parsed.system))
    }

    fn first_act(&mut self, text: &str, system: &System) -> Result<(), DemoError> {
        let bench = self.start(text, system)?;
        let traffic = self.find_traffic(&bench)?;
        let folder = self.options.report.as_deref();
        let options = DrillOptions {
            only: Some(Only {
                fault: FaultKind::Kill,
                selector: Some(Selector { role: Role::Host, place: None }),
            }),
            phases: FIRST_ACT,
            clients_per_region: 3 * CLIENTS,
            outages: Outages::Made,
            ..self.drill_options(&bench, traffic)
        };
        let history = create_history(folder, "history-first-act.jsonl")?;
        let report = Drill::new(&bench, options, self.screen, history).run()?;
        self.print_table(&report);
        if let Some(made) = report.made().next() {
            self.screen.line(&format!(
                "One host is a single point of failure: for {} nobody was answered.\n",
                time(made.measured.gap)
            ));
        }
        Ok(())
    }

    /// The second act, or the user's own system.
    fn main_act(&mut self, text: &str, system: &System) -> Result<Verdict, DemoError> {
        let bench = self.start(text, system)?;
        for trip in bench.lab.measure_round_trips() {
            let measured = trip.measured.map_or_else(|| "no answer".to_owned(), time);
            self.screen.line(&format!("  {} – {}: round trip {measured}", trip.from, trip.to));
        }
        self.open_to_browsers(&bench)?;
        let traffic = self.find_traffic(&bench)?;
        let folder = self.options.report.as_deref();
        let history = create_history(folder, "history.jsonl")?;
        let options = self.drill_options(&bench, traffic.clone());
        let report = Drill::new(&bench, options, self.screen, history).run()?;
        self.print_table(&report);
        self.screen.line(&commands(&report, &self.options.command, self.options.seed));
        self.screen.line(&format!("{}\n", sentence(&report)));
        if let Some(folder) = folder {
            report
                .write(folder)
                .map_err(|error| DemoError::Write(folder.join("report.json"), error))?;
            self.screen
                .line(&format!("Written: report.json and history.jsonl in {}", folder.display()));
        }
        if !self.options.once {
            self.stay_up(&bench, traffic)?;
        }
        Ok(report.verdict())
    }

    /// Puts a system on this machine and waits for its first good answer.
    fn start(&mut self, text: &str, system: &System) -> Result<Bench, DemoError> {
        let file = self.work.join(format!("{}.toml", system.name));
        fs::write(&file, text).map_err(|error| DemoError::Write(file.clone(), error))?;
        let options = LabOptions {
            command: node_command(&self.options.node_command, &file),
            storage: Storage::Memory { bytes_max: STORAGE_MAX },
            wan: Wan::continental(&system.regions),
            seed: self.options.seed,
        };
        let lab = Lab::build(&self.world, system, options)?;
        let (chaos, _) = Chaos::open(&self.work.join("chaos"))?;
        let begun = Instant::now();
        lab.power_on_all()?;
        let bench = Bench { lab, chaos };
        while !answers(&bench)? {
            if begun.elapsed() > FIRST_ANSWER_MAX {
                return Err(no_answer(&bench));
            }
            self.screen
                .live(&format!("waits for the first answer, {} s", begun.elapsed().as_secs()));
            self.screen.key(LOOK_EVERY);
        }
        let (hosts, took) = (system.hosts.len(), time(begun.elapsed()));
        let noun = if hosts == 1 { "host" } else { "hosts" };
        self.screen.line(&format!("  {hosts} {noun} on, first answer 200 OK after {took}"));
        Ok(bench)
    }

    /// Finds out what clients can ask for. The built-in systems run the example service, so that
    /// anything else is an error there; of the user's own service nothing is known, and it may only
    /// be read.
    fn find_traffic(&mut self, bench: &Bench) -> Result<Traffic, DemoError> {
        let is_own = self.options.own.is_some();
        let patience = if is_own { OWN_SERVICE_MAX } else { PROFILES_MAX };
        let begun = Instant::now();
        loop {
            let answer = ask(bench, "/profiles?limit=1")?;
            let answer = answer.as_ref().map(|(status, body)| (*status, body.as_slice()));
            let last = match recognise(answer) {
                Service::Profiles => return Ok(Traffic::Profiles),
                Service::Other if is_own => return self.only_read(bench),
                Service::Other => "the answer is none of the example service".to_owned(),
                Service::NotReady(why) => why,
            };
            if begun.elapsed() >= patience {
                if is_own {
                    return self.only_read(bench);
                }
                return Err(DemoError::NoProfiles { last });
            }
            self.screen.live(&format!("waits for the store: {last}"));
            self.screen.key(LOOK_EVERY);
        }
    }

    /// Reads the first path that leads anywhere, and says plainly what that leaves out.
    fn only_read(&mut self, bench: &Bench) -> Result<Traffic, DemoError> {
        let gateways = bench.lab.system().gateways.values();
        let mut paths = gateways.flat_map(|gateway| &gateway.routes).map(|route| &route.path);
        let path = paths.next().map_or_else(|| "/".to_owned(), Clone::clone);
        let exists = ask(bench, &path)?.is_some_and(|(status, _)| status.is_success());
        self.screen.line(&format!(
            "  ONLY READS of `{path}` are made: the service does not keep profiles as the example \
             does, so whether writes are lost is NOT checked"
        ));
        Ok(Traffic::Page(Page { path, exists }))
    }

    fn drill_options(&self, bench: &Bench, traffic: Traffic) -> DrillOptions {
        let regions = bench.lab.system().regions.len().max(1);
        DrillOptions {
            scope: self.options.scope,
            only: self.options.only.clone(),
            phases: self.options.phases,
            overrides: self.options.overrides,
            traffic,
            clients_per_region: (3 * CLIENTS).div_ceil(regions),
            rate: RATE,
            seed: self.options.seed,
            outages: Outages::Skipped,
        }
    }

    fn print_table(&mut self, report: &Report) {
        let table = render(report, self.screen.colours());
        self.screen.line(&format!("\n{table}"));
    }

    fn open_to_browsers(&mut self, bench: &Bench) -> Result<(), DemoError> {
        let Some(station) = bench.stations().into_iter().next() else { return Ok(()) };
        for listener in std::mem::take(&mut self.world.listeners) {
            let address = listener.local_addr().map_err(DemoError::Clients)?;
            let addresses = station.near.iter().chain(&station.far).copied().collect();
            let enter = station.enter.clone();
            relay::start(listener, enter, addresses).map_err(DemoError::Clients)?;
            self.screen.line(&format!("  open http://{address}/ in your browser and watch"));
        }
        Ok(())
    }

    fn stay_up(&mut self, bench: &Bench, traffic: Traffic) -> Result<(), DemoError> {
        self.screen.line(
            "It stays up. Break it by hand: k a process, h a host, z a zone, r a region; p mends, q ends.",
        );
        let options = LoadOptions {
            traffic,
            prefix: "live".to_owned(),
            clients_per_station: (3 * CLIENTS).div_ceil(bench.lab.system().regions.len().max(1)),
            rate: RATE,
            seed: self.options.seed,
            keep: false,
        };
        self.screen.begin_keys();
        Ok(hands::play(bench, &options, self.screen)?)
    }
}

/// Puts the example service into a built-in system file. Without networks of their own, hosts get
/// loopback addresses.
fn fill_in(template: &str, profiles: &[String], isolation: &Isolation) -> String {
    // TOML's basic strings escape as JSON's do.
    let words = profiles.iter().map(|word| serde_json::Value::from(word.as_str()).to_string());
    let text = template.replace("@PROFILES@", &words.collect::<Vec<_>>().join(", "));
    match isolation {
        Isolation::Root | Isolation::User => text,
        Isolation::None { .. } => text.replace("\"10.", "\"127."),
    }
}

fn node_command(words: &[OsString], file: &Path) -> Vec<OsString> {
    let fill = |word: &OsString| match word.to_str() {
        Some("{system}") => file.into(),
        _ => word.clone(),
    };
    words.iter().map(fill).collect()
}

fn create_history(folder: Option<&Path>, name: &str) -> Result<Option<HistoryFile>, DemoError> {
    let Some(folder) = folder else { return Ok(None) };
    let path = folder.join(name);
    let created = fs::create_dir_all(folder).and_then(|()| HistoryFile::create(&path));
    created.map(Some).map_err(|error| DemoError::Write(path, error))
}

/// Asks the first gateway that the first clients know.
fn ask(bench: &Bench, path: &str) -> Result<Option<(StatusCode, Vec<u8>)>, DemoError> {
    let Some(station) = bench.stations().into_iter().next() else { return Ok(None) };
    let Some(address) = station.near.first().copied() else { return Ok(None) };
    let path = path.to_owned();
    let answer = run_in(&station.enter, None, async move |client| {
        client.ask(address, path, Duration::from_secs(1)).await
    });
    let answer = answer.map_err(DemoError::Clients)?;
    Ok(answer.map(|answer| (answer.status, answer.body.to_vec())))
}

/// The first page of the example service, or whatever else the route leads to.
fn answers(bench: &Bench) -> Result<bool, DemoError> {
    Ok(ask(bench, "/")?.is_some_and(|(status, _)| status.is_success()))
}

/// What the service says when it is asked for its profiles.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Service {
    /// It keeps profiles.
    Profiles,
    /// Nobody knows: no answer, or one that it cannot say now. In words.
    NotReady(String),
    /// It is another one.
    Other,
}

/// Judges the answer to `GET /profiles`, which a store without a leader cannot give: the example
/// service then says so in JSON.
fn recognise(answer: Option<(StatusCode, &[u8])>) -> Service {
    let Some((status, body)) = answer else {
        return Service::NotReady("no answer".to_owned());
    };
    let json: Option<serde_json::Value> = serde_json::from_slice(body).ok();
    let has = |field| json.as_ref().is_some_and(|json| json.get(field).is_some());
    if status.is_success() && has("profiles") {
        return Service::Profiles;
    }
    if status.is_server_error() || has("error") {
        return Service::NotReady(format!("{status}: {}", String::from_utf8_lossy(body).trim()));
    }
    Service::Other
}

fn no_answer(bench: &Bench) -> DemoError {
    let Some(host) = bench.lab.system().hosts.keys().next() else {
        return DemoError::NoAnswer { host: String::new(), log: String::new() };
    };
    let log = fs::read_to_string(bench.lab.log(host)).unwrap_or_default();
    let last: Vec<&str> = log.lines().rev().take(5).collect();
    let log = last.into_iter().rev().collect::<Vec<_>>().join("\n");
    DemoError::NoAnswer { host: host.to_string(), log }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(template: &str, hosts: usize, isolation: &Isolation) {
        let text =
            fill_in(template, &["/opt/a \"b\"/profiles".to_owned(), "--x".to_owned()], isolation);
        let parsed = evenkeel_system_file::parse(&text).unwrap();
        assert_eq!(parsed.warnings, Vec::new());
        assert_eq!(parsed.system.hosts.len(), hosts);
        let assessment = evenkeel_audit::assessment::assess(&parsed.system);
        assert!(assessment.goal_met, "{assessment:?}");
    }

    #[test]
    fn the_example_service_is_recognised() {
        let check = |status: u16, body: &str, expected: Option<Service>| {
            let answer = (StatusCode::from_u16(status).unwrap(), body.as_bytes());
            let found = recognise(Some(answer));
            let is_waiting = matches!(found, Service::NotReady(_));
            assert!(expected.as_ref().map_or(is_waiting, |it| *it == found), "{body}: {found:?}");
        };
        check(200, r#"{"profiles":[],"more":false}"#, Some(Service::Profiles));
        check(503, r#"{"error":{"code":"no-quorum"}}"#, None);
        check(404, r#"{"error":{"code":"no-route"}}"#, None);
        // A gateway without a ready replica, whatever it says.
        check(502, "<html>", None);
        check(200, "<html>", Some(Service::Other));
        check(404, "not here", Some(Service::Other));
        assert!(matches!(recognise(None), Service::NotReady(_)));
    }

    #[test]
    fn the_built_in_systems_are_valid_and_keep_their_promise() {
        let none = Isolation::None { reason: String::new() };
        for isolation in [Isolation::Root, none] {
            check(include_str!("demo/one-host.toml"), 1, &isolation);
            check(include_str!("demo/three-regions.toml"), 5, &isolation);
        }
    }
}
