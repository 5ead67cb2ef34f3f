//! A root complex with functions of several kinds, on its root bus and in hot-plug slots, by its configuration
//! ports, its ECAM and its windows, while the functions send interrupts, come and go: nothing panics, registers
//! are reached where they are decoded alone, a function that is gone is reached nowhere, and its owner hears of
//! a permission for what was asked for.
//!
//! An input is a list of accesses and interrupts; see [`step`].
#![no_main]

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use bus::{Effect, MmioWindow, PioDevice, UnconnectedIrqLine};
use cuddy_fuzz::{Input, Sink};
use libfuzzer_sys::fuzz_target;
use pci::{
    Bar, BarWidth, BarWindow, CapabilityId, ConfigWrite, ConfigurationPorts, ConfigurationSpace,
    EcamWindow, Endpoint, EndpointKind, Function, FunctionAddress, Identity, Intx, Msix, MsixPlace,
    RootComplex, RootPort, RootPortOptions, SlotListener, Windows,
};

const WINDOW: u64 = 0xc000_0000;
const WINDOW_BYTES: u64 = 8 << 20;
const HIGH_WINDOW: u64 = 1 << 40;
/// The first of the two root ports, the devices behind the cards; its bus is 1.
const FIRST_PORT: u8 = 4;
/// Slot control that a driver of hot-plug has when it serves events, without the power indicator (PCI Express
/// Base Specification 5.0, 7.5.3.10).
const SLOT_EVENTS: u16 = 1 | 1 << 3 | 1 << 5 | 3 << 6 | 1 << 12;
const STEPS_MAX: usize = 2000;

/// Registers, interrupts, and what the function knows of where it is.
#[derive(Debug)]
struct Card {
    endpoint: Endpoint,
    msix: Arc<Msix>,
    intx: Arc<Intx>,
    placed: [Option<u64>; 6],
    /// The root complex has it.
    present: bool,
}

impl Card {
    fn new(bars: &[(usize, Bar)], kind: EndpointKind) -> Self {
        let mut endpoint = Endpoint::new(
            Identity {
                vendor_id: 0x1af4,
                device_id: 0x1042,
                revision_id: 1,
                class: [1, 0x80, 0],
                subsystem_vendor_id: 0x1af4,
                subsystem_id: 0x1042,
            },
            kind,
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
            present: matches!(kind, EndpointKind::Integrated),
        }
    }
}

impl Function for Card {
    fn configuration(&self) -> &ConfigurationSpace {
        self.endpoint.configuration()
    }
    fn read_config(&mut self, offset: u16, data: &mut [u8]) {
        assert!(self.present);
        self.endpoint.read(offset, data);
    }
    fn write_config(&mut self, offset: u16, data: &[u8]) -> Effect {
        assert!(self.present);
        if matches!(self.endpoint.write(offset, data), ConfigWrite::Reset) {
            self.intx.take();
        }
        Effect::None
    }
    fn read_bar(&mut self, bar: usize, offset: u64, data: &mut [u8]) {
        assert!(self.present && self.placed[bar].is_some() && offset < 0x4000);
        match offset {
            0x1000..0x1800 => self.msix.read_table(offset - 0x1000, data),
            0x1800..0x2000 => self.msix.read_pending(offset - 0x1800, data),
            _ => data.fill(0),
        }
    }
    fn write_bar(&mut self, bar: usize, offset: u64, data: &[u8]) -> Effect {
        assert!(self.present && self.placed[bar].is_some() && offset < 0x4000);
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
            let low = (WINDOW..WINDOW + WINDOW_BYTES).contains(&start);
            assert!(low || (HIGH_WINDOW..HIGH_WINDOW + (1 << 30)).contains(&start));
        }
        self.placed[bar] = address;
    }
}

/// A hot-plug slot and what is known of it.
#[derive(Debug)]
struct Slot {
    port: u8,
    owner: Arc<Owner>,
    /// Where the port's PCI Express capability is.
    express: u16,
    card: Arc<Mutex<Card>>,
}

/// Counts requests for the device and the guest's permissions.
#[derive(Debug, Default)]
struct Owner {
    requests: AtomicU32,
    permitted: AtomicU32,
}

impl SlotListener for Owner {
    fn removal_permitted(&self) {
        let permitted = self.permitted.fetch_add(1, Ordering::Relaxed) + 1;
        assert!(permitted <= self.requests.load(Ordering::Relaxed));
    }
}

