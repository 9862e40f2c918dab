//! Tokens with which a host joins a system.
//!
//! ```text
//! ekj1-BASE64URL( length u16 │ authority's SHA-256, 32 B │ secret, 16 B │ system │ host │
//!                 addresses │ crc32c u32 )
//! ```
//! `length` counts the bytes between itself and the checksum, big-endian; a text is its length in
//! one byte and its bytes, the addresses are their number in one byte and as many texts. Only a
//! hash of the secret is ever stored.

use std::fmt;
use std::net::SocketAddr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use evenkeel_model::name::{HostName, SystemName};
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom as _, SystemRandom};

/// Begins every token; the digit is the format.
const PREFIX: &str = "ekj1-";
/// Begins the tokens of all formats.
const FAMILY: &str = "ekj";
/// Most addresses in a token: it is to be copied by hand.
const ADDRESSES_MAX: usize = 3;
/// Bytes around the part that `length` counts.
const HEAD: usize = 2;
const CHECKSUM: usize = 4;

/// What proves that a host may join. Never stored, never logged.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret([u8; 16]);

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Secret(…)")
    }
}

impl Secret {
    /// Makes a secret.
    ///
    /// # Errors
    /// The system gave no randomness.
    pub fn generate() -> Result<Self, NoRandomness> {
        let mut bytes = [0; 16];
        SystemRandom::new().fill(&mut bytes).map_err(|_| NoRandomness)?;
        Ok(Self(bytes))
    }

    /// Returns what may be stored of it, as text.
    #[must_use]
    pub fn hash(&self) -> String {
        let hash = digest(&SHA256, &[b"evenkeel join secret 1\0".as_slice(), &self.0].concat());
        hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Returns it as text, to be sent to a host that has proved who it is.
    #[must_use]
    pub fn to_text(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.0)
    }

    /// Reads [`Self::to_text`].
    #[must_use]
    pub fn from_text(text: &str) -> Option<Self> {
        URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok().map(Self)
    }
}

/// The system gave no random numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the system gives no random numbers")]
pub struct NoRandomness;

/// A token: lets one host join one system, once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// What tells the system's authority from every other one.
    pub authority: [u8; 32],
    /// The proof.
    pub secret: Secret,
    /// The system.
    pub system: SystemName,
    /// The host that may join.
    pub host: HostName,
    /// Where hosts of the system serve their API.
    pub addresses: Vec<SocketAddr>,
}

/// Reports why a text is not a token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// It is something else.
    #[error("this is not a join token: those begin with `{PREFIX}`")]
    Other,
    /// It is of another version.
    #[error("the join token begins with `{0}`, this program knows `{PREFIX}`")]
    Format(String),
    /// A character can't stand in a token.
    #[error("the join token has a wrong character at position {position}")]
    Character {
        /// Its position, counted from 1.
        position: usize,
    },
    /// Its end is missing.
    #[error("the join token is cut off: about {missing} characters are missing at its end")]
    Short {
        /// How many, about.
        missing: usize,
    },
    /// There is more than a token.
    #[error("the join token has {surplus} characters too many at its end")]
    Long {
        /// How many, about.
        surplus: usize,
    },
    /// A character is not the one that it was.
    #[error("the join token is mistyped: its checksum is wrong")]
    Checksum,
}

impl Token {
    /// Writes the token.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut body = self.authority.to_vec();
        body.extend_from_slice(&self.secret.0);
        push(&mut body, self.system.as_str());
        push(&mut body, self.host.as_str());
        let addresses = self.addresses.iter().take(ADDRESSES_MAX);
        body.push(u8::try_from(addresses.len()).unwrap_or(0));
        addresses.for_each(|address| push(&mut body, &address.to_string()));
        let length = u16::try_from(body.len()).unwrap_or(u16::MAX);
        let mut bytes = length.to_be_bytes().to_vec();
        bytes.append(&mut body);
        bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_be_bytes());
        format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes))
    }

    /// Reads a token; blanks around it do no harm.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let text = text.trim();
        let Some(encoded) = text.strip_prefix(PREFIX) else {
            return Err(match text.split_once('-') {
                Some((version, _)) if version.starts_with(FAMILY) => {
                    ParseError::Format(format!("{version}-"))
                }
                Some(_) | None => ParseError::Other,
            });
        };
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        if let Some(at) = encoded.bytes().position(|byte| !allowed(byte)) {
            return Err(ParseError::Character { position: PREFIX.len() + at + 1 });
        }
        // Four characters are three bytes. A rest of one is no byte at all.
        let whole = if encoded.len() % 4 == 1 { encoded.len() - 1 } else { encoded.len() };
        let encoded = encoded.get(..whole).unwrap_or_default();
        let Ok(bytes) = lenient().decode(encoded) else { return Err(ParseError::Checksum) };
        let wanted = match bytes.first_chunk::<HEAD>() {
            Some(length) => HEAD + usize::from(u16::from_be_bytes(*length)) + CHECKSUM,
            None => return Err(ParseError::Short { missing: 100 }),
        };
        if bytes.len() < wanted {
            return Err(ParseError::Short { missing: (wanted - bytes.len()) * 4 / 3 + 1 });
        }
        if bytes.len() > wanted {
            return Err(ParseError::Long { surplus: (bytes.len() - wanted) * 4 / 3 });
        }
        let (covered, checksum) = bytes.split_at(bytes.len() - CHECKSUM);
        if crc32c::crc32c(covered).to_be_bytes() != checksum {
            return Err(ParseError::Checksum);
        }
        read(covered.get(HEAD..).unwrap_or_default()).ok_or(ParseError::Checksum)
    }
}

