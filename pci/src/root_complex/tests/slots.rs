use std::sync::atomic::{AtomicU32, Ordering};

use bus::{Msi, MsiSink, UnconnectedIrqLine};

use super::*;
use crate::root_complex::PORT_WINDOW_BYTES;
use crate::{AttachError, RootPort, RootPortOptions, SlotListener};

#[derive(Debug, Default)]
struct Owner {
    messages: AtomicU32,
    permitted: AtomicU32,
}

impl MsiSink for Owner {
    fn send(&self, _message: Msi) {
        self.messages.fetch_add(1, Ordering::SeqCst);
    }
}

impl SlotListener for Owner {
    fn removal_permitted(&self) {
        self.permitted.fetch_add(1, Ordering::SeqCst);
    }
}

fn add_port(complex: &mut RootComplex, slot_number: u16) -> Arc<Owner> {
    let owner = Arc::new(Owner::default());
    let port = RootPort::new(RootPortOptions {
        slot_number,
        messages: owner.clone(),
        pin: Arc::new(UnconnectedIrqLine),
        interrupt_line: 16,
        listener: owner.clone(),
    });
    complex.add_port(port.unwrap()).unwrap();
    owner
}

/// Ports are devices 1 and 2.
fn two_ports() -> RootComplex {
    let windows = Windows::new(BELOW..BELOW + 0x100_0000, None).unwrap();
    let mut complex = RootComplex::new(0, windows);
    add_port(&mut complex, 1);
    add_port(&mut complex, 2);
    complex
}

const fn behind(bus: u8) -> FunctionAddress {
    FunctionAddress {
        bus,
        ..FunctionAddress::on_root_bus(0)
    }
}

fn id(complex: &RootComplex, address: FunctionAddress) -> u32 {
    let mut data = [0; 4];
    complex.read_config(address, 0, &mut data);
    u32::from_le_bytes(data)
}

fn write_behind(complex: &RootComplex, bus: u8, register: u16, value: u32) {
    let effect = complex.write_config(behind(bus), register, &value.to_le_bytes());
    assert_eq!(effect, Effect::None);
}

fn low(address: u64) -> u32 {
    u32::try_from(address).unwrap()
}

/// Start of the window of the port that is `device`.
fn window(device: u64) -> u64 {
    BELOW + (device - 1) * PORT_WINDOW_BYTES
}

#[test]
fn a_device_behind_a_port_comes_and_goes() {
    let complex = two_ports();
    assert_eq!(complex.last_bus(), 2);
    assert_eq!(read(&complex, 2, 0x18), 0x0002_0200);
    assert_eq!(id(&complex, behind(1)), u32::MAX);
    let function = probe(9, &[(0, SMALL)]);
    let nowhere = complex.attach(0, function.clone());
    assert_eq!(nowhere, Err(AttachError::NoSlot));
    for _ in 0..3 {
        complex.attach(2, function.clone()).unwrap();
        let other = complex.attach(2, probe(8, &[]));
        assert_eq!(other, Err(AttachError::Occupied));
        assert_eq!(id(&complex, behind(2)), 0x0009_1af4);
        let elsewhere = [
            behind(1),
            behind(3),
            FunctionAddress {
                device: 1,
                ..behind(2)
            },
            FunctionAddress {
                function: 1,
                ..behind(2)
            },
            FunctionAddress {
                segment: 1,
                ..behind(2)
            },
        ];
        for address in elsewhere {
            assert_eq!(id(&complex, address), u32::MAX, "{address}");
        }
        write_behind(&complex, 2, 0x10, low(window(2)));
        write_behind(&complex, 2, 4, 6);
        assert_eq!(at(&complex, window(2)), 9);
        let removed = complex.detach(2).unwrap();
        assert_eq!(id(&complex, behind(2)), u32::MAX);
        assert_eq!(at(&complex, window(2)), 0xff);
        let locked = function.lock().unwrap();
        assert_eq!(locked.moves.last(), Some(&(0, None)));
        assert!(!locked.configuration.has_command(2), "it is reset");
        drop(locked);
        drop(removed);
        assert_eq!(Arc::strong_count(&function), 1, "nobody has it any more");
        assert!(complex.detach(2).is_none());
    }
}

