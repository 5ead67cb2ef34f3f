use proptest::prelude::*;

use bus::{MmioWindow, PioDevice};

use super::*;
use crate::BarWidth;
use crate::header::Identity;
use crate::{BarWindow, ConfigurationPorts, ConfigurationSpace, EcamWindow};

mod slots;

const BELOW: u64 = 0xc000_0000;
const ABOVE: u64 = 0x10_0000_0000;

/// Answers with its number and remembers what comes.
#[derive(Debug)]
struct Probe {
    number: u8,
    configuration: ConfigurationSpace,
    moves: Vec<(usize, Option<u64>)>,
    written: Vec<(usize, u64, Vec<u8>)>,
    resets: u32,
    forwarded: bool,
}

impl Function for Probe {
    fn configuration(&self) -> &ConfigurationSpace {
        &self.configuration
    }
    fn read_config(&mut self, offset: u16, data: &mut [u8]) {
        self.configuration.read(offset, data);
    }
    fn write_config(&mut self, offset: u16, data: &[u8]) -> Effect {
        self.configuration.write(offset, data);
        Effect::None
    }
    fn read_bar(&mut self, _bar: usize, _offset: u64, data: &mut [u8]) {
        data.fill(self.number);
    }
    fn write_bar(&mut self, bar: usize, offset: u64, data: &[u8]) -> Effect {
        self.written.push((bar, offset, data.to_vec()));
        Effect::Reset
    }
    fn bar_moved(&mut self, bar: usize, address: Option<u64>) {
        self.moves.push((bar, address));
    }
    fn reset(&mut self) {
        self.configuration.reset();
        self.resets += 1;
    }
    fn requests_forwarded(&mut self, forwarded: bool) {
        self.forwarded = forwarded;
    }
}

fn probe(number: u8, bars: &[(usize, Bar)]) -> Arc<Mutex<Probe>> {
    let mut configuration = ConfigurationSpace::new(Identity {
        vendor_id: 0x1af4,
        device_id: u16::from(number),
        revision_id: 0,
        class: [0xff, 0, 0],
        subsystem_vendor_id: 0,
        subsystem_id: 0,
    });
    for (index, bar) in bars {
        configuration.add_bar(*index, *bar).unwrap();
    }
    Arc::new(Mutex::new(Probe {
        number,
        configuration,
        moves: Vec::new(),
        written: Vec::new(),
        resets: 0,
        forwarded: true,
    }))
}

const fn bar(size_bytes: u64, width: BarWidth) -> Bar {
    Bar {
        size_bytes,
        width,
        prefetchable: false,
    }
}

const SMALL: Bar = bar(0x1000, BarWidth::Bits32);
const WIDE: Bar = bar(0x8000, BarWidth::Bits64);

fn complex() -> RootComplex {
    let windows = Windows::new(BELOW..BELOW + 0x10_0000, Some(ABOVE..ABOVE + 0x1000_0000));
    RootComplex::new(0, windows.unwrap())
}

fn write(complex: &RootComplex, device: u8, register: u16, value: u32) {
    let address = FunctionAddress::on_root_bus(device);
    let effect = complex.write_config(address, register, &value.to_le_bytes());
    assert_eq!(effect, Effect::None);
}

fn read(complex: &RootComplex, device: u8, register: u16) -> u32 {
    let mut data = [0; 4];
    complex.read_config(FunctionAddress::on_root_bus(device), register, &mut data);
    u32::from_le_bytes(data)
}

fn at(complex: &RootComplex, address: u64) -> u8 {
    let mut data = [0xff];
    complex.read_bar(address, &mut data);
    data[0]
}

#[test]
fn a_segment_is_reached_by_its_own_ecam_window_alone() {
    let windows = Windows::new(BELOW..BELOW + 0x10_0000, None).unwrap();
    let mut complex = RootComplex::new(3, windows);
    let address = complex.add(probe(9, &[])).unwrap();
    assert_eq!(address.to_string(), "0003:00:01.0");
    let complex = Arc::new(complex);
    let mut data = [0; 4];
    EcamWindow::new(complex.clone()).read(1 << 15, &mut data);
    assert_eq!(data, [0xf4, 0x1a, 9, 0]);
    // The ports know of no segments.
    let reset = Box::new(ResetProbe);
    let mut ports = ConfigurationPorts::new(complex, reset);
    let _effect = ports.write(0, &(1_u32 << 31 | 1 << 11).to_le_bytes());
    ports.read(4, &mut data);
    assert_eq!(data, [0xff; 4]);
}

