//! Who is at the other end: the peer itself, or whom a trusted proxy speaks for.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, header};
use axum::middleware::Next;
use axum::response::Response;
use ipnet::IpNet;

use super::state::AppState;
use crate::connections::PeerAddr;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// The client, identified by address. In the extensions of every request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Client {
    /// The peer's address, or the client's where the peer is a trusted proxy.
    pub address: IpAddr,
    /// Whether the client speaks to the proxy over TLS.
    pub https: bool,
}

/// The outermost layer: puts the [`Client`] into the request.
pub async fn identify(State(state): State<AppState>, mut request: Request, next: Next) -> Response {
    let client = Client::of(&request, &state.config.trusted_proxies);
    request.extensions_mut().insert(client);
    next.run(request).await
}

impl Client {
    fn of(request: &Request, trusted: &[IpNet]) -> Self {
        let peer = request.extensions().get::<PeerAddr>().map(|peer| peer.0.ip().to_canonical());
        // There is always a peer but in tests of parts; nobody trusts this one.
        let peer = peer.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        Self::behind(peer, request.headers(), trusted)
    }

    /// The client of a request that came from `peer`.
    fn behind(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> Self {
        let trusts = |address: IpAddr| trusted.iter().any(|network| network.contains(&address));
        if !trusts(peer) {
            return Self { address: peer, https: false };
        }
        let listed: Vec<_> = items(headers, &FORWARDED_FOR).map(address_of).collect();
        let elements: Vec<_> = items(headers, &header::FORWARDED).collect();
        let named: Vec<_> = elements.iter().map(|item| parameter(item, "for").and_then(address_of)).collect();
        let nearest = |hops: &[Option<IpAddr>]| {
            let mut at = peer;
            for hop in hops.iter().rev() {
                match hop {
                    Some(before) if trusts(at) => at = *before,
                    _ => break,
                }
            }
            at
        };
        let (by_list, by_name) = (nearest(&listed), nearest(&named));
        let address = match (listed.is_empty(), named.is_empty()) {
            (_, true) => by_list,
            (true, false) => by_name,
            (false, false) if by_list == by_name => by_list,
            // A proxy writes one of the two headers, and forwards whatever the client sent as the other.
            (false, false) => peer,
        };
        let proto = items(headers, &FORWARDED_PROTO).last();
        let named_proto = elements.last().and_then(|item| parameter(item, "proto"));
        let is_https = |text: &str| text.eq_ignore_ascii_case("https");
        let https = match (proto, named_proto) {
            (None, None) => false,
            (Some(one), None) | (None, Some(one)) => is_https(one),
            (Some(one), Some(other)) => is_https(one) && is_https(other),
        };
        Self { address, https }
    }
}

/// The items of a header that is a list, over all its lines; one that is not text is an empty item.
fn items<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let lines = headers.get_all(name).into_iter().map(|line| line.to_str().unwrap_or(""));
    lines.flat_map(|line| line.split(',')).map(str::trim)
}

/// A parameter of one element of `Forwarded`. Commas within quotes do not occur in what is looked for.
fn parameter<'a>(element: &'a str, name: &str) -> Option<&'a str> {
    let mut pairs = element.split(';').filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim_matches('"'))
}

/// An address, with or without a port.
fn address_of(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let address = bare.parse::<IpAddr>().ok().or_else(|| Some(text.parse::<SocketAddr>().ok()?.ip()));
    address.map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(peer: &str, headers: &[(&'static str, &str)]) -> (String, bool) {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        let trusted = ["10.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()];
        let client = Client::behind(peer.parse().unwrap(), &map, &trusted);
        (client.address.to_string(), client.https)
    }

    #[test]
    fn only_trusted_proxies_speak_for_others() {
        let headers = [("x-forwarded-for", "192.0.2.7"), ("x-forwarded-proto", "https")];
        assert_eq!(client("10.1.1.1", &headers), ("192.0.2.7".into(), true));
        assert_eq!(client("::1", &headers), ("192.0.2.7".into(), true));
        assert_eq!(client("192.0.2.1", &headers), ("192.0.2.1".into(), false));
        assert_eq!(client("10.1.1.1", &[]), ("10.1.1.1".into(), false));
    }

    #[test]
    fn what_a_client_makes_up_is_not_believed() {
        for (value, address) in [
            // The client wrote the first, the proxy the last.
            ("127.0.0.1, 192.0.2.7", "192.0.2.7"),
            ("10.9.9.9, 192.0.2.7", "192.0.2.7"),
            ("192.0.2.1, 192.0.2.7, 10.2.2.2", "192.0.2.7"),
            ("10.3.3.3, 10.2.2.2", "10.3.3.3"),
            ("192.0.2.7:4711", "192.0.2.7"),
            ("[2001:db8::1]:4711", "2001:db8::1"),
            ("2001:db8::1", "2001:db8::1"),
            ("::ffff:192.0.2.7", "192.0.2.7"),
            ("unknown", "10.1.1.1"),
            ("192.0.2.7, unknown, 10.2.2.2", "10.2.2.2"),
            ("192.0.2.7,", "10.1.1.1"),
            ("", "10.1.1.1"),
        ] {
            assert_eq!(client("10.1.1.1", &[("x-forwarded-for", value)]).0, address, "{value}");
        }
        let lines = [("x-forwarded-for", "127.0.0.1"), ("x-forwarded-for", "192.0.2.7")];
        assert_eq!(client("10.1.1.1", &lines).0, "192.0.2.7");
    }

    #[test]
    fn the_standard_header_is_read_too() {
        for (value, address, https) in [
            ("for=192.0.2.7;proto=https;by=10.1.1.1", "192.0.2.7", true),
            ("For=\"[2001:db8::1]:4711\"; Proto=http", "2001:db8::1", false),
            ("for=127.0.0.1;proto=https, for=192.0.2.7", "192.0.2.7", false),
            ("for=_hidden", "10.1.1.1", false),
            ("proto=https", "10.1.1.1", true),
        ] {
            assert_eq!(client("10.1.1.1", &[("forwarded", value)]), (address.into(), https), "{value}");
        }
        let both = [("forwarded", "for=127.0.0.1;proto=https"), ("x-forwarded-for", "192.0.2.7")];
        assert_eq!(client("10.1.1.1", &both).0, "10.1.1.1", "they do not agree");
        let both = [("forwarded", "for=192.0.2.7"), ("x-forwarded-for", "192.0.2.7")];
        assert_eq!(client("10.1.1.1", &both).0, "192.0.2.7");
    }
}
