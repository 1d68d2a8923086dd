//! Which hosts may be reached, and which URLs name one of them.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use url::{Host, Url};

use super::OutboundError;
use super::address::{AddressClass, class_of};

/// Longest URL in bytes.
const MAX_URL_BYTES: usize = 8 << 10;
/// Ports of a host whose rule names no port.
const USUAL_PORTS: [u16; 2] = [80, 443];
/// Marks a host that may have private addresses.
const PRIVATE_MARK: &str = "+private";

/// A host that may be reached: `media.example.com`, `*.example.com` (any name beneath it), or an address;
/// with `:port`, only that port instead of 80 and 443; with `+private` at the end, it may have an address in
/// a private network or on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostRule {
    name: String,
    beneath: bool,
    port: Option<u16>,
    private: bool,
}

impl HostRule {
    fn holds(&self, host: &str, port: u16) -> bool {
        let named = if self.beneath {
            host.strip_suffix(&self.name).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
        } else {
            host == self.name
        };
        named && self.port.map_or_else(|| USUAL_PORTS.contains(&port), |only| only == port)
    }

    /// The rule for one host of the operator's own choice, such as the endpoint of a bucket.
    pub(super) fn of_endpoint(endpoint: &Url) -> Option<Self> {
        let port = endpoint.port_or_known_default();
        Some(Self { name: canonical(endpoint.host_str()?), beneath: false, port, private: true })
    }
}

impl FromStr for HostRule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| format!("`{text}` is not a host: {why}");
        let (rest, private) = match text.trim().strip_suffix(PRIVATE_MARK) {
            Some(rest) => (rest, true),
            None => (text.trim(), false),
        };
        let (rest, beneath) = match rest.strip_prefix("*.") {
            Some(rest) => (rest, true),
            None => (rest, false),
        };
        // Parse it as a part of a URL, so that rules and URLs are normalised in the same way.
        let url = Url::parse(&format!("none://{rest}")).ok();
        let plain =
            rest.bytes().all(|b| b.is_ascii_alphanumeric() || b".-:[]_".contains(&b)) || !rest.is_ascii();
        let parsed = Url::parse(&format!("http://{rest}/")).map_err(|error| wrong(&error.to_string()))?;
        let more = parsed.path() != "/" || parsed.query().is_some() || parsed.fragment().is_some();
        if rest.is_empty() || !plain || more || !parsed.username().is_empty() {
            return Err(wrong("expected a name or an address, with :PORT unless the port is 80 or 443"));
        }
        let is_address = !matches!(parsed.host(), Some(Host::Domain(_)));
        if beneath && is_address {
            return Err(wrong("`*.` must be followed by a name"));
        }
        let name = canonical(parsed.host_str().unwrap_or(""));
        if name.is_empty() {
            return Err(wrong("it is empty"));
        }
        // `http://host:80` hides its port, another scheme shows it.
        let port = url.as_ref().and_then(Url::port).or_else(|| parsed.port());
        Ok(Self { name, beneath, port, private })
    }
}

impl fmt::Display for HostRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let star = if self.beneath { "*." } else { "" };
        let port = self.port.map_or_else(String::new, |port| format!(":{port}"));
        let mark = if self.private { PRIVATE_MARK } else { "" };
        write!(f, "{star}{}{port}{mark}", self.name)
    }
}

/// Normalises a name for comparison: a trailing dot means nothing here.
fn canonical(host: &str) -> String {
    host.trim_end_matches('.').to_ascii_lowercase()
}

/// All rules.
#[derive(Debug, Clone, Default)]
pub(super) struct Rules(Vec<HostRule>);

