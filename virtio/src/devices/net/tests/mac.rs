//! Ethernet addresses.

use std::collections::HashSet;

use proptest::prelude::*;

use super::*;

#[test]
fn derived_addresses_are_the_same_for_ever() {
    // These values are a promise: a guest's leases and names hang on them.
    assert_eq!(MacAddress::derive("").to_string(), "9e:e4:84:22:e8:d7");
    assert_eq!(MacAddress::derive("web:0").to_string(), "ba:2e:09:2a:fb:c6");
}

#[test]
fn derived_addresses_are_local_and_differ() {
    let mut seen = HashSet::new();
    for machine in 0..200 {
        for index in 0..50 {
            let address = MacAddress::derive(&format!("machine{machine}:{index}"));
            assert!(address.is_locally_administered());
            assert_eq!(MacAddress::new(address.octets()), Ok(address));
            assert!(seen.insert(address));
        }
    }
}

#[test]
fn addresses_that_no_interface_has_are_refused() {
    let line = |text: &str| text.parse::<MacAddress>().unwrap_err().to_string();
    assert_eq!(
        line("52-54-00-12-34-56"),
        "MAC address \"52-54-00-12-34-56\" is not six pairs of hexadecimal digits as in 52:01:02:03:04:05"
    );
    assert!(line("01:00:5e:00:00:01").contains("multicast"));
    assert!(line("ff:ff:ff:ff:ff:ff").contains("multicast"));
    assert!(line("00:00:00:00:00:00").contains("nobody"));
    for text in [
        "",
        ":",
        "52:54:00:12:34",
        "52:54:00:12:34:56:78",
        "52:54:0:12:34:56",
        "+2:54:00:12:34:56",
    ] {
        assert!(line(text).contains("six pairs"), "{text}");
    }
    let assigned: MacAddress = "00:16:3E:00:00:01".parse().unwrap();
    assert!(!assigned.is_locally_administered());
    assert_eq!(assigned.to_string(), "00:16:3e:00:00:01");
}

proptest! {
    #[test]
    fn text_and_octets_are_the_same(octets: [u8; 6]) {
        if let Ok(address) = MacAddress::new(octets) {
            prop_assert_eq!(address.to_string().parse(), Ok(address));
            prop_assert_eq!(address.octets(), octets);
        } else {
            prop_assert!(octets[0] & 1 == 1 || octets == [0; 6]);
        }
    }

    #[test]
    fn any_text_is_an_address_or_an_error(text in "\\PC{0,24}|[0-9a-fA-F:]{10,20}") {
        if let Ok(address) = text.parse::<MacAddress>() {
            prop_assert_eq!(address.to_string(), text.to_lowercase());
        }
    }
}
