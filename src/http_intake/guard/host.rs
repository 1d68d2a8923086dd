//! Checks the Host and Origin of requests, against pages of other sites.

use axum::http::{HeaderMap, HeaderName, Method, StatusCode, Uri, header};

use crate::access::{Host, HostName};
use crate::http_kit::error::ApiError;

/// Without a key a foreign page could rebind its own name to this server and read the library. So exactly
/// one host is named, it is nothing but a host, and it is one of ours.
pub fn check(uri: &Uri, headers: &HeaderMap, allowed: &[String]) -> Result<(), ApiError> {
    let host = one(headers, &header::HOST).and_then(Host::parse).ok_or_else(invalid_host)?;
    // A request line may name a host too, which then counts for routers and proxies before us.
    if let Some(named) = uri.authority() {
        let named = Host::parse(named.as_str().as_bytes()).ok_or_else(invalid_host)?;
        if !named.is(&host, default_port(uri.scheme_str().unwrap_or("http"))) {
            return Err(invalid_host());
        }
    }
    match &host.name {
        HostName::Address(_) => Ok(()),
        HostName::Dns(name)
            if name == "localhost" || allowed.iter().any(|a| a.eq_ignore_ascii_case(name)) =>
        {
            Ok(())
        }
        HostName::Dns(_) => Err(ApiError::new(
            StatusCode::FORBIDDEN,
            "host_not_allowed",
            "the Host header does not name this server; create an API key, or allow the name with --allow-host",
        )),
    }
}

fn invalid_host() -> ApiError {
    let message =
        "send exactly one Host header of the form NAME or NAME:PORT, the same as in the request's address";
    ApiError::new(StatusCode::BAD_REQUEST, "invalid_host", message)
}

/// A browser states the origin of a request: a page of another site must not change the library.
pub fn check_origin(method: &Method, headers: &HeaderMap) -> Result<(), ApiError> {
    let harmless = matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
    if harmless || !headers.contains_key(header::ORIGIN) {
        return Ok(());
    }
    let own = || {
        let host = one(headers, &header::HOST).and_then(Host::parse)?;
        let origin = std::str::from_utf8(one(headers, &header::ORIGIN)?).ok()?;
        let (scheme, from) = origin.split_once("://")?;
        let port = default_port(scheme)?;
        Some(Host::parse(from.as_bytes())?.is(&host, Some(port)))
    };
    if own() == Some(true) {
        return Ok(());
    }
    let message = "requests from web pages of other sites are not allowed";
    Err(ApiError::new(StatusCode::FORBIDDEN, "cross_origin_refused", message))
}

/// The value of a header that occurs exactly once.
fn one<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a [u8]> {
    let mut values = headers.get_all(name).into_iter();
    let first = values.next()?;
    values.next().is_none().then(|| first.as_bytes())
}

fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn headers(pairs: &[(&'static str, &[u8])]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(*name, HeaderValue::from_bytes(value).unwrap());
        }
        map
    }

    fn checked(uri: &str, hosts: &[&[u8]]) -> bool {
        let lines: Vec<_> = hosts.iter().map(|host| ("host", *host)).collect();
        check(&uri.parse().unwrap(), &headers(&lines), &["media.lan".to_owned()]).is_ok()
    }

    const GOOD: &[&str] = &[
        "localhost",
        "localhost:8080",
        "LOCALHOST:1",
        "127.0.0.1",
        "127.0.0.1:65535",
        "10.0.0.1",
        "[::1]",
        "[::1]:8080",
        "[2001:db8::1]:80",
        "Media.lan",
        "media.LAN:443",
    ];
    const BAD: &[&str] = &[
        "",
        " ",
        ":80",
        "evil.example",
        "evil.example:8080",
        "127.0.0.1:evil.example",
        "[::1]evil.example",
        "[::1]:evil",
        "[::1",
        "::1",
        "localhost@evil.example",
        "evil.example@localhost",
        "localhost:80@evil",
        "user:pw@localhost",
        "localhost.",
        "media.lan.",
        "127.0.0.1.",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "localhost:",
        "localhost:0",
        "localhost:65536",
        "localhost:99999999",
        "localhost:+80",
        "localhost:-1",
        "localhost:8 0",
        "localhost:80:80",
        "localhost,evil.example",
        "localhost evil.example",
        "localhost/evil",
        "localhost?evil",
        "localhost#evil",
        "localhost\\evil",
        "http://localhost",
        "[::1%25lo]",
        "[fe80::1%eth0]:80",
        "[127.0.0.1]",
        "[localhost]",
        "[v1.x]",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0x7f.0.0.1",
        "0177.0.0.1x.1",
        "127.0.0.01",
        "loc%61lhost",
        "localhost%00",
        "localhost\t",
        "-localhost",
        "locаlhost",
    ];

    #[test]
    fn one_plain_host_of_ours_is_wanted() {
        for good in GOOD {
            assert!(checked("/", &[good.as_bytes()]), "{good}");
        }
        for bad in BAD {
            assert!(!checked("/", &[bad.as_bytes()]), "{bad}");
        }
        assert!(!checked("/", &[]), "none");
        assert!(!checked("/", &[b"localhost", b"localhost"]), "two");
        assert!(!checked("/", &[b"localhost", b"evil.example"]), "two");
        assert!(!checked("/", &[b"localhost\xff", b"\xff"]), "not ASCII");
    }

    #[test]
    fn the_request_line_may_not_name_another() {
        for (uri, host, good) in [
            ("http://localhost:8080/x", "localhost:8080", true),
            ("http://localhost/x", "localhost:80", true),
            ("https://localhost/x", "localhost", true),
            ("https://localhost/x", "localhost:80", false),
            ("http://evil.example/x", "localhost", false),
            ("http://localhost:9090/x", "localhost:8080", false),
            ("http://a@localhost/x", "localhost", false),
            ("http://localhost/x", "evil.example", false),
        ] {
            assert_eq!(checked(uri, &[host.as_bytes()]), good, "{uri} {host}");
        }
    }

    #[test]
    fn other_sites_may_not_change_anything() {
        let origin = |method: &str, host: &str, origins: &[&[u8]]| {
            let mut map = headers(&[("host", host.as_bytes())]);
            for origin in origins {
                map.append("origin", HeaderValue::from_bytes(origin).unwrap());
            }
            check_origin(&method.parse().unwrap(), &map).is_ok()
        };
        assert!(origin("POST", "localhost:8080", &[]));
        assert!(origin("GET", "localhost:8080", &[b"http://evil.example"]));
        for (host, good) in [
            ("localhost:8080", "http://localhost:8080"),
            ("Localhost:8080", "http://localhost:8080"),
            ("media.example", "https://media.example"),
            ("media.example:443", "https://media.example"),
            ("media.example", "http://media.example:80"),
            ("[::1]:8080", "http://[::1]:8080"),
        ] {
            assert!(origin("POST", host, &[good.as_bytes()]), "{host} {good}");
        }
        for bad in [
            "http://evil.example",
            "null",
            "",
            "http://localhost:9090",
            "http://localhost",
            "localhost:8080",
            "//localhost:8080",
            "file://localhost:8080",
            "http://localhost:8080/",
            "http://localhost:8080@evil",
            "http://localhost:8080.evil.example",
            "chrome-extension://localhost:8080",
            "http://l\u{f6}calhost:8080",
        ] {
            assert!(!origin("POST", "localhost:8080", &[bad.as_bytes()]), "{bad}");
            assert!(!origin("DELETE", "localhost:8080", &[bad.as_bytes()]), "{bad}");
        }
        assert!(!origin("POST", "localhost:8080", &[b"\xff"]));
        assert!(!origin("POST", "localhost:8080", &[b"http://localhost:8080", b"http://localhost:8080"]));
        assert!(
            check_origin(&Method::POST, &headers(&[("origin", b"http://localhost")])).is_err(),
            "no host"
        );
    }

    /// A browser's reading of the host of an address, the reference for the parser.
    fn browser_reads(host: &str) -> Option<url::Url> {
        let url = url::Url::parse(&format!("http://{host}/")).ok()?;
        let bare = url.username().is_empty() && url.password().is_none() && url.path() == "/";
        (bare && url.query().is_none() && url.fragment().is_none()).then_some(url)
    }

    fn text() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            4 => prop::sample::select([GOOD, BAD].concat()).prop_map(|text| text.as_bytes().to_vec()),
            2 => prop::sample::select(vec![":", ".", "@", "[", "]", "%", "/", "\\", ",", " ", "0", "80", "x", "-"])
                .prop_map(|text| text.as_bytes().to_vec()),
            1 => prop::collection::vec(any::<u8>(), 1..3),
        ];
        prop::collection::vec(piece, 1..4).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]

        /// Whatever passes is to a browser an address, localhost or the allowed name, with the same port.
        #[test]
        fn what_passes_is_ours_to_a_browser_too(bytes in text()) {
            let Ok(value) = HeaderValue::from_bytes(&bytes) else { return Ok(()) };
            let mut map = HeaderMap::new();
            map.insert(header::HOST, value);
            if check(&Uri::from_static("/"), &map, &["media.lan".to_owned()]).is_ok() {
                let text = std::str::from_utf8(&bytes).unwrap();
                let url = browser_reads(text).unwrap();
                match url.host().unwrap() {
                    url::Host::Domain(name) => prop_assert!(["localhost", "media.lan"].contains(&name), "{text}"),
                    url::Host::Ipv4(v4) => prop_assert!(text.starts_with(&v4.to_string()), "{text}"),
                    url::Host::Ipv6(_) => prop_assert!(text.starts_with('[')),
                }
                let port = Host::parse(&bytes).unwrap().port.unwrap_or(80);
                prop_assert_eq!(url.port_or_known_default(), Some(port));
            }
        }

        /// And every plain spelling of what is ours passes.
        #[test]
        fn ours_pass(name in prop::sample::select(GOOD), port in prop::option::of(1_u16..)) {
            let bare = name.rsplit_once(':').filter(|(_, p)| p.parse::<u16>().is_ok() && !p.is_empty());
            let bare = bare.map_or(name, |(name, _)| name);
            let host = port.map_or_else(|| bare.to_owned(), |port| format!("{bare}:{port}"));
            prop_assert!(checked("/", &[host.as_bytes()]), "{}", host);
        }
    }
}
