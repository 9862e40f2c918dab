//! What the drill shows and which keys it takes: a terminal, or plain lines.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use crossterm::terminal;

use crate::table::Colours;

/// What a person asks for by a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    /// `k`: kill a service replica.
    Process,
    /// `h`: take a host's power.
    Host,
    /// `z`: cut a zone off.
    Zone,
    /// `r`: cut a region off.
    Region,
    /// `p`: mend everything.
    Heal,
    /// `q` or Ctrl-C: end.
    Quit,
}

/// Where the drill speaks.
pub trait Screen {
    /// Shows lines that stay.
    fn line(&mut self, text: &str);
    /// Shows the line that is replaced again and again.
    fn live(&mut self, text: &str);
    /// Returns whether colours are shown.
    fn colours(&self) -> Colours;
    /// From now on keys are read one by one.
    fn begin_keys(&mut self);
    /// Waits for a key, at most `wait`.
    fn key(&mut self, wait: Duration) -> Option<Key>;
}

/// Returns the screen for this process: standard output as it is.
#[must_use]
pub fn of_this_process() -> Box<dyn Screen> {
    if io::stdout().is_terminal() && io::stdin().is_terminal() {
        Box::new(Terminal { has_live_line: false, reads_keys: false })
    } else {
        Box::new(Plain { last_live: None })
    }
}

/// Lines in a file or pipe; the live line comes every five seconds.
#[derive(Debug)]
struct Plain {
    last_live: Option<Instant>,
}

/// Time between two live lines where lines cannot be replaced.
const LIVE_EVERY: Duration = Duration::from_secs(5);

impl Screen for Plain {
    fn line(&mut self, text: &str) {
        write_out(&format!("{text}\n"));
    }

    fn live(&mut self, text: &str) {
        if self.last_live.is_none_or(|last| last.elapsed() >= LIVE_EVERY) {
            self.last_live = Some(Instant::now());
            self.line(text);
        }
    }

    fn colours(&self) -> Colours {
        Colours::None
    }

    fn begin_keys(&mut self) {}

    fn key(&mut self, wait: Duration) -> Option<Key> {
        std::thread::sleep(wait);
        None
    }
}

/// A terminal with a person before it.
#[derive(Debug)]
struct Terminal {
    has_live_line: bool,
    reads_keys: bool,
}

impl Screen for Terminal {
    fn line(&mut self, text: &str) {
        let clear = if self.has_live_line { "\r\x1b[2K" } else { "" };
        self.has_live_line = false;
        // In raw mode the terminal no longer returns the carriage by itself.
        write_out(&format!("{clear}{}\r\n", text.replace('\n', "\r\n")));
    }

    fn live(&mut self, text: &str) {
        // A terminal of no width is one that does not know its own.
        let width = terminal::size().ok().filter(|(columns, _)| *columns > 0);
        let columns = width.map_or(80, |(columns, _)| usize::from(columns));
        let fitting: String = text.chars().take(columns.saturating_sub(1)).collect();
        self.has_live_line = true;
        write_out(&format!("\r\x1b[2K{fitting}"));
    }

    fn colours(&self) -> Colours {
        if std::env::var_os("NO_COLOR").is_some() { Colours::None } else { Colours::Ansi }
    }

    fn begin_keys(&mut self) {
        self.reads_keys = terminal::enable_raw_mode().is_ok();
    }

    fn key(&mut self, wait: Duration) -> Option<Key> {
        if !self.reads_keys {
            std::thread::sleep(wait);
            return None;
        }
        if !event::poll(wait).unwrap_or(false) {
            return None;
        }
        match event::read() {
            Ok(Event::Key(key)) if key.kind != KeyEventKind::Release => {
                let control = key.modifiers.contains(KeyModifiers::CONTROL);
                let KeyCode::Char(character) = key.code else { return None };
                meaning(character, control)
            }
            Ok(_) => None,
            // The terminal is gone.
            Err(_) => Some(Key::Quit),
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if self.has_live_line {
            write_out("\r\n");
        }
        if self.reads_keys && terminal::disable_raw_mode().is_err() {
            tracing::warn!("the terminal stays raw: type `reset`");
        }
    }
}

const fn meaning(character: char, control: bool) -> Option<Key> {
    match (character, control) {
        ('c', true) | ('q', false) => Some(Key::Quit),
        ('k', false) => Some(Key::Process),
        ('h', false) => Some(Key::Host),
        ('z', false) => Some(Key::Zone),
        ('r', false) => Some(Key::Region),
        ('p', false) => Some(Key::Heal),
        _ => None,
    }
}

/// Nobody may be reading: a drill is not stopped by that.
fn write_out(text: &str) {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).ok();
}