impl Rules {
    pub(super) const fn new(rules: Vec<HostRule>) -> Self {
        Self(rules)
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a host may be reached at a port and, if so, whether it may have a private address.
    pub(super) fn find(&self, host: &str, port: u16) -> Result<bool, OutboundError> {
        let host = canonical(host);
        let mut found = self.0.iter().filter(|rule| rule.holds(&host, port)).peekable();
        if found.peek().is_none() {
            return Err(OutboundError::NotAllowed(format!("{host}, port {port}, is not an allowed host")));
        }
        Ok(found.any(|rule| rule.private))
    }

    /// Parses a URL and checks everything that needs no addresses.
    pub(super) fn check(&self, text: &str) -> Result<Url, OutboundError> {
        if self.is_empty() {
            return Err(OutboundError::UrlsDisabled);
        }
        let refused = |why: String| OutboundError::NotAllowed(why);
        if text.len() > MAX_URL_BYTES {
            return Err(refused(format!("the URL is longer than {MAX_URL_BYTES} bytes")));
        }
        let mut url = Url::parse(text).map_err(|error| refused(format!("expected a URL: {error}")))?;
        url.set_fragment(None);
        self.check_parsed(&url)?;
        Ok(url)
    }

    pub(super) fn check_parsed(&self, url: &Url) -> Result<(), OutboundError> {
        let refused = |why: &str| Err(OutboundError::NotAllowed(why.to_owned()));
        if !matches!(url.scheme(), "http" | "https") {
            return refused("the URL must begin with http:// or https://");
        }
        if !url.username().is_empty() || url.password().is_some() {
            return refused("the URL must not contain a user name or password");
        }
        let (Some(host), Some(port)) = (url.host(), url.port_or_known_default()) else {
            return refused("the URL names no host");
        };
        let private = self.find(&host.to_string(), port)?;
        match host {
            Host::Domain(_) => Ok(()),
            Host::Ipv4(address) => check_address(&address.to_string(), address.into(), private),
            Host::Ipv6(address) => check_address(&address.to_string(), address.into(), private),
        }
    }
}

/// Refuses an address that the host must not have.
pub(super) fn check_address(host: &str, address: IpAddr, private: bool) -> Result<(), OutboundError> {
    match class_of(address) {
        AddressClass::Public => Ok(()),
        AddressClass::Private if private => Ok(()),
        AddressClass::Private => Err(OutboundError::NotAllowed(format!(
            "{host} has an address in a private network; if that is intended, allow it as `{host}{PRIVATE_MARK}`"
        ))),
        AddressClass::Never => {
            Err(OutboundError::NotAllowed(format!("{host} has an address that is never contacted")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(texts: &[&str]) -> Rules {
        Rules::new(texts.iter().map(|text| text.parse().unwrap()).collect())
    }

    #[test]
    fn rules_are_read_and_written_alike() {
        for text in
            ["example.com", "*.example.com", "nas.lan:9000+private", "10.1.2.3+private", "[fd00::1]:80"]
        {
            assert_eq!(text.parse::<HostRule>().unwrap().to_string(), text);
        }
        assert_eq!("EXAMPLE.com.".parse::<HostRule>().unwrap().to_string(), "example.com");
        assert_eq!("0x7f.1".parse::<HostRule>().unwrap().to_string(), "127.0.0.1");
        assert_eq!("bücher.example".parse::<HostRule>().unwrap().to_string(), "xn--bcher-kva.example");
        for bad in [
            "",
            "*",
            "*.",
            "http://a.b",
            "a b",
            "a/b",
            "a@b",
            "*.10.0.0.1",
            "a:99999",
            "a?x",
            "+private",
            "*.*.a",
        ] {
            assert!(bad.parse::<HostRule>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_url_is_checked_whole() {
        let rules = rules(&[
            "media.example.com",
            "*.cdn.example",
            "nas.lan:9000+private",
            "10.0.0.7+private",
            "8.8.8.8",
        ]);
        for good in [
            "http://media.example.com/a.mp4",
            "HTTPS://Media.Example.COM./a.mp4?x=1#t=3",
            "https://a.cdn.example/",
            "https://a.b.cdn.example:443/",
            "http://nas.lan:9000/x",
            "http://10.0.0.7/x",
            "http://0xa.7/x",
            "http://8.8.8.8/",
        ] {
            assert!(rules.check(good).is_ok(), "{good}: {:?}", rules.check(good));
        }
        for bad in [
            "ftp://media.example.com/a",
            "file:///etc/passwd",
            "data:video/mp4;base64,AA",
            "//media.example.com/a",
            "media.example.com/a",
            "http://media.example.com:8080/",
            "http://user@media.example.com/",
            "http://:pass@media.example.com/",
            "http://media.example.com@evil.example/",
            "http://evil.example/?media.example.com",
            "http://media.example.com.evil.example/",
            "http://evilmedia.example.com/",
            "https://cdn.example/",
            "https://xcdn.example/",
            "http://nas.lan/",
            "http://10.0.0.8/",
            "http://127.0.0.1/",
            "http://2130706433/",
            "http://[::1]/",
            "http://[::ffff:10.0.0.7]/",
            "",
        ] {
            assert_eq!(rules.check(bad).map_err(|error| error.code()), Err("url_not_allowed"), "{bad}");
        }
        assert!(rules.check(&format!("http://media.example.com/{}", "x".repeat(9000))).is_err());
        assert_eq!(
            rules.check("http://media.example.com/#t=1").unwrap().as_str(),
            "http://media.example.com/"
        );
        assert_eq!(Rules::default().check("http://a.b/"), Err(OutboundError::UrlsDisabled));
    }

    #[test]
    fn an_address_that_is_listed_must_be_public_or_marked() {
        let listed = rules(&["127.0.0.1:81", "169.254.169.254+private"]);
        for bad in ["http://127.0.0.1:81/", "http://169.254.169.254/latest"] {
            assert_eq!(listed.check(bad).map_err(|error| error.code()), Err("url_not_allowed"), "{bad}");
        }
        assert!(rules(&["127.0.0.1:81+private"]).check("http://127.1:81/").is_ok());
    }
}