#[test]
fn a_host_bridge_is_first_and_nothing_is_all_ones() {
    let complex = complex();
    assert_eq!(read(&complex, 0, 8) >> 16, 0x0600);
    assert_eq!(read(&complex, 1, 0), u32::MAX);
    let mut data = [0; 4];
    for other in [
        FunctionAddress {
            function: 1,
            ..FunctionAddress::on_root_bus(0)
        },
        FunctionAddress {
            bus: 1,
            ..FunctionAddress::on_root_bus(0)
        },
        FunctionAddress {
            segment: 1,
            ..FunctionAddress::on_root_bus(0)
        },
    ] {
        complex.read_config(other, 0, &mut data);
        assert_eq!(data, [0xff; 4]);
        assert_eq!(complex.write_config(other, 4, &data), Effect::None);
    }
    // The extended space is empty; accesses do not leave their doubleword.
    assert_eq!(read(&complex, 0, 0x100), 0);
    let mut three = [0; 2];
    complex.read_config(FunctionAddress::on_root_bus(0), 3, &mut three);
    assert_eq!(three, [0xff; 2]);
}

#[test]
fn addresses_are_given_out_and_decoded_when_the_guest_says_so() {
    let mut complex = complex();
    let first = probe(1, &[(0, SMALL), (2, WIDE)]);
    let second = probe(2, &[(0, bar(0x10_0000, BarWidth::Bits64))]);
    let place = complex.add(first.clone()).unwrap();
    assert_eq!(place, FunctionAddress::on_root_bus(1));
    complex.add(second.clone()).unwrap();
    let base = u64::from(read(&complex, 1, 0x10));
    assert_eq!(base, BELOW);
    let wide = u64::from(read(&complex, 1, 0x18) & !0xf);
    assert_eq!(wide % 0x8000, 0);
    assert_eq!(
        read(&complex, 2, 0x14),
        0x10,
        "too large for the first window"
    );
    assert_eq!(at(&complex, base), 0xff);
    write(&complex, 1, 4, 2);
    write(&complex, 2, 4, 2);
    assert_eq!((at(&complex, base), at(&complex, wide + 0x7fff)), (1, 1));
    assert_eq!(at(&complex, ABOVE + 0xf_ffff), 2);
    assert_eq!(complex.write_bar(wide + 8, &[1, 2]), Effect::Reset);
    assert_eq!(first.lock().unwrap().written, [(2, 8, vec![1, 2])]);
    assert_eq!(
        first.lock().unwrap().moves,
        [(0, Some(base)), (2, Some(wide))]
    );
    assert_eq!(complex.write_bar(wide + 0x7fff, &[1, 2]), Effect::None);
}

#[test]
fn registers_move_while_they_are_decoded() {
    let mut complex = complex();
    let function = probe(1, &[(0, SMALL)]);
    complex.add(function.clone()).unwrap();
    write(&complex, 1, 4, 2);
    let new = BELOW + 0x5000;
    write(&complex, 1, 0x10, u32::try_from(new).unwrap());
    assert_eq!((at(&complex, BELOW), at(&complex, new)), (0xff, 1));
    // Outside of the windows nothing is decoded, where memory and other devices are too.
    for outside in [0, 0xfec0_0000, BELOW - 0x1000, u64::from(u32::MAX - 0xfff)] {
        write(&complex, 1, 0x10, u32::try_from(outside).unwrap());
        assert_eq!(at(&complex, outside), 0xff);
        assert_eq!(function.lock().unwrap().moves.last(), Some(&(0, None)));
    }
    write(&complex, 1, 0x10, u32::try_from(new).unwrap());
    assert_eq!(at(&complex, new), 1);
    write(&complex, 1, 4, 0);
    assert_eq!(at(&complex, new), 0xff);
}

#[test]
fn a_function_leaves_its_addresses_before_another_has_them() {
    let mut complex = complex();
    let function = probe(1, &[(0, SMALL), (1, SMALL)]);
    complex.add(function.clone()).unwrap();
    write(&complex, 1, 4, 2);
    let new = BELOW + 0x5000;
    write(&complex, 1, 0x10, u32::try_from(new).unwrap());
    let second = BELOW + 0x1000;
    let moves = [
        (0, Some(BELOW)),
        (1, Some(second)),
        (0, None),
        (0, Some(new)),
    ];
    assert_eq!(function.lock().unwrap().moves, moves);
    // Nobody is told of addresses that are another's.
    write(&complex, 1, 0x10, u32::try_from(second).unwrap());
    assert_eq!(function.lock().unwrap().moves[4..], [(0, None)]);
}

