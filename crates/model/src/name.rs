//! Names of things in a system: DNS labels, so that each can stand in a host name and in a metric.

use std::fmt;

/// Reports why a text is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The text has no characters.
    #[error("a name has at least one character")]
    Empty,
    /// The text is longer than a DNS label (RFC 1035 §2.3.4).
    #[error("a name has at most 63 characters, this one has {length}")]
    TooLong {
        /// Length of the refused text in bytes.
        length: usize,
    },
    /// A character outside `a-z`, `0-9` and `-`, or `-` at an end (RFC 1123 §2.1).
    #[error(
        "`{character}` at position {position} is not allowed: names use a-z, 0-9 and inner `-`"
    )]
    Character {
        /// The refused character.
        character: char,
        /// Its position, counted from 1.
        position: usize,
    },
}

/// Checks that `text` is a DNS label in lower case.
///
/// # Errors
/// The first rule that `text` breaks.
pub fn check_label(text: &str) -> Result<(), NameError> {
    if text.is_empty() {
        return Err(NameError::Empty);
    }
    if text.len() > 63 {
        return Err(NameError::TooLong { length: text.len() });
    }
    let last = text.chars().count();
    for (index, character) in text.chars().enumerate() {
        let position = index + 1;
        let inner = position > 1 && position < last;
        let allowed = character.is_ascii_lowercase()
            || character.is_ascii_digit()
            || (character == '-' && inner);
        if !allowed {
            return Err(NameError::Character { character, position });
        }
    }
    Ok(())
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $type(String);

        impl $type {
            /// Takes a text that obeys [`check_label`].
            ///
            /// # Errors
            /// The rule that the text breaks.
            pub fn parse(text: &str) -> Result<Self, NameError> {
                check_label(text)?;
                Ok(Self(text.to_owned()))
            }

            /// Returns the name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.pad(&self.0)
            }
        }

        impl std::str::FromStr for $type {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::parse(text)
            }
        }
    };
}

name!(
    /// Names a whole system; also its identity on the wire and on disk.
    SystemName
);
name!(
    /// Names a region: a place that fails as one and is reached over a wide-area link.
    RegionName
);
name!(
    /// Names a zone within its region.
    ZoneName
);
name!(
    /// Names a host, unique in the system.
    HostName
);
name!(
    /// Names a service.
    ServiceName
);
name!(
    /// Names a gateway listener, which every host opens.
    GatewayName
);

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Result<(), NameError>) {
        assert_eq!(check_label(text), expected, "{text:?}");
    }

    #[test]
    fn accepts_dns_labels_only() {
        check("fra-a1", Ok(()));
        check("a", Ok(()));
        check("", Err(NameError::Empty));
        check(&"a".repeat(64), Err(NameError::TooLong { length: 64 }));
        check("Fra", Err(NameError::Character { character: 'F', position: 1 }));
        check("a_b", Err(NameError::Character { character: '_', position: 2 }));
        check("-a", Err(NameError::Character { character: '-', position: 1 }));
        check("a-", Err(NameError::Character { character: '-', position: 2 }));
    }
}
