//! Interrupt controllers split between KVM and this process: local APICs there, the 8259 pair and the
//! IOAPIC here (KVM API, 7.5 "KVM_CAP_SPLIT_IRQCHIP").
//!
//! - A wire drives a pin of the IOAPIC, and below 16 one of the 8259 pair as well.
//! - What the IOAPIC sends goes to the local APICs as a message (KVM_SIGNAL_MSI).
//! - The redirection table is turned into KVM's GSI routes, so that events connected to a pin
//!   interrupt the guest without this process, and so that KVM reports the end of level-triggered
//!   interrupts.
//! - The 8259's output makes the boot vCPU leave the guest and fetch the vector (KVM_INTERRUPT).
//!
//! Lock order: routes → IOAPIC; the 8259 pair by itself. Messages are sent with no chip locked.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arch::layout::{self, gsi, port};
use bus::{Effect, IrqLine, MmioBus, MmioDevice, Msi, PioBus, PioDevice, RangeMapError};
use devices::{IoApic, Pic};
use kvm_bindings::{
    KVM_CAP_SPLIT_IRQCHIP, KVM_IRQ_ROUTING_MSI, KvmIrqRouting, kvm_enable_cap,
    kvm_irq_routing_entry,
};
use kvm_ioctls::VmFd;

use super::InterruptError;
use super::message::{self, low_32_bits};
use crate::vcpu::{ExternalInterrupts, VcpuControl};

/// Interrupts below this have a pin of the 8259 pair.
const PIC_PINS: u32 = 16;

/// The controllers outside KVM and the way from them to KVM.
#[derive(Debug)]
pub struct SplitIrqchip {
    vm: Arc<VmFd>,
    boot_vcpu: Arc<VcpuControl>,
    ioapic: Mutex<IoApic>,
    pic: Mutex<Pic>,
    /// The output of the 8259 pair, for a look without its lock.
    pic_output: AtomicBool,
    /// What KVM was last told.
    routes: Mutex<Vec<(u32, Msi)>>,
}

impl SplitIrqchip {
    /// Leaves only the local APICs to KVM in `vm`.
    ///
    /// # Errors
    ///
    /// [`InterruptError`] when KVM refuses.
    pub fn new(vm: Arc<VmFd>, boot_vcpu: Arc<VcpuControl>) -> Result<Self, InterruptError> {
        let mut capability = kvm_enable_cap {
            cap: KVM_CAP_SPLIT_IRQCHIP,
            ..kvm_enable_cap::default()
        };
        capability.args[0] = u64::from(gsi::PINS);
        vm.enable_cap(&capability).map_err(InterruptError::new(
            "a split interrupt controller; use --irqchip kernel",
        ))?;
        Ok(Self {
            vm,
            boot_vcpu,
            ioapic: Mutex::new(IoApic::new()),
            pic: Mutex::new(Pic::new()),
            pic_output: AtomicBool::new(false),
            routes: Mutex::new(Vec::new()),
        })
    }

    pub(super) fn line(self: &Arc<Self>, gsi: u32) -> Arc<dyn IrqLine> {
        Arc::new(SplitLine {
            chip: Arc::clone(self),
            gsi,
        })
    }

    pub(super) const fn vm(&self) -> &Arc<VmFd> {
        &self.vm
    }

    pub(super) fn end_of_interrupt(&self, vector: u8) {
        let messages = lock(&self.ioapic).end_of_interrupt(vector);
        self.send(messages);
    }

    fn set_level(&self, gsi: u32, asserted: bool) {
        if gsi < PIC_PINS {
            let mut pic = lock(&self.pic);
            pic.set_level(gsi, asserted);
            self.pic_has(pic.has_interrupt());
        }
        let pin = match gsi {
            gsi::PIT => gsi::PIT_IOAPIC,
            other => other,
        };
        let message = lock(&self.ioapic).set_level(pin, asserted);
        self.send(message);
    }

    /// Takes note of the 8259's output, under its lock so that the last note is the last state.
    fn pic_has(&self, interrupt: bool) {
        let before = self.pic_output.swap(interrupt, Ordering::SeqCst);
        if interrupt && !before {
            self.boot_vcpu.kick();
        }
    }

    fn send(&self, messages: impl IntoIterator<Item = Msi>) {
        for message in messages {
            message::send(&self.vm, message);
        }
    }

