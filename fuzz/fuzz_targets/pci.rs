//! A root complex with functions of several kinds, by its configuration ports, its ECAM and its windows, while
//! the functions send interrupts: nothing panics, and registers are reached where they are decoded alone.
//!
//! An input is a list of accesses and interrupts; see [`step`].
#![no_main]

use std::sync::{Arc, Mutex};

use bus::{Effect, MmioWindow, PioDevice};
use cuddy_fuzz::{Input, Sink};
use libfuzzer_sys::fuzz_target;
use pci::{
    Bar, BarWidth, BarWindow, CapabilityId, ConfigWrite, ConfigurationPorts, ConfigurationSpace,
    EcamWindow, Endpoint, EndpointKind, Function, Identity, Intx, Msix, MsixPlace, RootComplex,
    Windows,
};

const WINDOW: u64 = 0xc000_0000;
const HIGH_WINDOW: u64 = 1 << 40;
const STEPS_MAX: usize = 2000;

/// Registers, interrupts, and what the function knows of where it is.
#[derive(Debug)]
struct Card {
    endpoint: Endpoint,
    msix: Arc<Msix>,
    intx: Arc<Intx>,
    placed: [Option<u64>; 6],
}

impl Card {
    fn new(bars: &[(usize, Bar)]) -> Self {
        let mut endpoint = Endpoint::new(
            Identity {
                vendor_id: 0x1af4,
                device_id: 0x1042,
                revision_id: 1,
                class: [1, 0x80, 0],
                subsystem_vendor_id: 0x1af4,
                subsystem_id: 0x1042,
            },
            EndpointKind::Integrated,
        )
        .expect("an endpoint");
        for (index, bar) in bars {
            endpoint.add_bar(*index, *bar).expect("a register");
        }
        endpoint
            .add_capability(CapabilityId::Vendor, &[9, 1, 2, 3], &[0, 0xff, 0, 0x0f])
            .expect("a capability");
        let msix = Arc::new(Msix::new(5, Arc::new(Sink)));
        let place = MsixPlace {
            bar: u8::try_from(bars[0].0).expect("an index"),
            table_offset: 0x1000,
            pending_offset: 0x1800,
        };
        endpoint.add_msix(msix.clone(), place).expect("MSI-X");
        let intx = Arc::new(Intx::new(Arc::new(Sink)));
        endpoint.set_intx(intx.clone(), 16);
        Self {
            endpoint,
            msix,
            intx,
            placed: [None; 6],
        }
    }
}

impl Function for Card {
    fn configuration(&self) -> &ConfigurationSpace {
        self.endpoint.configuration()
    }
    fn read_config(&mut self, offset: u16, data: &mut [u8]) {
        self.endpoint.read(offset, data);
    }
    fn write_config(&mut self, offset: u16, data: &[u8]) -> Effect {
        if matches!(self.endpoint.write(offset, data), ConfigWrite::Reset) {
            self.intx.take();
        }
        Effect::None
    }
    fn read_bar(&mut self, bar: usize, offset: u64, data: &mut [u8]) {
        assert!(self.placed[bar].is_some() && offset < 0x4000);
        match offset {
            0x1000..0x1800 => self.msix.read_table(offset - 0x1000, data),
            0x1800..0x2000 => self.msix.read_pending(offset - 0x1800, data),
            _ => data.fill(0),
        }
    }
    fn write_bar(&mut self, bar: usize, offset: u64, data: &[u8]) -> Effect {
        assert!(self.placed[bar].is_some() && offset < 0x4000);
        if let 0x1000..0x1800 = offset {
            self.msix.write_table(offset - 0x1000, data);
        }
        Effect::None
    }
    fn reset(&mut self) {
        self.endpoint.reset();
        self.intx.take();
    }
    fn bar_moved(&mut self, bar: usize, address: Option<u64>) {
        assert_ne!(self.placed[bar], address);
        if let Some(start) = address {
            let low = (WINDOW..WINDOW + 0x10_0000).contains(&start);
            assert!(low || (HIGH_WINDOW..HIGH_WINDOW + (1 << 30)).contains(&start));
        }
        self.placed[bar] = address;
    }
}

struct Machine {
    complex: Arc<RootComplex>,
    ports: ConfigurationPorts,
    ecam: EcamWindow,
    windows: [BarWindow; 2],
    cards: Vec<Arc<Mutex<Card>>>,
}