#[test]
fn overlapping_registers_wait_for_their_addresses() {
    let mut complex = complex();
    let functions = [probe(1, &[(0, SMALL)]), probe(2, &[(0, SMALL), (1, SMALL)])];
    for function in &functions {
        complex.add(function.clone()).unwrap();
    }
    write(&complex, 1, 4, 2);
    write(&complex, 2, 4, 2);
    let [first, second, third] = [(1, 0x10), (2, 0x10), (2, 0x14)]
        .map(|(device, register)| read(&complex, device, register));
    write(&complex, 2, 0x10, first);
    assert_eq!(at(&complex, u64::from(first)), 1);
    assert_eq!(at(&complex, u64::from(second)), 0xff);
    write(&complex, 1, 0x10, second);
    write(&complex, 2, 0x14, third);
    assert_eq!(at(&complex, u64::from(first)), 2);
    assert_eq!(at(&complex, u64::from(second)), 1);
}

#[test]
fn what_does_not_fit_is_refused() {
    let mut complex = complex();
    let large = bar(0x2000_0000, BarWidth::Bits64);
    assert_eq!(
        complex.add(probe(1, &[(0, large)])),
        Err(PlaceError::NoAddresses { bar: large })
    );
    for number in 1..32 {
        complex.add(probe(number, &[])).unwrap();
    }
    assert_eq!(complex.add(probe(32, &[])), Err(PlaceError::BusFull));
}

#[derive(Debug)]
struct ResetProbe;

impl PioDevice for ResetProbe {
    fn read(&mut self, _offset: u16, data: &mut [u8]) {
        data.fill(0x5a);
    }
    fn write(&mut self, _offset: u16, _data: &[u8]) -> Effect {
        Effect::Reset
    }
}

#[test]
fn ports_and_memory_show_the_same_configuration_space() {
    let mut complex = complex();
    complex.add(probe(0x77, &[(0, SMALL)])).unwrap();
    let complex = Arc::new(complex);
    let mut ports = ConfigurationPorts::new(complex.clone(), Box::new(ResetProbe));
    let ecam = EcamWindow::new(complex.clone());
    let window = BarWindow::new(complex, BELOW);

    let select = 1_u32 << 31 | 1 << 11 | 4;
    assert_eq!(ports.write(0, &select.to_le_bytes()), Effect::None);
    let mut data = [0; 4];
    ports.read(0, &mut data);
    assert_eq!(data, select.to_le_bytes());
    assert_eq!(ports.write(4, &[2]), Effect::None);
    let mut word = [0; 2];
    ecam.read(1 << 15 | 4, &mut word);
    assert_eq!(word, [2, 0]);
    let mut eight = [0; 8];
    ecam.read(1 << 15, &mut eight);
    assert_eq!(eight, [0xf4, 0x1a, 0x77, 0, 2, 0, 0, 0]);
    let mut byte = [0xff];
    window.read(0x10, &mut byte);
    assert_eq!(byte, [0x77]);
    assert_eq!(window.write(0x10, &byte), Effect::Reset);
    // One byte in the middle of CONFIG_ADDRESS is the reset register's.
    ports.read(1, &mut byte);
    assert_eq!(byte, [0x5a]);
    assert_eq!(ports.write(1, &[6]), Effect::Reset);
    assert_eq!(ports.write(0, &[1]), Effect::None);
    assert_eq!(ports.write(0, &[0; 4]), Effect::None);
    data = [0xff; 4];
    ports.read(4, &mut data);
    assert_eq!(data, [0xff; 4], "not enabled");
}

proptest! {
    /// Whatever a guest writes: an address belongs to at most one function, and to that which says so.
    #[test]
    fn routes_agree_with_the_registers(
        writes in prop::collection::vec((0u8..4, 0u16..0x40, 0u64..40, any::<bool>()), 0..80)
    ) {
        let mut complex = complex();
        let functions = [1, 2, 3].map(|number| probe(number, &[(0, SMALL), (2, WIDE)]));
        for function in &functions {
            complex.add(function.clone()).unwrap();
        }
        for (device, register, place, decode) in writes {
            let value = u32::try_from(BELOW + place * 0x1000).unwrap();
            match decode {
                true => write(&complex, device, 4, 2),
                false => write(&complex, device, register & !3, value),
            }
            for place in 0..48 {
                let address = BELOW + place * 0x1000;
                let owner = at(&complex, address);
                if owner != 0xff {
                    let function = functions[usize::from(owner) - 1].lock().unwrap();
                    let claims = [0, 2].into_iter().filter_map(|bar| function.configuration.decoded(bar));
                    prop_assert!(claims.into_iter().any(|claim| claim.contains(&address)));
                }
            }
        }
    }
}