    /// Tells KVM the redirection table, if it has changed.
    fn update_routes(&self) {
        let mut told = lock(&self.routes);
        let routes: Vec<(u32, Msi)> = {
            let ioapic = lock(&self.ioapic);
            (0..gsi::PINS)
                .filter_map(|pin| Some((pin, ioapic.route(pin)?)))
                .collect()
        };
        if *told == routes {
            return;
        }
        let entries: Vec<_> = routes.iter().copied().map(routing_entry).collect();
        let result = KvmIrqRouting::from_entries(&entries)
            .map_err(|error| format!("{error:?}"))
            .and_then(|table| {
                self.vm
                    .set_gsi_routing(&table)
                    .map_err(|error| error.to_string())
            });
        match result {
            Ok(()) => *told = routes,
            Err(error) => tracing::error!("interrupts may be lost, KVM refuses routes: {error}"),
        }
    }
}

impl ExternalInterrupts for SplitIrqchip {
    fn is_pending(&self) -> bool {
        self.pic_output.load(Ordering::SeqCst)
    }

    fn acknowledge(&self) -> Option<u8> {
        let mut pic = lock(&self.pic);
        if !pic.has_interrupt() {
            self.pic_has(false);
            return None;
        }
        let vector = pic.acknowledge();
        self.pic_has(pic.has_interrupt());
        Some(vector)
    }
}

/// Places the 8259 pair and the IOAPIC on the buses.
pub(super) fn place(
    chip: &Arc<SplitIrqchip>,
    pio: &mut PioBus,
    mmio: &mut MmioBus,
) -> Result<(), RangeMapError> {
    for range in [port::PIC_PRIMARY, port::PIC_SECONDARY, port::PIC_ELCR] {
        let ports = PicPorts {
            chip: Arc::clone(chip),
            first: range.start,
        };
        let length = range.end - range.start;
        pio.insert(range.start, length, Arc::new(Mutex::new(ports)))?;
    }
    let registers = IoApicRegisters {
        chip: Arc::clone(chip),
    };
    let range = layout::IOAPIC;
    let length = range.end - range.start;
    mmio.insert(range.start, length, Arc::new(Mutex::new(registers)))
}

/// One wire.
#[derive(Debug)]
struct SplitLine {
    chip: Arc<SplitIrqchip>,
    gsi: u32,
}

impl IrqLine for SplitLine {
    fn set_level(&self, asserted: bool) {
        self.chip.set_level(self.gsi, asserted);
    }
}

/// Some of the ports of the 8259 pair.
#[derive(Debug)]
struct PicPorts {
    chip: Arc<SplitIrqchip>,
    first: u16,
}

impl PioDevice for PicPorts {
    fn read(&mut self, offset: u16, data: &mut [u8]) {
        let mut pic = lock(&self.chip.pic);
        let interrupt = pic.read(self.first + offset, data);
        self.chip.pic_has(interrupt);
    }

    fn write(&mut self, offset: u16, data: &[u8]) -> Effect {
        let mut pic = lock(&self.chip.pic);
        let interrupt = pic.write(self.first + offset, data);
        self.chip.pic_has(interrupt);
        Effect::None
    }
}

/// The registers of the IOAPIC.
#[derive(Debug)]
struct IoApicRegisters {
    chip: Arc<SplitIrqchip>,
}

impl MmioDevice for IoApicRegisters {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        lock(&self.chip.ioapic).read(offset, data);
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Effect {
        let write = lock(&self.chip.ioapic).write(offset, data);
        // Routes first: KVM has to know that an interrupt is level-triggered before it is sent, or its
        // end is not reported.
        if write.routes_changed {
            self.chip.update_routes();
        }
        self.chip.send(write.messages);
        Effect::None
    }
}

fn routing_entry((pin, message): (u32, Msi)) -> kvm_irq_routing_entry {
    let mut entry = kvm_irq_routing_entry {
        gsi: pin,
        type_: KVM_IRQ_ROUTING_MSI,
        ..kvm_irq_routing_entry::default()
    };
    entry.u.msi.address_lo = low_32_bits(message.address);
    entry.u.msi.address_hi = low_32_bits(message.address >> 32);
    entry.u.msi.data = message.data;
    entry
}

fn lock<T>(chip: &Mutex<T>) -> MutexGuard<'_, T> {
    chip.lock().unwrap_or_else(PoisonError::into_inner)
}
