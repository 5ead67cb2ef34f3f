//! Taps in network namespaces of their own: needs root (or CAP_SYS_ADMIN) and /dev/net/tun.

pub(crate) mod network;

use std::io::ErrorKind;

use proptest::prelude::*;

use super::*;
use network::{PacketSocket, in_new_network};

#[test]
fn created_tap_is_up_and_vanishes_with_its_file() {
    in_new_network(|| {
        let tap = Tap::create("made0").unwrap();
        let name = InterfaceName::new("made0").unwrap();
        assert!(tap.was_created());
        assert_eq!(tap.name(), "made0");
        assert!(ioctl::is_up(&name).unwrap());
        assert!(name.index().unwrap().is_some());
        drop(tap);
        assert_eq!(name.index().unwrap(), None);
    });
}

#[test]
fn created_tap_takes_a_number_for_a_pattern() {
    in_new_network(|| {
        let first = Tap::create("vm%d").unwrap();
        let second = Tap::create("vm%d").unwrap();
        assert_eq!((first.name(), second.name()), ("vm0", "vm1"));
    });
}

#[test]
fn existing_tap_stays_and_is_left_as_it_was() {
    in_new_network(|| {
        network::make_persistent_tap("stays0", false);
        let tap = Tap::open("stays0").unwrap();
        let name = InterfaceName::new("stays0").unwrap();
        assert!(!tap.was_created());
        assert!(!ioctl::is_up(&name).unwrap());
        drop(tap);
        assert!(name.index().unwrap().is_some());
        assert!(!Tap::open_or_create("stays0").unwrap().was_created());
        assert!(Tap::open_or_create("made0").unwrap().was_created());
    });
}

#[test]
fn each_failure_has_its_line() {
    in_new_network(|| {
        let line = |result: Result<Tap, TapError>| result.unwrap_err().to_string();
        assert_eq!(
            line(Tap::open("none0")),
            "no tap interface none0: create it with `ip tuntap add dev none0 mode tap user $USER`"
        );
        assert_eq!(
            line(Tap::create("sixteen-bytes-00")),
            "tap name \"sixteen-bytes-00\" has 16 bytes: an interface name has at most 15"
        );
        assert!(line(Tap::open("")).contains("it is empty"));
        assert!(line(Tap::open("a/b")).contains("slash"));
        assert!(line(Tap::open("..")).contains("folder"));
        assert_eq!(
            line(Tap::open("lo")),
            "interface lo is not a tap: `ip -d link show lo` says what it is"
        );

        let first = Tap::create("busy0").unwrap();
        assert_eq!(
            line(Tap::open("busy0")),
            "tap busy0 is busy: another process or device has it open"
        );
        assert_eq!(
            line(Tap::create("busy0")),
            "interface busy0 exists already: choose another name, or open the existing one"
        );
        drop(first);

        network::make_persistent_tap("many0", true);
        assert!(matches!(
            Tap::open("many0"),
            Err(TapError::MultiQueue { .. })
        ));
        network::make_persistent_tun("layer3");
        assert!(matches!(Tap::open("layer3"), Err(TapError::NotATap { .. })));
    });
}

#[test]
fn a_host_without_the_driver_is_told_what_to_load() {
    let error = open_tun_device("/dev/net/no-such-device").unwrap_err();
    assert_eq!(
        error.to_string(),
        "/dev/net/tun is missing: load the driver with `modprobe tun`"
    );
}

#[test]
fn without_the_capability_only_an_own_tap_opens() {
    in_new_network(|| {
        network::make_persistent_tap_of("others0", 12345);
        network::make_persistent_tap_of("own0", 0);
        network::drop_net_admin();
        let error = Tap::open("others0").unwrap_err();
        assert!(matches!(error, TapError::Permission { .. }), "{error}");
        assert!(error.to_string().contains("CAP_NET_ADMIN"));
        assert!(matches!(
            Tap::create("new0"),
            Err(TapError::CreatePermission { .. })
        ));
        Tap::open("own0").unwrap();
    });
}