/// Takes also what a cut has left in the middle of a byte.
fn lenient() -> base64::engine::GeneralPurpose {
    let config = base64::engine::GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(base64::engine::DecodePaddingMode::RequireNone);
    base64::engine::GeneralPurpose::new(&base64::alphabet::URL_SAFE, config)
}

fn push(body: &mut Vec<u8>, text: &str) {
    // Names have at most 63 bytes, addresses fewer.
    body.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
    body.extend_from_slice(text.as_bytes());
}

fn read(body: &[u8]) -> Option<Token> {
    let (authority, body) = body.split_first_chunk::<32>()?;
    let (secret, mut body) = body.split_first_chunk::<16>()?;
    let mut next = || {
        let (length, rest) = body.split_first()?;
        let (text, rest) = rest.split_at_checked(usize::from(*length))?;
        body = rest;
        std::str::from_utf8(text).ok()
    };
    let system = SystemName::parse(next()?).ok()?;
    let host = HostName::parse(next()?).ok()?;
    let (count, mut rest) = body.split_first()?;
    let mut addresses = Vec::new();
    for _ in 0..*count {
        let (length, tail) = rest.split_first()?;
        let (text, tail) = tail.split_at_checked(usize::from(*length))?;
        rest = tail;
        addresses.push(std::str::from_utf8(text).ok()?.parse().ok()?);
    }
    let token = Token { authority: *authority, secret: Secret(*secret), system, host, addresses };
    rest.is_empty().then_some(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> Token {
        Token {
            authority: [7; 32],
            secret: Secret([9; 16]),
            system: SystemName::parse("shop").unwrap(),
            host: HostName::parse("fra-a1").unwrap(),
            addresses: ["10.1.0.11:7401", "[2001:db8::11]:7401"]
                .map(|address| address.parse().unwrap())
                .to_vec(),
        }
    }

    #[test]
    fn a_token_is_read_as_it_was_written() {
        let text = token().to_text();
        assert_eq!(Token::parse(&text), Ok(token()));
        assert_eq!(Token::parse(&format!(" {text}\n")), Ok(token()));
        assert!(text.len() < 200, "{} characters", text.len());
        let secret = Secret::from_text(&token().secret.to_text());
        assert_eq!(secret, Some(token().secret));
    }

    #[track_caller]
    fn check(text: &str, expected: &str) {
        let refused = Token::parse(text).unwrap_err().to_string();
        assert!(refused.contains(expected), "{text}: {refused}");
    }

    #[test]
    fn what_is_wrong_with_a_token_is_said() {
        let text = token().to_text();
        check("", "not a join token");
        check("hunter2", "not a join token");
        check("ekj2-AAAA", "begins with `ekj2-`, this program knows `ekj1-`");
        check(&text.replace("ekj1-A", "ekj1-!"), "a wrong character at position 6");
        check(&format!("{text}AAAA"), "4 characters too many");
        check("ekj1-", "cut off");
        for cut in 1..text.len() - PREFIX.len() {
            check(&text[..text.len() - cut], "cut off");
        }
    }

    #[test]
    fn every_mistyped_character_is_noticed() {
        let text = token().to_text();
        // The first three characters hold the length.
        for at in PREFIX.len() + 3..text.len() {
            let mut typed = text.clone().into_bytes();
            typed[at] = if typed[at] == b'x' { b'y' } else { b'x' };
            let typed = String::from_utf8(typed).unwrap();
            // The last character of a token may hold bits that are of no byte.
            let refused = Token::parse(&typed);
            assert!(refused == Err(ParseError::Checksum) || at == text.len() - 1, "{at}");
        }
    }
}