#[test]
fn registers_are_reached_through_the_ports_window_alone() {
    let complex = two_ports();
    let function = probe(9, &[(0, SMALL), (1, SMALL)]);
    complex.attach(1, function.clone()).unwrap();
    write_behind(&complex, 1, 0x10, low(window(1) + 0x1000));
    write_behind(&complex, 1, 0x14, low(window(2)));
    write_behind(&complex, 1, 4, 2);
    assert_eq!(at(&complex, window(1) + 0x1000), 9);
    assert_eq!(at(&complex, window(2)), 0xff, "another port's window");
    // The window moves over the other registers.
    let register = low(window(2)) >> 16;
    write(&complex, 1, 0x20, register << 16 | register);
    assert_eq!(at(&complex, window(1) + 0x1000), 0xff);
    assert_eq!(at(&complex, window(2)), 9);
    write(&complex, 1, 4, 4);
    assert_eq!(at(&complex, window(2)), 0xff, "memory is not forwarded");
    let function = function.lock().unwrap();
    assert_eq!(function.moves.last(), Some(&(1, None)));
    assert!(function.forwarded);
    drop(function);
    write(&complex, 1, 4, 6);
    assert_eq!(at(&complex, window(2)), 9);
}

#[test]
fn a_port_forwards_buses_requests_and_resets() {
    let complex = two_ports();
    let function = probe(9, &[(0, SMALL)]);
    complex.attach(1, function.clone()).unwrap();
    write(&complex, 1, 0x18, 0x0007_0700);
    assert_eq!(id(&complex, behind(1)), u32::MAX);
    assert_eq!(id(&complex, behind(7)), 0x0009_1af4);
    // The root bus is not behind a port.
    write(&complex, 1, 0x18, 0);
    assert_eq!(id(&complex, behind(0)) >> 16, 0x0d57);
    write(&complex, 1, 0x18, 0x0001_0100);
    let forwarded = || function.lock().unwrap().forwarded;
    assert!(forwarded());
    write(&complex, 1, 4, 2);
    assert!(!forwarded());
    write(&complex, 1, 4, 6);
    assert!(forwarded());
    write_behind(&complex, 1, 0x10, low(window(1)));
    write_behind(&complex, 1, 4, 6);
    assert_eq!(at(&complex, window(1)), 9);
    write(&complex, 1, 0x3c, 0x40 << 16);
    assert_eq!(at(&complex, window(1)), 0xff);
    assert_eq!(function.lock().unwrap().resets, 1);
    write(&complex, 1, 0x3c, 0x40 << 16);
    write(&complex, 1, 0x3c, 0);
    assert_eq!(function.lock().unwrap().resets, 1, "once");
    // A device that comes to a closed port.
    let second = probe(8, &[]);
    write(&complex, 2, 4, 0);
    complex.attach(2, second.clone()).unwrap();
    assert!(!second.lock().unwrap().forwarded);
}

#[test]
fn a_device_that_is_there_at_the_start_has_addresses() {
    let complex = two_ports();
    let function = probe(9, &[(0, SMALL), (2, WIDE)]);
    complex.attach_at_start(2, function).unwrap();
    write_behind(&complex, 2, 4, 6);
    assert_eq!(at(&complex, window(2)), 9);
    assert_eq!(at(&complex, window(2) + 0x8000), 9);
    let large = bar(PORT_WINDOW_BYTES * 2, BarWidth::Bits32);
    assert!(matches!(
        complex.attach_at_start(1, probe(8, &[(0, large)])),
        Err(AttachError::Place(_))
    ));
    assert_eq!(id(&complex, behind(1)), u32::MAX);
}

#[test]
fn there_is_an_end_of_ports() {
    let windows = Windows::new(BELOW..BELOW + 2 * PORT_WINDOW_BYTES, None).unwrap();
    let mut complex = RootComplex::new(0, windows);
    add_port(&mut complex, 1);
    add_port(&mut complex, 2);
    let owner = Arc::new(Owner::default());
    let port = RootPort::new(RootPortOptions {
        slot_number: 3,
        messages: owner.clone(),
        pin: Arc::new(UnconnectedIrqLine),
        interrupt_line: 16,
        listener: owner,
    });
    let refused = complex.add_port(port.unwrap());
    assert_eq!(refused, Err(PlaceError::NoWindow));
}

/// An owner and two vCPUs at the same slot: no lock is waited for in a circle, and in the end nobody has the
/// function any more.
#[test]
fn a_device_comes_and_goes_while_vcpus_use_it() {
    let complex = Arc::new(two_ports());
    let function = probe(9, &[(0, SMALL)]);
    let ends = AtomicU32::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while ends.load(Ordering::SeqCst) == 0 {
                write_behind(&complex, 1, 0x10, low(window(1)));
                write_behind(&complex, 1, 4, 6);
                let found = at(&complex, window(1));
                assert!(found == 9 || found == 0xff);
            }
        });
        scope.spawn(|| {
            let register = low(window(2)) >> 16;
            let elsewhere = register << 16 | register;
            let here = read(&complex, 1, 0x20);
            while ends.load(Ordering::SeqCst) == 0 {
                for (register, value) in [(0x20, elsewhere), (0x20, here), (4, 4), (4, 6)] {
                    write(&complex, 1, register, value);
                }
            }
        });
        for _ in 0..500 {
            complex.attach(1, function.clone()).unwrap();
            complex.request_removal(1).unwrap();
            complex.withdraw_request(1);
            drop(complex.detach(1).unwrap());
        }
        ends.store(1, Ordering::SeqCst);
    });
    assert_eq!(at(&complex, window(1)), 0xff);
    assert_eq!(Arc::strong_count(&function), 1);
}

