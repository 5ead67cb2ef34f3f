//! Accesses of a guest allocate nothing: neither to configuration spaces nor to registers.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::{Arc, Mutex};

use bus::{Effect, MmioWindow, Msi, MsiSink, PioDevice};
use pci::{
    Bar, BarWidth, BarWindow, ConfigWrite, ConfigurationPorts, ConfigurationSpace, EcamWindow,
    Endpoint, EndpointKind, Function, Identity, Msix, MsixPlace, RootComplex, Windows,
};

/// The system's allocator, counted.
struct Counted;

thread_local! {
    /// Those of this thread: that of the test's harness has its own business.
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: all is left to the system's allocator.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: what the caller promises here, it promises there.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above; the memory is of the same allocator.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counted = Counted;

#[derive(Debug)]
struct Device {
    endpoint: Endpoint,
    msix: Arc<Msix>,
}

impl Function for Device {
    fn configuration(&self) -> &ConfigurationSpace {
        self.endpoint.configuration()
    }
    fn read_config(&mut self, offset: u16, data: &mut [u8]) {
        self.endpoint.read(offset, data);
    }
    fn write_config(&mut self, offset: u16, data: &[u8]) -> Effect {
        assert_eq!(self.endpoint.write(offset, data), ConfigWrite::Done);
        Effect::None
    }
    fn read_bar(&mut self, _bar: usize, offset: u64, data: &mut [u8]) {
        self.msix.read_table(offset, data);
    }
    fn write_bar(&mut self, _bar: usize, offset: u64, data: &[u8]) -> Effect {
        self.msix.write_table(offset, data);
        Effect::None
    }
    fn reset(&mut self) {
        self.endpoint.reset();
    }
}

#[derive(Debug)]
struct Nowhere;

impl MsiSink for Nowhere {
    fn send(&self, _message: Msi) {}
}

impl PioDevice for Nowhere {
    fn read(&mut self, _offset: u16, _data: &mut [u8]) {}
    fn write(&mut self, _offset: u16, _data: &[u8]) -> Effect {
        Effect::None
    }
}

const WINDOW: u64 = 0xc000_0000;

fn device() -> Device {
    let mut endpoint = Endpoint::new(
        Identity {
            vendor_id: 0x1af4,
            device_id: 0x1044,
            revision_id: 1,
            class: [0xff, 0, 0],
            subsystem_vendor_id: 0,
            subsystem_id: 0,
        },
        EndpointKind::Integrated,
    )
    .unwrap();
    let bar = Bar {
        size_bytes: 0x1000,
        width: BarWidth::Bits64,
        prefetchable: false,
    };
    endpoint.add_bar(0, bar).unwrap();
    let msix = Arc::new(Msix::new(4, Arc::new(Nowhere)));
    let place = MsixPlace {
        bar: 0,
        table_offset: 0,
        pending_offset: 0x800,
    };
    endpoint.add_msix(Arc::clone(&msix), place).unwrap();
    Device { endpoint, msix }
}

fn nothing(effect: Effect) {
    assert_eq!(effect, Effect::None);
}

#[test]
fn accesses_of_a_guest_allocate_nothing() {
    let windows = Windows::new(WINDOW..WINDOW + 0x10_0000, None).unwrap();
    let mut complex = RootComplex::new(0, windows);
    let device = Arc::new(Mutex::new(device()));
    let msix = Arc::clone(&device.lock().unwrap().msix);
    complex.add(device).unwrap();
    let complex = Arc::new(complex);
    let ecam = EcamWindow::new(Arc::clone(&complex));
    let registers = BarWindow::new(Arc::clone(&complex), WINDOW);
    let mut ports = ConfigurationPorts::new(complex, Box::new(Nowhere));
    // The first route is the list's first entry.
    let command = 1 << 15 | 4;
    nothing(ecam.write(command, &[6]));

    let before = ALLOCATIONS.get();
    let mut data = [0; 4];
    for offset in (0..32 << 15).step_by(4) {
        ecam.read(offset, &mut data);
    }
    for register in 0..64_u32 {
        let selected = 1 << 31 | 1 << 11 | register << 2;
        nothing(ports.write(0, &selected.to_le_bytes()));
        ports.read(4, &mut data);
    }
    for _ in 0..10 {
        // Off and on again, moved and back.
        for value in [0, 6] {
            nothing(ecam.write(command, &[value]));
        }
        for address in [WINDOW + 0x4000, WINDOW] {
            let low = u32::try_from(address).unwrap_or(0);
            nothing(ecam.write(1 << 15 | 0x10, &low.to_le_bytes()));
        }
        nothing(registers.write(0x8, &data));
        registers.read(0x8, &mut data);
        msix.fire(1);
    }
    let after = ALLOCATIONS.get();
    assert_eq!(after - before, 0, "allocations");
}
