//! The line protocol on a shim's control socket, version 1.
//!
//! The shim greets with `hello 1 SHIM_PID` and `state …`, then answers numbered requests and
//! reports what happens to its child, to every connection, in the order of events:
//!
//! ```text
//! to the shim       N start           N stop MILLISECONDS    N signal NUMBER    N quit
//! from the shim     N ok              N error TEXT
//!                   state idle        state running PID      state exited PID code|signal NUMBER
//!                   started PID       exited PID code|signal NUMBER
//! ```
//!
//! `start` reads `spec.json` anew; if the child runs, it only reports it again. `stop` sends
//! SIGTERM to the child's group, and SIGKILL after the time. An `exited` comes after the whole
//! group has ended. `quit` ends the group at once, then the shim; one without a child and without a
//! connection ends by itself after some seconds. A request that is unknown gets an error; a shim
//! never ends a connection for what it does not understand, so that a newer node can ask for more
//! and go on without it.

use std::time::Duration;

use evenkeel_supervisor_core::status::ExitStatus;

/// The version in the greeting.
pub(crate) const VERSION: u32 = 1;

/// Longest line in bytes.
pub(crate) const LINE_MAX: usize = 4096;

/// What a shim's child does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChildState {
    /// None was started yet, or its end is unknown because its shim was killed.
    Idle,
    /// It runs.
    Running {
        /// Its process id.
        pid: u32,
    },
    /// It ended, and every process of its group with it.
    Exited {
        /// Its former process id.
        pid: u32,
        /// How it ended.
        status: ExitStatus,
    },
}

/// What a node asks of a shim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Request {
    Start,
    Stop { grace: Duration },
    Signal { number: i32 },
    Quit,
}

/// What a shim says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Report {
    Hello { version: u32, pid: u32 },
    State(ChildState),
    Done { number: u64 },
    Refused { number: u64, reason: String },
    Started { pid: u32 },
    Exited { pid: u32, status: ExitStatus },
}

impl Request {
    /// Writes the line of request `number`, with its end.
    pub(crate) fn format(self, number: u64) -> String {
        match self {
            Self::Start => format!("{number} start\n"),
            Self::Stop { grace } => format!("{number} stop {}\n", grace.as_millis()),
            Self::Signal { number: signal } => format!("{number} signal {signal}\n"),
            Self::Quit => format!("{number} quit\n"),
        }
    }

    /// Reads a line without its end: the request's number, and the request if it is known.
    pub(crate) fn parse(line: &str) -> Option<(u64, Option<Self>)> {
        let (number, request) = line.split_once(' ')?;
        let words: Vec<&str> = request.split(' ').collect();
        let request = match words.as_slice() {
            ["start"] => Some(Self::Start),
            ["stop", millis] => millis
                .parse()
                .ok()
                .map(|millis| Self::Stop { grace: Duration::from_millis(millis) }),
            ["signal", signal] => signal.parse().ok().map(|number| Self::Signal { number }),
            ["quit"] => Some(Self::Quit),
            _ => None,
        };
        Some((number.parse().ok()?, request))
    }
}

impl Report {
    /// Writes the line, with its end.
    pub(crate) fn format(&self) -> String {
        match self {
            Self::Hello { version, pid } => format!("hello {version} {pid}\n"),
            Self::State(ChildState::Idle) => "state idle\n".to_owned(),
            Self::State(ChildState::Running { pid }) => format!("state running {pid}\n"),
            Self::State(ChildState::Exited { pid, status }) => {
                format!("state exited {pid} {}\n", format_status(*status))
            }
            Self::Done { number } => format!("{number} ok\n"),
            Self::Refused { number, reason } => {
                let reason: String =
                    reason.chars().map(|c| if c == '\n' { ' ' } else { c }).collect();
                let end = reason.floor_char_boundary(LINE_MAX - 64);
                format!("{number} error {}\n", reason.get(..end).unwrap_or_default())
            }
            Self::Started { pid } => format!("started {pid}\n"),
            Self::Exited { pid, status } => format!("exited {pid} {}\n", format_status(*status)),
        }
    }

    /// Reads a line without its end; absent if it is not of this version.
    pub(crate) fn parse(line: &str) -> Option<Self> {
        let words: Vec<&str> = line.split(' ').collect();
        Some(match words.as_slice() {
            ["hello", version, pid] => {
                Self::Hello { version: version.parse().ok()?, pid: pid.parse().ok()? }
            }
            ["state", "idle"] => Self::State(ChildState::Idle),
            ["state", "running", pid] => {
                Self::State(ChildState::Running { pid: pid.parse().ok()? })
            }
            ["state", "exited", pid, kind, value] => {
                let status = parse_status(kind, value)?;
                Self::State(ChildState::Exited { pid: pid.parse().ok()?, status })
            }
            ["started", pid] => Self::Started { pid: pid.parse().ok()? },
            ["exited", pid, kind, value] => {
                Self::Exited { pid: pid.parse().ok()?, status: parse_status(kind, value)? }
            }
            [number, "ok"] => Self::Done { number: number.parse().ok()? },
            [number, "error", reason @ ..] => {
                Self::Refused { number: number.parse().ok()?, reason: reason.join(" ") }
            }
            _ => return None,
        })
    }
}

fn format_status(status: ExitStatus) -> String {
    match status {
        ExitStatus::Code(code) => format!("code {code}"),
        ExitStatus::Signal(signal) => format!("signal {signal}"),
    }
}

fn parse_status(kind: &str, value: &str) -> Option<ExitStatus> {
    let value = value.parse().ok()?;
    match kind {
        "code" => Some(ExitStatus::Code(value)),
        "signal" => Some(ExitStatus::Signal(value)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_report(report: Report) {
        let line = report.format();
        assert_eq!(Report::parse(line.trim_end()), Some(report), "{line}");
    }

    fn check_request(request: Request) {
        let line = request.format(7);
        assert_eq!(Request::parse(line.trim_end()), Some((7, Some(request))), "{line}");
    }

    #[test]
    fn reads_what_it_writes() {
        let status = ExitStatus::Signal(9);
        check_report(Report::Hello { version: 1, pid: 2 });
        check_report(Report::State(ChildState::Idle));
        check_report(Report::State(ChildState::Running { pid: 3 }));
        check_report(Report::State(ChildState::Exited { pid: 3, status }));
        check_report(Report::Done { number: 4 });
        check_report(Report::Refused { number: 4, reason: "no such file".to_owned() });
        check_report(Report::Started { pid: 3 });
        check_report(Report::Exited { pid: 3, status: ExitStatus::Code(0) });
        check_request(Request::Start);
        check_request(Request::Stop { grace: Duration::from_millis(1500) });
        check_request(Request::Signal { number: 15 });
        check_request(Request::Quit);
    }

    #[test]
    fn knows_what_it_does_not_know() {
        assert_eq!(Request::parse("3 dance wildly"), Some((3, None)));
        assert_eq!(Request::parse("3 stop soon"), Some((3, None)));
        assert_eq!(Request::parse("dance"), None);
        assert_eq!(Report::parse("state dancing"), None);
    }
}
