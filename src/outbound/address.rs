//! Classifies addresses: public internet, private networks, and addresses never to be dialled.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The kind of network that an address belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressClass {
    /// A host of the public internet.
    Public,
    /// A private network (RFC 1918, unique local, shared by a carrier), or this machine: allowed only for
    /// hosts marked as private.
    Private,
    /// Never dialled: link-local (cloud metadata services), multicast, unspecified, reserved, documentation,
    /// or a tunnel to an address that is not public.
    Never,
}

/// The class of an address.
#[must_use]
pub fn class_of(address: IpAddr) -> AddressClass {
    match address {
        IpAddr::V4(v4) => class_of_v4(v4),
        IpAddr::V6(v6) => class_of_v6(v6),
    }
}

const fn class_of_v4(address: Ipv4Addr) -> AddressClass {
    use AddressClass::{Never, Private, Public};
    match address.octets() {
        [10 | 127, ..] | [192, 168, ..] => Private,
        [172, b, ..] if b & 0xf0 == 16 => Private,
        [100, b, ..] if b & 0xc0 == 64 => Private,
        // "This network", link-local, protocol assignments, 6to4 relays, benchmarks, multicast, reserved.
        [0, ..]
        | [169, 254, ..]
        | [192, 0, 0, _]
        | [192, 88, 99, _]
        | [198, 18 | 19, ..]
        | [224..=255, ..] => Never,
        // Documentation.
        [192, 0, 2, _] | [198, 51, 100, _] | [203, 0, 113, _] => Never,
        _ => Public,
    }
}

const fn class_of_v6(address: Ipv6Addr) -> AddressClass {
    use AddressClass::{Never, Private};
    let [a, b, c, d, e, f, g, h] = address.segments();
    match [a, b, c, d, e, f, g, h] {
        [0, 0, 0, 0, 0, 0, 0, 1] => Private,
        [0, 0, 0, 0, 0, 0xffff, ..] => class_of_v4(embedded(g, h)),
        // NAT64 and 6to4 lead to the embedded IPv4 address.
        [0x64, 0xff9b, 0, 0, 0, 0, ..] => detour(g, h),
        [0x2002, ..] => detour(b, c),
        [0xfc00..=0xfdff, ..] => Private,
        // Teredo, ORCHID and the other protocol assignments; documentation.
        [0x2001, 0..=0x1ff, ..] | [0x2001, 0x0db8, ..] | [0x3fff, 0..=0x0fff, ..] => Never,
        [0x2000..=0x3fff, ..] => AddressClass::Public,
        // Unspecified, IPv4-compatible, discard, link-local, site-local, multicast, unassigned.
        _ => Never,
    }
}

const fn embedded(high: u16, low: u16) -> Ipv4Addr {
    let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
    Ipv4Addr::new(a, b, c, d)
}

const fn detour(high: u16, low: u16) -> AddressClass {
    match class_of_v4(embedded(high, low)) {
        AddressClass::Public => AddressClass::Public,
        AddressClass::Private | AddressClass::Never => AddressClass::Never,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_class_by_its_edges() {
        use AddressClass::{Never, Private, Public};
        for (text, class) in [
            ("8.8.8.8", Public),
            ("1.1.1.1", Public),
            ("9.255.255.255", Public),
            ("10.0.0.0", Private),
            ("10.255.255.255", Private),
            ("11.0.0.0", Public),
            ("100.63.255.255", Public),
            ("100.64.0.0", Private),
            ("100.127.255.255", Private),
            ("100.128.0.0", Public),
            ("126.255.255.255", Public),
            ("127.0.0.1", Private),
            ("127.255.255.254", Private),
            ("128.0.0.0", Public),
            ("169.253.255.255", Public),
            ("169.254.169.254", Never),
            ("169.255.0.0", Public),
            ("172.15.255.255", Public),
            ("172.16.0.0", Private),
            ("172.31.255.255", Private),
            ("172.32.0.0", Public),
            ("192.0.0.8", Never),
            ("192.0.1.1", Public),
            ("192.0.2.1", Never),
            ("192.88.99.1", Never),
            ("192.167.255.255", Public),
            ("192.168.0.1", Private),
            ("192.169.0.0", Public),
            ("198.17.255.255", Public),
            ("198.18.0.1", Never),
            ("198.19.255.255", Never),
            ("198.20.0.0", Public),
            ("198.51.100.7", Never),
            ("203.0.113.9", Never),
            ("223.255.255.255", Public),
            ("224.0.0.1", Never),
            ("240.0.0.1", Never),
            ("255.255.255.255", Never),
            ("0.0.0.0", Never),
            ("0.1.2.3", Never),
            ("::", Never),
            ("::1", Private),
            ("::2", Never),
            ("::ffff:8.8.8.8", Public),
            ("::ffff:127.0.0.1", Private),
            ("::ffff:169.254.169.254", Never),
            ("::127.0.0.1", Never),
            ("::ffff:0:127.0.0.1", Never),
            ("64:ff9b::8.8.8.8", Public),
            ("64:ff9b::10.0.0.1", Never),
            ("64:ff9b::127.0.0.1", Never),
            ("64:ff9b:1::8.8.8.8", Never),
            ("100::1", Never),
            ("2001::1", Never),
            ("2001:1ff::1", Never),
            ("2001:200::1", Public),
            ("2001:db8::1", Never),
            ("2002:0808:0808::1", Public),
            ("2002:7f00:1::1", Never),
            ("2002:c0a8:1::", Never),
            ("2606:4700::1111", Public),
            ("3fff::1", Never),
            ("3fff:1000::1", Public),
            ("4000::1", Never),
            ("5f00::1", Never),
            ("fc00::1", Private),
            ("fdff:ffff::1", Private),
            ("fe80::1", Never),
            ("fec0::1", Never),
            ("ff02::1", Never),
        ] {
            assert_eq!(class_of(text.parse().unwrap()), class, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_the_standard_library_calls_local_is_never_public(bits in any::<u32>()) {
            let v4 = Ipv4Addr::from_bits(bits);
            let local = v4.is_private() || v4.is_loopback() || v4.is_link_local() || v4.is_multicast()
                || v4.is_unspecified() || v4.is_broadcast() || v4.is_documentation();
            if local {
                prop_assert_ne!(class_of(v4.into()), AddressClass::Public);
            }
            // However an address is wrapped, its class does not improve.
            let plain = class_of(v4.into());
            prop_assert_eq!(class_of(v4.to_ipv6_mapped().into()), plain);
            let [a, b, c, d] = v4.octets();
            let (high, low) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
            for wrapped in [
                Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low),
                Ipv6Addr::new(0x2002, high, low, 0, 0, 0, 0, 1),
            ] {
                prop_assert_eq!(class_of(wrapped.into()) == AddressClass::Public, plain == AddressClass::Public);
            }
        }

        #[test]
        fn only_global_unicast_is_public(bits in any::<u128>()) {
            let v6 = Ipv6Addr::from_bits(bits);
            if class_of(v6.into()) == AddressClass::Public {
                let translated = bits >> 32 == 0xffff || bits >> 32 == 0x0064_ff9b_0000_0000_0000_0000;
                prop_assert!(bits >> 125 == 1 || translated);
            }
        }
    }
}
