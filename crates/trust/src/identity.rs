//! Names in certificates: whom one speaks for.
//!
//! A host is `HOST.SYSTEM.evenkeel`, somebody with a right to ask but none to act for a host is
//! `NAME.operator.SYSTEM.evenkeel`. Nobody ever looks these names up: they are compared only.

use std::fmt;

use evenkeel_model::name::{HostName, SystemName};
use rustls::pki_types::{CertificateDer, ServerName};

/// Ends every name, so that no certificate of a system is good for anything else.
const ROOT: &str = "evenkeel";
/// Marks the names of operators.
const OPERATOR: &str = "operator";

/// Whom a certificate speaks for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// A host of the system.
    Host(HostName),
    /// Somebody who may use the API of every host, and nothing that hosts keep to themselves.
    Operator(HostName),
}

impl Subject {
    /// Returns the name that stands in its certificate.
    #[must_use]
    pub fn name(&self, system: &SystemName) -> String {
        match self {
            Self::Host(host) => format!("{host}.{system}.{ROOT}"),
            Self::Operator(name) => format!("{name}.{OPERATOR}.{system}.{ROOT}"),
        }
    }

    /// Reads a name; `None` for one that is of another system or of none.
    #[must_use]
    pub fn parse(name: &str, system: &SystemName) -> Option<Self> {
        let rest = name.strip_suffix(ROOT)?.strip_suffix('.')?;
        let rest = rest.strip_suffix(system.as_str())?.strip_suffix('.')?;
        match rest.split_once('.') {
            None => HostName::parse(rest).ok().map(Self::Host),
            Some((name, OPERATOR)) => HostName::parse(name).ok().map(Self::Operator),
            Some(_) => None,
        }
    }

    /// Reads whom a certificate speaks for. Says nothing of whether it may.
    #[must_use]
    pub fn of(certificate: &CertificateDer<'_>, system: &SystemName) -> Option<Self> {
        let certificate = webpki::EndEntityCert::try_from(certificate).ok()?;
        let mut names = certificate.valid_dns_names();
        let name = names.next()?;
        // A certificate speaks for one.
        if names.next().is_some() {
            return None;
        }
        Self::parse(name, system)
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(host) => write!(formatter, "host `{host}`"),
            Self::Operator(name) => write!(formatter, "operator `{name}`"),
        }
    }
}

/// Returns the name that a connecting side asks for.
pub(crate) fn server_name(host: &HostName, system: &SystemName) -> Option<ServerName<'static>> {
    ServerName::try_from(Subject::Host(host.clone()).name(system)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, expected: Option<&str>) {
        let system = SystemName::parse("shop").unwrap();
        let found = Subject::parse(name, &system);
        assert_eq!(found.as_ref().map(ToString::to_string).as_deref(), expected, "{name}");
        if let Some(subject) = found {
            assert_eq!(subject.name(&system), name);
        }
    }

    #[test]
    fn a_name_speaks_for_one_of_one_system() {
        check("fra-a1.shop.evenkeel", Some("host `fra-a1`"));
        check("drill.operator.shop.evenkeel", Some("operator `drill`"));
        check("fra-a1.blog.evenkeel", None);
        check("fra-a1.shop.example", None);
        check("shop.evenkeel", None);
        check(".shop.evenkeel", None);
        check("a.b.shop.evenkeel", None);
        check("a.b.operator.shop.evenkeel", None);
        check("fra-a1.workshop.evenkeel", None);
        check("operator.shop.evenkeel", Some("host `operator`"));
    }
}
