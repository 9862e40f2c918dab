//! Keys and certificates as text (RFC 7468).

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};

/// Characters of a line (RFC 7468 §2).
const LINE: usize = 64;

/// Writes a private key.
pub(crate) fn key(der: &PrivatePkcs8KeyDer<'_>) -> String {
    block("PRIVATE KEY", der.secret_pkcs8_der())
}

/// Writes a certificate.
pub(crate) fn certificate(der: &CertificateDer<'_>) -> String {
    block("CERTIFICATE", der)
}

fn block(label: &str, der: &[u8]) -> String {
    let body = STANDARD.encode(der);
    let mut text = format!("-----BEGIN {label}-----\n");
    let mut rest = body.as_str();
    while !rest.is_empty() {
        let (line, tail) = rest.split_at(rest.len().min(LINE));
        // Writing to a string can't fail.
        let _infallible = writeln!(text, "{line}");
        rest = tail;
    }
    let _infallible = writeln!(text, "-----END {label}-----");
    text
}

/// Reads the first private key of a text.
pub(crate) fn read_key(text: &str) -> Option<PrivatePkcs8KeyDer<'static>> {
    PrivatePkcs8KeyDer::from_pem_slice(text.as_bytes()).ok()
}

/// Reads every certificate of a text, in order; `None` if one is damaged.
pub(crate) fn read_certificates(text: &str) -> Option<Vec<CertificateDer<'static>>> {
    CertificateDer::pem_slice_iter(text.as_bytes()).collect::<Result<_, _>>().ok()
}
