//! Scripts with their transcripts in `tests/golden`: lines that begin with `>` are the script,
//! what follows each is what the balancer did. Blank lines and `#` are comment.
//!
//! ```text
//! table N ID@HOST…       a table of this generation; `~` before an ID: draining
//! wait TIME              time passes
//! passed|failed|refused|silent|other|own ID…     a health check ends (own: passed, named)
//! choose COUNT [without ID…]      requests begin
//! request COUNT          requests begin and end, each with status 200
//! answered ID STATUS [COUNT], unanswered ID [COUNT]    how requests went
//! misnamed ID            a request got 200 with another name
//! end ID [COUNT]         requests end
//! last ID [COUNT]        requests become streams
//! leave ID [COUNT]       streams end
//! state                  what the balancer knows
//! ```

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use evenkeel_gateway_core::balancer::{Action, Balancer, EndpointKey, Event};
use evenkeel_gateway_core::choice::{Choice, Patience};
use evenkeel_gateway_core::health::{Finding, Identity, Outcome};
use evenkeel_gateway_core::policy::Policy;
use evenkeel_gateway_core::pool::Tier;
use evenkeel_model::instance::InstancePhase;
use evenkeel_model::random::Rng;
use evenkeel_model::time::Timestamp;
use expect_test::expect_file;

use crate::world::{endpoint, table, web};

struct Player {
    balancer: Option<Balancer>,
    now: Timestamp,
    keys: BTreeMap<String, EndpointKey>,
    out: String,
}

fn play(script: &str) -> String {
    let mut player =
        Player { balancer: None, now: Timestamp::ZERO, keys: BTreeMap::new(), out: String::new() };
    for line in script.lines() {
        if line.is_empty() || line.starts_with('#') {
            player.say(line);
        } else if let Some(command) = line.strip_prefix("> ") {
            player.say(line);
            player.obey(command);
        }
    }
    player.out
}

impl Player {
    fn say(&mut self, text: &str) {
        writeln!(self.out, "{text}").unwrap();
    }

    fn obey(&mut self, command: &str) {
        let words: Vec<&str> = command.split(' ').collect();
        match words.as_slice() {
            ["table", generation, endpoints @ ..] => self.table(generation, endpoints),
            ["wait", time] => self.wait(time),
            ["choose", count] => self.choose(count, &[]),
            ["choose", count, "without", tried @ ..] => self.choose(count, tried),
            ["request", count] => self.request(count),
            ["answered", id, status] => self.judge(id, Self::answer(status), "1"),
            ["answered", id, status, count] => self.judge(id, Self::answer(status), count),
            ["unanswered", id] => self.judge(id, Outcome::Unanswered, "1"),
            ["unanswered", id, count] => self.judge(id, Outcome::Unanswered, count),
            ["misnamed", id] => {
                let identity = Identity::Other;
                self.judge(id, Outcome::Answered { status: 200, identity }, "1");
            }
            ["end", id] => self.end(id, "1"),
            ["end", id, count] => self.end(id, count),
            ["last", id, count] => self.last(id, count),
            ["leave", id, count] => self.leave(id, count),
            ["state"] => self.state(),
            [finding, ids @ ..] => self.check(finding, ids),
            [] => {}
        }
        self.act();
    }

    fn answer(status: &str) -> Outcome {
        Outcome::Answered { status: status.parse().unwrap(), identity: Identity::Unsaid }
    }

    fn balancer(&mut self) -> &mut Balancer {
        self.balancer.as_mut().unwrap()
    }

    fn key(&self, id: &str) -> EndpointKey {
        *self.keys.get(id).unwrap()
    }

    fn table(&mut self, generation: &str, endpoints: &[&str]) {
        let endpoints = endpoints.iter().map(|text| {
            let (id, host) = text.split_once('@').unwrap();
            let (id, phase) = match id.strip_prefix('~') {
                Some(id) => (id, InstancePhase::Draining),
                None => (id, InstancePhase::Serving),
            };
            endpoint(id.trim_start_matches("web-").parse().unwrap(), host, phase)
        });
        let table = table(generation.parse().unwrap(), endpoints.collect());
        let now = self.now;
        match &mut self.balancer {
            None => {
                let rng = Rng::from_seed(1);
                self.balancer = Some(Balancer::new(Policy::STANDARD, table, rng, now).unwrap());
            }
            Some(balancer) => {
                if let Err(error) = balancer.apply_table(table, now) {
                    self.say(&format!("  refused: {error}"));
                }
            }
        }
    }