impl Machine {
    fn new() -> Self {
        let bar = |size_bytes, width, prefetchable| Bar {
            size_bytes,
            width,
            prefetchable,
        };
        let kinds: [&[(usize, Bar)]; 3] = [
            &[(0, bar(0x4000, BarWidth::Bits64, false))],
            &[
                (0, bar(0x2000, BarWidth::Bits32, false)),
                (2, bar(0x4000, BarWidth::Bits64, true)),
            ],
            &[(5, bar(0x4000, BarWidth::Bits32, false))],
        ];
        let high = HIGH_WINDOW..HIGH_WINDOW + (1 << 30);
        let windows = Windows::new(WINDOW..WINDOW + 0x10_0000, Some(high)).expect("windows");
        let mut complex = RootComplex::new(0, windows);
        let mut cards = Vec::new();
        for kind in kinds {
            let card = Arc::new(Mutex::new(Card::new(kind)));
            complex.add(card.clone()).expect("room");
            cards.push(card);
        }
        let complex = Arc::new(complex);
        Self {
            ports: ConfigurationPorts::new(
                complex.clone(),
                Box::new(devices::ResetRegister::new()),
            ),
            ecam: EcamWindow::new(complex.clone()),
            windows: [WINDOW, HIGH_WINDOW].map(|start| BarWindow::new(complex.clone(), start)),
            complex,
            cards,
        }
    }

    /// An address in the registers of a card, or near them.
    fn register_address(&self, input: &mut Input<'_>) -> u64 {
        let card = &self.cards[usize::from(input.byte()) % self.cards.len()];
        let placed = card.lock().expect("no panic").placed;
        let base = placed.into_iter().flatten().next().unwrap_or(WINDOW);
        base.wrapping_add(u64::from(input.word() & 0x3fff))
    }
}

fn step(machine: &mut Machine, input: &mut Input<'_>) {
    let mut data = [0xff; 8];
    let length = input.one_of(&[4, 4, 1, 2, 8, 3, 5, 6, 7]);
    let kind = input.byte();
    let value = match kind & 0x80 {
        0 => input.number(),
        _ => u64::from(input.double()),
    };
    data.copy_from_slice(&value.to_le_bytes());
    let data = &mut data[..length];
    match kind & 7 {
        0 => {
            let port = u16::from(input.byte() & 7);
            let length = length.min(4);
            if kind & 8 == 0 {
                machine.ports.read(port, &mut data[..length]);
            } else {
                // A write there may also be a reset of the machine.
                let _effect = machine.ports.write(port, &data[..length]);
            }
        }
        1 | 2 => {
            // A register of a card's configuration, through either door.
            let device = u64::from(input.byte() & 3);
            let offset = u64::from(input.byte());
            let elsewhere = if kind & 0x40 == 0 {
                0
            } else {
                input.number() << 8
            };
            let at = (device << 15 | offset) ^ elsewhere & 0xfff_ffff;
            if kind & 8 == 0 {
                machine.ecam.read(at, data);
            } else {
                let _effect = machine.ecam.write(at, data);
            }
        }
        3 | 4 => {
            let address = machine.register_address(input);
            let high = address >= HIGH_WINDOW;
            let window = &machine.windows[usize::from(high)];
            let start = if high { HIGH_WINDOW } else { WINDOW };
            let offset = address.wrapping_sub(start);
            if kind & 8 == 0 {
                window.read(offset, data);
            } else {
                let _effect = window.write(offset, data);
            }
        }
        5 => {
            let card = &machine.cards[usize::from(input.byte()) % machine.cards.len()];
            let msix = card.lock().expect("no panic").msix.clone();
            msix.fire(input.word());
        }
        6 => {
            let card = &machine.cards[usize::from(input.byte()) % machine.cards.len()];
            let intx = card.lock().expect("no panic").intx.clone();
            if kind & 8 == 0 {
                intx.raise(input.byte());
            } else {
                intx.take();
            }
        }
        _ => {
            let address = input.number();
            if kind & 8 == 0 {
                machine.complex.read_bar(address, data);
            } else {
                let _effect = machine.complex.write_bar(address, data);
            }
        }
    }
}

fuzz_target!(|bytes: &[u8]| {
    let mut input = Input(bytes);
    let mut machine = Machine::new();
    for _ in 0..STEPS_MAX {
        if input.is_empty() {
            break;
        }
        step(&mut machine, &mut input);
    }
});
