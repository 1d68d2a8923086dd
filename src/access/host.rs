//! Parses host names and addresses in requests, strictly.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use axum::http::uri::Authority;

/// A host and its port, in the only accepted spelling.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Name or address, in normalised spelling.
    pub name: HostName,
    /// The port, if given.
    pub port: Option<u16>,
}

/// The part before the port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostName {
    /// An IP address, in its only accepted spelling.
    Address(IpAddr),
    /// A DNS name, in lower case.
    Dns(String),
}

impl Host {
    /// Parses `NAME`, `NAME:PORT`, `ADDRESS`, `ADDRESS:PORT`, `[V6]` or `[V6]:PORT`, and nothing else: no
    /// user, no zone, no trailing dot, no empty or impossible port, no other spelling of an address.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let authority = Authority::try_from(bytes).ok()?;
        let text = authority.as_str();
        let (name, rest) = match text.strip_prefix('[') {
            Some(inner) => {
                let (address, rest) = inner.split_once(']')?;
                (HostName::Address(IpAddr::V6(address.parse::<Ipv6Addr>().ok()?)), rest)
            }
            None => {
                let end = text.find(':').unwrap_or(text.len());
                let (name, rest) = text.split_at_checked(end)?;
                let address = name.parse::<Ipv4Addr>().map(|v4| HostName::Address(v4.into()));
                (address.ok().or_else(|| dns_name(name))?, rest)
            }
        };
        let port = match rest.strip_prefix(':') {
            Some(digits) => Some(port(digits)?),
            None if rest.is_empty() => None,
            None => return None,
        };
        Some(Self { name, port })
    }

    /// Whether both mean the same host and port; `default` is the port if one names none.
    #[must_use]
    pub fn is(&self, other: &Self, default: Option<u16>) -> bool {
        self.name == other.name && self.port.or(default) == other.port.or(default)
    }
}

/// A host name as `--allow-host` accepts it: without a port.
///
/// # Errors
/// A message.
pub fn allowed_name(text: &str) -> Result<String, String> {
    match Host::parse(text.as_bytes()) {
        Some(Host { name: HostName::Dns(name), port: None }) => Ok(name),
        Some(Host { name: HostName::Address(_), .. }) => {
            Err("expected a host name; IP addresses are always allowed".to_owned())
        }
        _ => Err(format!("expected a host name without a port, such as media.example.com, got `{text}`")),
    }
}

fn port(digits: &str) -> Option<u16> {
    let plain = (1..=5).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
    if plain { digits.parse().ok().filter(|port| *port > 0) } else { None }
}

fn dns_name(text: &str) -> Option<HostName> {
    let label = |label: &str| {
        let plain = label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
        plain && (1..=63).contains(&label.len()) && !label.starts_with('-') && !label.ends_with('-')
    };
    // Browsers read a name that ends in a number as an address: 127.1, 0x7f000001.
    let last = text.rsplit('.').next().unwrap_or("");
    let numeric = last.starts_with(|c: char| c.is_ascii_digit())
        && (last.bytes().all(|b| b.is_ascii_digit()) || last.to_ascii_lowercase().starts_with("0x"));
    let good = text.len() <= 253 && !numeric && text.split('.').all(label);
    good.then(|| HostName::Dns(text.to_ascii_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_to_allow_are_names() {
        assert_eq!(allowed_name("Media.LAN"), Ok("media.lan".to_owned()));
        for bad in ["", "*.lan", "media.lan:80", "10.0.0.1", "[::1]", "http://media.lan", "media.lan."] {
            assert!(allowed_name(bad).is_err(), "{bad}");
        }
    }
}