    /// Lets time pass from one timeout to the next.
    fn wait(&mut self, time: &str) {
        let (number, unit) = time.split_at(time.find(|c: char| !c.is_ascii_digit()).unwrap());
        let number = number.parse().unwrap();
        let time =
            if unit == "ms" { Duration::from_millis(number) } else { Duration::from_secs(number) };
        let end = self.now + time;
        self.act();
        let before = std::mem::take(&mut self.out);
        while let Some(at) = self.balancer().poll_timeout().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            let now = self.now;
            self.balancer().handle_timeout(now);
            self.act();
        }
        self.now = end;
        self.balancer().handle_timeout(end);
        self.act();
        let during = std::mem::replace(&mut self.out, before);
        self.say_shortly(&during);
    }

    /// Says how often endpoints were asked where saying each time would be tiresome.
    fn say_shortly(&mut self, lines: &str) {
        let (asks, others): (Vec<&str>, Vec<&str>) =
            lines.lines().partition(|line| line.contains(" ask "));
        if asks.len() <= 6 {
            self.out.push_str(lines);
            return;
        }
        others.into_iter().for_each(|line| self.say(line));
        let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
        for line in asks {
            let id = line.split(" ask ").last().and_then(|rest| rest.split(',').next());
            *counts.entry(id.unwrap()).or_default() += 1;
        }
        let counts: Vec<String> =
            counts.into_iter().map(|(id, count)| format!("{id} {count} x")).collect();
        self.say(&format!("  meanwhile asked {}", counts.join(", ")));
    }

    fn act(&mut self) {
        let at = Duration::from_nanos(self.now.as_nanos()).as_secs_f64();
        while let Some(action) = self.balancer().poll_action() {
            let line = match action {
                Action::Check { endpoint, id, timeout, .. } => {
                    self.keys.insert(id.to_string(), endpoint);
                    format!("  {at:.3} s: ask {id}, for {} ms", timeout.as_millis())
                }
                Action::Announce { id, from, to } => {
                    format!("  {at:.3} s: {id} {} -> {}", from.as_str(), to.as_str())
                }
            };
            self.say(&line);
        }
    }

    fn check(&mut self, finding: &str, ids: &[&str]) {
        let finding = match finding {
            "passed" => Finding::Passed(Identity::Unsaid),
            "own" => Finding::Passed(Identity::Same),
            "other" => Finding::Passed(Identity::Other),
            "failed" => Finding::Failed(Identity::Unsaid),
            "refused" => Finding::Refused,
            "silent" => Finding::Silent,
            unknown => panic!("no such command: {unknown}"),
        };
        for id in ids {
            let (key, now) = (self.key(id), self.now);
            self.balancer().handle_event(key, Event::CheckFinished(finding), now);
        }
    }

    fn choose(&mut self, count: &str, tried: &[&str]) {
        let tried: Vec<EndpointKey> = tried.iter().map(|id| self.key(id)).collect();
        let mut counts: BTreeMap<(Option<Tier>, String), u32> = BTreeMap::new();
        for _ in 0..count.parse::<u32>().unwrap() {
            let now = self.now;
            let balancer = self.balancer();
            let choice = balancer.choose(&web(), &tried, Patience::Wait, now);
            *counts.entry(describe(balancer, choice)).or_default() += 1;
        }
        for ((_, text), count) in counts {
            self.say(&format!("  {count} x {text}"));
        }
    }

    fn request(&mut self, count: &str) {
        let mut counts: BTreeMap<(Option<Tier>, String), u32> = BTreeMap::new();
        for _ in 0..count.parse::<u32>().unwrap() {
            let now = self.now;
            let balancer = self.balancer();
            let choice = balancer.choose(&web(), &[], Patience::Wait, now);
            *counts.entry(describe(balancer, choice)).or_default() += 1;
            if let Choice::Endpoint(chosen) = choice {
                let judged = Event::TryJudged(Self::answer("200"));
                balancer.handle_event(chosen.endpoint, judged, now);
                balancer.handle_event(chosen.endpoint, Event::TryEnded, now);
            }
        }
        for ((_, text), count) in counts {
            self.say(&format!("  {count} x {text}"));
        }
    }

    fn judge(&mut self, id: &str, outcome: Outcome, count: &str) {
        for _ in 0..count.parse::<u32>().unwrap() {
            let (key, now) = (self.key(id), self.now);
            self.balancer().handle_event(key, Event::TryJudged(outcome), now);
        }
    }

    fn end(&mut self, id: &str, count: &str) {
        for _ in 0..count.parse::<u32>().unwrap() {
            let (key, now) = (self.key(id), self.now);
            self.balancer().handle_event(key, Event::TryEnded, now);
        }
    }

    fn last(&mut self, id: &str, count: &str) {
        let key = self.key(id);
        let counted = count.parse::<u32>().unwrap();
        let streams = (0..counted).filter(|_| self.balancer().begin_stream(key)).count();
        self.say(&format!("  {streams} streams"));
    }

    fn leave(&mut self, id: &str, count: &str) {
        for _ in 0..count.parse::<u32>().unwrap() {
            let (key, now) = (self.key(id), self.now);
            self.balancer().handle_event(key, Event::StreamEnded, now);
        }
    }

    fn state(&mut self) {
        let now = self.now;
        let lines: Vec<String> = self
            .balancer()
            .view(now)
            .map(|view| {
                let streams = match view.streams {
                    0 => String::new(),
                    streams => format!(", streams {streams}"),
                };
                format!(
                    "  {} {}, {}, share {} %, in flight {}{streams}, ejected for {} s",
                    view.endpoint.id,
                    view.tier.map_or("gone", Tier::as_str),
                    view.standing.as_str(),
                    view.share,
                    view.in_flight,
                    view.ejected_for.as_secs_f64()
                )
            })
            .collect();
        for line in lines {
            self.say(&line);
        }
    }
}

fn describe(balancer: &Balancer, choice: Choice) -> (Option<Tier>, String) {
    match choice {
        Choice::Endpoint(chosen) => {
            let id = balancer.endpoint(chosen.endpoint).unwrap().id.to_string();
            let text = format!("{id} ({}, {})", chosen.tier.as_str(), chosen.standing.as_str());
            (Some(chosen.tier), text)
        }
        Choice::Unchecked => (None, "wait for the first check".to_owned()),
        Choice::Overloaded => (None, "overloaded".to_owned()),
        Choice::Nothing => (None, "nothing".to_owned()),
    }
}

fn check(name: &str, script: &str) {
    let path = format!("{}/tests/golden/{name}.txt", env!("CARGO_MANIFEST_DIR"));
    expect_file![path].assert_eq(&play(script));
}

macro_rules! golden {
    ($($name:ident)*) => {$(
        #[test]
        fn $name() {
            check(stringify!($name), include_str!(concat!("../golden/", stringify!($name), ".txt")));
        }
    )*};
}

golden! { health ejection tiers identity tables streams }