#[derive(Debug, Clone)]
enum Action {
    Port(u8, u16, u32),
    Behind(u8, u16, u32),
    Attach(u8),
    Request(u8),
    Withdraw(u8),
    Detach(u8),
}

fn value() -> impl Strategy<Value = u32> {
    prop_oneof![
        any::<u32>(),
        0_u32..0x400,
        (0_u32..8).prop_map(|page| low(BELOW) + page * 0x10_0000),
        (0_u32..8).prop_map(|megabyte| 0xfff0_0000 | ((low(BELOW) >> 16) + megabyte * 0x10)),
    ]
}

fn action() -> impl Strategy<Value = Action> {
    let port = || 1_u8..3;
    prop_oneof![
        4 => (port(), 0_u16..64, value()).prop_map(|(port, at, value)| Action::Port(port, at * 4, value)),
        4 => (0_u8..4, 0_u16..8, value()).prop_map(|(bus, at, value)| Action::Behind(bus, at * 4, value)),
        1 => (port(), Just(4_u16), Just(6_u32)).prop_map(|(port, at, value)| Action::Port(port, at, value)),
        1 => (0_u8..4, Just(4_u16), Just(6_u32)).prop_map(|(bus, at, value)| Action::Behind(bus, at, value)),
        2 => port().prop_map(Action::Attach),
        1 => port().prop_map(Action::Request),
        1 => port().prop_map(Action::Withdraw),
        1 => port().prop_map(Action::Detach),
    ]
}

proptest! {
    /// Whatever a guest writes, and whenever its owner attaches and detaches: an address belongs to a
    /// function that is there and says so, and whose port lets it through; and the owner hears of a
    /// permission for what was asked for alone.
    #[test]
    fn no_order_of_writes_and_changes_confuses_the_ports(actions in prop::collection::vec(action(), 0..120)) {
        let windows = Windows::new(BELOW..BELOW + 0x100_0000, None).unwrap();
        let mut complex = RootComplex::new(0, windows);
        let owners = [add_port(&mut complex, 1), add_port(&mut complex, 2)];
        let functions = [1, 2].map(|number| probe(number, &[(0, SMALL), (2, WIDE)]));
        let mut present = [false; 2];
        let mut requests = [0; 2];
        let index = |port: u8| usize::from(port) - 1;
        for action in actions {
            match action {
                Action::Port(port, register, value) => write(&complex, port, register, value),
                Action::Behind(bus, register, value) => {
                    let effect = complex.write_config(behind(bus), register, &value.to_le_bytes());
                    prop_assert_eq!(effect, Effect::None);
                }
                Action::Attach(port) => {
                    let attached = complex.attach(port, functions[index(port)].clone());
                    prop_assert_eq!(attached.is_ok(), !present[index(port)]);
                    present[index(port)] = true;
                }
                Action::Request(port) => {
                    if !complex.request_removal(port).unwrap() {
                        prop_assert!(present[index(port)]);
                        requests[index(port)] += 1;
                    }
                }
                Action::Withdraw(port) => complex.withdraw_request(port),
                Action::Detach(port) => {
                    prop_assert_eq!(complex.detach(port).is_some(), present[index(port)]);
                    present[index(port)] = false;
                }
            }
            for (owner, requests) in owners.iter().zip(requests) {
                prop_assert!(owner.permitted.load(Ordering::SeqCst) <= requests);
            }
            for megabyte in 0..8 {
                let address = BELOW + megabyte * 0x10_0000;
                let owner = at(&complex, address);
                if owner != 0xff {
                    prop_assert!(present[index(owner)]);
                    let port = read(&complex, owner, 4);
                    prop_assert_eq!(port & 2, 2);
                    let window = read(&complex, owner, 0x20);
                    let megabyte = low(address) >> 16 & 0xfff0;
                    prop_assert!(window & 0xfff0 <= megabyte && megabyte <= window >> 16);
                    let function = functions[index(owner)].lock().unwrap();
                    let claims = [0, 2].into_iter().filter_map(|bar| function.configuration.decoded(bar));
                    prop_assert!(claims.into_iter().any(|claim| claim.contains(&address)));
                }
            }
        }
    }
}
