//! The kinds of diagnostic and what `evenkeel explain` says about each.
//!
//! A diagnostic can only be made with a [`Code`], and a [`Code`] only exists together with its
//! explanation, so that no printed code leads nowhere. Numbers are never given twice.

use std::fmt;

use crate::explanations::{audit, system_file};

/// What `evenkeel explain CODE` tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Explanation {
    /// The kind in a few words.
    pub title: &'static str,
    /// What is checked.
    pub checks: &'static str,
    /// Why it matters.
    pub matters: &'static str,
    /// A text that fails the check.
    pub example: &'static str,
    /// The same text put right, or what to do.
    pub fix: &'static str,
}

impl fmt::Display for Code {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.as_str())
    }
}

/// Finds the code written as `EK0102`, in any case.
#[must_use]
pub fn find(text: &str) -> Option<Code> {
    Code::ALL.iter().copied().find(|code| code.as_str().eq_ignore_ascii_case(text.trim()))
}

/// Returns the explanation of the code written as `EK0102`, in any case.
#[must_use]
pub fn explain(text: &str) -> Option<&'static Explanation> {
    find(text).map(Code::explanation)
}

impl Explanation {
    /// Returns the explanation as plain text for a terminal.
    #[must_use]
    pub fn to_text(&self, code: Code) -> String {
        let indent = |text: &str| {
            text.trim_matches('\n').lines().map(|line| format!("    {line}\n")).collect::<String>()
        };
        format!(
            "{code}: {}\n\nWhat is checked\n{}\nWhy it matters\n{}\nExample\n{}\nHow to fix it\n{}",
            self.title,
            indent(self.checks),
            indent(self.matters),
            indent(self.example),
            indent(self.fix),
        )
    }
}

/// Makes the enum of codes, so that none can exist without its explanation.
macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $number:literal => $explanation:expr,)*) => {
        /// A kind of diagnostic. `EK01…` are about a system file as a text, `EK02…` about what
        /// the system that it declares can survive.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code {
            $($(#[$doc])* $variant,)*
        }

        impl Code {
            /// All codes, by number.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// Returns the number, such as `EK0102`.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $number,)*
                }
            }

            /// Returns what is to be said about it.
            #[must_use]
            pub const fn explanation(self) -> &'static Explanation {
                match self {
                    $(Self::$variant => &$explanation,)*
                }
            }
        }
    };
}

codes! {
    /// The text is not TOML.
    Syntax = "EK0101" => system_file::SYNTAX,
    /// The key is not known.
    UnknownKey = "EK0102" => system_file::UNKNOWN_KEY,
    /// A key is missing.
    MissingKey = "EK0103" => system_file::MISSING_KEY,
    /// The value is of another type.
    WrongType = "EK0104" => system_file::WRONG_TYPE,
    /// The text is not a name.
    BadName = "EK0105" => system_file::BAD_NAME,
    /// A name is used twice.
    DuplicateName = "EK0106" => system_file::DUPLICATE_NAME,
    /// The quantity cannot be used.
    BadQuantity = "EK0107" => system_file::BAD_QUANTITY,
    /// The word is not one of the choices.
    UnknownChoice = "EK0108" => system_file::UNKNOWN_CHOICE,
    /// What is named does not exist.
    DanglingReference = "EK0109" => system_file::DANGLING_REFERENCE,
    /// The address cannot be a host's.
    BadAddress = "EK0110" => system_file::BAD_ADDRESS,
    /// Two hosts have one address.
    DuplicateAddress = "EK0111" => system_file::DUPLICATE_ADDRESS,
    /// Two things want one port.
    PortClash = "EK0112" => system_file::PORT_CLASH,
    /// The listener is not an address and a port.
    BadListen = "EK0113" => system_file::BAD_LISTEN,
    /// The placeholder is not known.
    UnknownPlaceholder = "EK0114" => system_file::UNKNOWN_PLACEHOLDER,
    /// The list is empty.
    EmptyList = "EK0115" => system_file::EMPTY_LIST,
    /// There is no host.
    NoHost = "EK0116" => system_file::NO_HOST,
    /// No host may run services.
    OnlyWitnesses = "EK0117" => system_file::ONLY_WITNESSES,
    /// More replicas than hosts for a fixed port.
    FixedPortReplicas = "EK0118" => system_file::FIXED_PORT_REPLICAS,
    /// The path is not absolute.
    BadPath = "EK0119" => system_file::BAD_PATH,
    /// Two routes match the same requests.
    DuplicateRoute = "EK0120" => system_file::DUPLICATE_ROUTE,
    /// Databases are not available in this version.
    NoDatabases = "EK0121" => system_file::NO_DATABASES,
    /// The name belongs to Evenkeel.
    ReservedName = "EK0122" => system_file::RESERVED_NAME,
    /// Keys exclude each other.
    ExclusiveKeys = "EK0123" => system_file::EXCLUSIVE_KEYS,
    /// A service needs itself.
    NeedsItself = "EK0124" => system_file::NEEDS_ITSELF,
    /// The listener's address belongs to one host only.
    ListenOnOneHost = "EK0125" => system_file::LISTEN_ON_ONE_HOST,
    /// The text cannot be handed to a program.
    BadText = "EK0126" => system_file::BAD_TEXT,
    /// The key-value store is used but not needed.
    UndeclaredNeed = "EK0127" => system_file::UNDECLARED_NEED,
    /// Everything stands in one place.
    OneDomain = "EK0201" => audit::ONE_DOMAIN,
    /// Losing one place loses the quorum.
    NoQuorum = "EK0202" => audit::NO_QUORUM,
    /// The service has one replica only.
    TooFewReplicas = "EK0203" => audit::TOO_FEW_REPLICAS,
    /// All replicas fail together.
    ReplicasTogether = "EK0204" => audit::REPLICAS_TOGETHER,
    /// One of Evenkeel's processes has no second.
    OnlyProcess = "EK0205" => audit::ONLY_PROCESS,
    /// A service without routes stops for a while.
    WorkerStops = "EK0206" => audit::WORKER_STOPS,
    /// A single point of failure.
    SinglePoint = "EK0207" => audit::SINGLE_POINT,
    /// The system does not answer.
    Down = "EK0208" => audit::DOWN,
}