struct Machine {
    complex: Arc<RootComplex>,
    ports: ConfigurationPorts,
    ecam: EcamWindow,
    windows: [BarWindow; 2],
    /// Those on the root bus, then those in slots.
    cards: Vec<Arc<Mutex<Card>>>,
    slots: Vec<Slot>,
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
        let windows = Windows::new(WINDOW..WINDOW + WINDOW_BYTES, Some(high)).expect("windows");
        let mut complex = RootComplex::new(0, windows);
        let mut cards = Vec::new();
        for kind in kinds {
            let card = Arc::new(Mutex::new(Card::new(kind, EndpointKind::Integrated)));
            complex.add(card.clone()).expect("room");
            cards.push(card);
        }
        let mut slots = Vec::new();
        for (port, kind) in (FIRST_PORT..).zip(&kinds[..2]) {
            let card = Arc::new(Mutex::new(Card::new(kind, EndpointKind::Linked)));
            slots.push(Slot::new(&mut complex, port, card.clone()));
            cards.push(card);
        }
        // One is there from the start.
        slots[0].card.lock().expect("no panic").present = true;
        let first = complex.attach_at_start(FIRST_PORT, slots[0].card.clone());
        first.expect("an empty slot");
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
            slots,
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

impl Slot {
    fn new(complex: &mut RootComplex, port: u8, card: Arc<Mutex<Card>>) -> Self {
        let owner = Arc::new(Owner::default());
        let root_port = RootPort::new(RootPortOptions {
            slot_number: u16::from(port),
            messages: Arc::new(Sink),
            pin: Arc::new(UnconnectedIrqLine),
            interrupt_line: 17,
            listener: owner.clone(),
        });
        let address = complex.add_port(root_port.expect("a port")).expect("room");
        let mut head = [0; 2];
        let mut express = 0x34;
        while head[0] != 0x10 {
            let pointer = if express == 0x34 {
                express
            } else {
                express + 1
            };
            complex.read_config(address, pointer, &mut head[..1]);
            express = u16::from(head[0]);
            complex.read_config(address, express, &mut head);
        }
        Self {
            port,
            owner,
            express,
            card,
        }
    }

    fn address(&self) -> FunctionAddress {
        FunctionAddress::on_root_bus(self.port)
    }

    fn write_port(&self, complex: &RootComplex, register: u16, data: &[u8]) {
        let effect = complex.write_config(self.address(), register, data);
        assert_eq!(effect, Effect::None);
    }

    fn is_present(&self) -> bool {
        self.card.lock().expect("no panic").present
    }

    /// What the owner of the machine does, and what the guest's driver of the slot does in answer.
    fn step(&self, complex: &RootComplex, input: &mut Input<'_>) {
        let present = self.is_present();
        match input.byte() & 15 {
            0 | 1 => {
                self.card.lock().expect("no panic").present = true;
                let attached = complex.attach(self.port, self.card.clone());
                assert_eq!(attached.is_ok(), !present);
            }
            2 => {
                let detached = complex.detach(self.port).is_some();
                assert_eq!(detached, present);
                let mut card = self.card.lock().expect("no panic");
                assert_eq!(card.placed, [None; 6]);
                card.present = false;
            }
            3 | 4 => {
                self.owner.requests.fetch_add(1, Ordering::Relaxed);
                let permitted = complex.request_removal(self.port).expect("a slot");
                assert!(permitted || present);
                assert_eq!(permitted, complex.removal_is_permitted(self.port));
            }
            5 => complex.withdraw_request(self.port),
            6..10 => {
                let indicator = u16::from(input.byte() & 3) << 8;
                let control = (SLOT_EVENTS | indicator).to_le_bytes();
                self.write_port(complex, self.express + 0x18, &control);
            }
            10 | 11 => {
                let cleared = input.word().to_le_bytes();
                self.write_port(complex, self.express + 0x1a, &cleared);
            }
            12 => {
                let at = self.express + u16::from(input.byte() & 0x3f);
                let data = input.double().to_le_bytes();
                self.write_port(complex, at, &data[..input.one_of(&[1, 2, 4])]);
            }
            13 => {
                // The windows of both ports, closed, shared, or beyond.
                let window = u32::from(input.byte() & 0xf) << 4 | u32::from(input.byte()) << 20;
                let data = (window + 0xc000_c000).to_le_bytes();
                self.write_port(complex, 0x20, &data);
            }
            _ => self.set_up(complex),
        }
        let mut status = [0; 2];
        complex.read_config(self.address(), self.express + 0x1a, &mut status);
        assert_eq!(status[0] & 1 << 6 != 0, self.is_present());
    }

    /// Buses, windows and registers as firmware leaves them, and decoded.
    fn set_up(&self, complex: &RootComplex) {
        let bus = self.port - FIRST_PORT + 1;
        let megabyte = 0xc000 + 0x20 * u32::from(bus);
        self.write_port(complex, 0x18, &[0, bus, bus, 0]);
        let window = megabyte | (megabyte + 0x10) << 16;
        self.write_port(complex, 0x20, &window.to_le_bytes());
        self.write_port(complex, 0x3e, &[0; 2]);
        self.write_port(complex, 4, &[6, 4]);
        let card = FunctionAddress {
            bus,
            ..FunctionAddress::on_root_bus(0)
        };
        for (register, data) in [
            (0x10, (megabyte << 16).to_le_bytes()),
            (0x14, [0; 4]),
            (4, [6, 4, 0, 0]),
        ] {
            let _effect = complex.write_config(card, register, &data);
        }
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
            let device = input.byte();
            let device = match kind & 0x10 {
                0 => u64::from(device & 7),
                // The first device of another bus, mostly.
                _ => u64::from(device >> 4 & 3) << 5 | u64::from(device) / 0xff,
            };
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
        _ if kind & 0x30 != 0 => {
            let slot = &machine.slots[usize::from(kind >> 4 & 1)];
            slot.step(&machine.complex, input);
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