#[test]
fn offloads_of_this_kernel_are_found_and_set() {
    in_new_network(|| {
        let tap = Tap::create("off0").unwrap();
        let supported = tap.supported_offloads();
        let old = TapOffloads::CSUM | TapOffloads::TSO4 | TapOffloads::TSO6 | TapOffloads::TSO_ECN;
        assert!(supported.contains(old), "{supported:?}");
        for offloads in [
            TapOffloads::NONE,
            TapOffloads::CSUM,
            old,
            supported,
            TapOffloads::NONE,
        ] {
            tap.set_offloads(offloads).unwrap();
        }
        // What the kernel refuses by itself is brought into a form that it takes.
        tap.set_offloads(TapOffloads::TSO4).unwrap();
        tap.set_offloads(TapOffloads::CSUM | TapOffloads::USO4)
            .unwrap();
        tap.set_offloads(TapOffloads::CSUM | TapOffloads::TSO_ECN)
            .unwrap();
    });
}

#[test]
fn mtu_is_read_and_set() {
    in_new_network(|| {
        let tap = Tap::create("mtu0").unwrap();
        assert_eq!(tap.mtu_bytes().unwrap(), 1500);
        tap.set_mtu_bytes(9000).unwrap();
        assert_eq!(tap.mtu_bytes().unwrap(), 9000);
        let error = tap.set_mtu_bytes(10).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("cannot set the MTU of tap mtu0: "),
            "{error}"
        );
    });
}

#[test]
fn frames_pass_both_ways_in_pieces() {
    in_new_network(|| {
        let tap = Tap::create("both0").unwrap();
        let host = PacketSocket::bind("both0");
        let mut storage = IoVectorStorage::new();

        let frame = network::frame(300, 1);
        let (mut header, mut sent) = ([0; HEADER_BYTES], frame.clone());
        let (left, right) = sent.split_at_mut(20);
        let mut vectors = IoVectors::new(&mut storage);
        vectors.push_bytes(&mut header).unwrap();
        vectors.push_bytes(left).unwrap();
        vectors.push_bytes(right).unwrap();
        assert_eq!(tap.write_frame(&vectors).unwrap(), 312);
        assert_eq!(host.receive(), frame);

        let frame = network::frame(500, 2);
        host.send(&frame);
        let (mut header, mut left, mut right) = ([0xff; HEADER_BYTES], vec![0; 100], vec![0; 1000]);
        let mut vectors = IoVectors::new(&mut storage);
        vectors.push_bytes(&mut header).unwrap();
        vectors.push_bytes(&mut left).unwrap();
        vectors.push_bytes(&mut right).unwrap();
        assert_eq!(tap.read_frame(&vectors).unwrap(), 512);
        assert_eq!(header[..10], [0; 10]);
        left.extend_from_slice(&right);
        assert_eq!(left[..500], frame);

        let mut rest = [0; 2048];
        let mut vectors = IoVectors::new(&mut storage);
        vectors.push_bytes(&mut rest).unwrap();
        assert_eq!(
            tap.read_frame(&vectors).unwrap_err().kind(),
            ErrorKind::WouldBlock
        );
    });
}

#[test]
fn deleted_interface_is_an_error_not_a_crash() {
    in_new_network(|| {
        network::make_persistent_tap("gone0", false);
        let tap = Tap::open("gone0").unwrap();
        network::delete(network::index("gone0"));
        let mut storage = IoVectorStorage::new();
        let mut bytes = [0; 64];
        let mut vectors = IoVectors::new(&mut storage);
        vectors.push_bytes(&mut bytes).unwrap();
        assert_eq!(
            tap.read_frame(&vectors).unwrap_err().raw_os_error(),
            Some(libc::EBADFD)
        );
    });
}

proptest! {
    #[test]
    fn any_text_is_a_name_or_an_error(text in "\\PC{0,20}|[a-z0-9%._-]{0,18}") {
        match InterfaceName::new(&text) {
            Ok(name) => {
                prop_assert_eq!(name.to_string(), &text[..]);
                let raw = name.to_ifreq_name();
                prop_assert_eq!(raw[libc::IFNAMSIZ - 1], 0);
                prop_assert_eq!(InterfaceName::from_ifreq_name(&raw), Some(name));
            }
            Err(error) => prop_assert!(!error.to_string().contains('\n')),
        }
    }

    #[test]
    fn normalised_offloads_are_stable_and_never_more(bits in 0u32..128) {
        let offloads = TapOffloads::from_bits_for_test(bits);
        let normalised = offloads.normalised();
        prop_assert!(offloads.contains(normalised));
        prop_assert_eq!(normalised.normalised(), normalised);
    }
}
