//! One incarnation of a machine: put together in the order that costs least, run, paused, taken apart.
//!
//! The order of the steps in [`Machine::build`] is not a matter of taste. Each in-kernel device makes KVM
//! wait out a grace period at the next memory slot, so slots come before interrupt controllers, and
//! doorbells come when a driver starts its device. The kernel is read before vCPUs exist, as they start
//! with its entry.

mod doorbells;
mod platform;
mod slots;
mod virtio_devices;
mod virtio_mmio;
mod virtio_pci;

use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, PoisonError};

use arch::cpuid::physical_address_bits;
use arch::entry::EntryState;
use arch::layout;
use arch::memory_map::MemoryMap;
use boot::LoadError;
use bus::{MmioBus, PioBus};
use devices::RamSize;
use kvm_bindings::{KVM_CAP_EXIT_ON_EMULATION_FAILURE, KVM_SYNC_X86_VALID_FIELDS, kvm_enable_cap};
use kvm_ioctls::{Cap, VmFd};

use crate::config::{IrqchipMode, MachineConfig, Problem, Transport};
use crate::error::VmmError;
use crate::interrupts::Interrupts;
use crate::kvm::{Host, KvmError};
use crate::lifecycle::GuestEnd;
use crate::memory::{self, GuestMemory};
use crate::metrics::Counters;
use crate::resources::{Resources, command_line};
use crate::vcpu::{Vcpu, VcpuContext, VcpuControl, VcpuSetup, VcpuTemplate, VcpuThread, pause_all};
use platform::Platform;
use slots::Slots;
pub use slots::{SlotDevices, SlotSetup};
use virtio::VirtioDevice;
use virtio_devices::VirtioDevices;
use virtio_mmio::MmioSetup;
use virtio_pci::{PciPlaces, PciSetup};

/// A machine that has been built. Dropped, it is taken apart: vCPUs first, then devices, memory last.
#[derive(Debug)]
pub struct Machine {
    // The order of the fields is the order of the end.
    vcpus: Vec<VcpuThread>,
    virtio: VirtioDevices,
    slots: Option<Slots>,
    platform: Platform,
    // Held for the vCPUs and devices that use it without a reference that the compiler sees.
    _memory: GuestMemory,
}

impl Machine {
    /// Puts a machine together as `config` says, its kernel loaded, its vCPUs standing. `output` is where
    /// its serial port writes, `counters` what its vCPUs add to, `slots` what is in its slots; `report` is called on a vCPU's thread when the guest ends.
    ///
    /// # Errors
    ///
    /// [`VmmError`] when the host refuses something or a kernel does not fit.
    pub fn build(
        host: &Host,
        config: &MachineConfig,
        resources: &Resources,
        counters: &Arc<Counters>,
        output: Box<dyn Write + Send>,
        slots: SlotSetup,
        report: impl Fn(GuestEnd) + Clone + Send + 'static,
    ) -> Result<Self, VmmError> {
        let vm = Arc::new(create_vm(host)?);
        if config.completion {
            exit_on_emulation_failures(&vm);
        }
        let physical_address_bits = physical_address_bits(host.cpuid());
        let map = MemoryMap::new(config.memory.size.0, physical_address_bits)
            .map_err(|error| Problem::new("memory", error))?;
        let memory = memory::map(&config.memory, &map).map_err(VmmError::host)?;
        memory::register(&vm, &memory).map_err(VmmError::host)?;
        // The topmost of the pages that KVM keeps for itself on Intel hosts.
        set_internal_pages(&vm).map_err(VmmError::host)?;

        let boot_vcpu = Arc::new(VcpuControl::default());
        let interrupts =
            Interrupts::new(config.irqchip, &vm, &boot_vcpu).map_err(VmmError::host)?;
        let (mut pio, mut mmio) = (PioBus::default(), MmioBus::default());
        interrupts
            .place(&mut pio, &mut mmio)
            .map_err(VmmError::host)?;
        let own_timer = config.irqchip == IrqchipMode::Split;
        let platform = Platform::place(&mut pio, &interrupts, own_timer, ram_size(&map), output)?;
        let devices = virtio_devices::make(config, resources, slots.incarnation)?;
        let (virtio, slots, places) = match config.transport {
            Transport::Pci => {
                let setup = PciSetup {
                    vm: &vm,
                    memory: &memory,
                    map: &map,
                    physical_address_bits,
                    interrupts: &interrupts,
                    packed_rings: config.packed_rings,
                };
                let placed = setup.place(devices, slots, &mut pio, &mut mmio)?;
                let virtio = VirtioDevices::Pci(placed.transports);
                (virtio, placed.slots, Places::Pci(placed.places))
            }
            Transport::Mmio => {
                platform::place_reset_register(&mut pio)?;
                let setup = MmioSetup {
                    vm: &vm,
                    memory: &memory,
                    interrupts: &interrupts,
                    packed_rings: config.packed_rings,
                };
                let (transports, places) = setup.place(devices, &mut mmio)?;
                (VirtioDevices::Mmio(transports), None, Places::Mmio(places))
            }
        };

        let entry = load(config, resources, &memory, &places)?;
        let context = VcpuContext {
            pio: Arc::new(pio),
            mmio: Arc::new(mmio),
            interrupts,
            memory: Arc::clone(&memory),
            completion: config.completion,
            counters: Arc::clone(counters),
            synchronised_registers: synchronises_registers(host),
            run_ahead: runs_ahead(host, config).then(Arc::default),
        };
        let vcpus = start_vcpus(host, config, &vm, &context, boot_vcpu, &entry, report)?;
        Ok(Self {
            vcpus,
            virtio,
            slots,
            platform,
            _memory: memory,
        })
    }

    /// Lets the vCPUs run.
    pub fn run(&self) {
        self.virtio.resume();
        if let Some(slots) = &self.slots {
            slots.resume();
        }
        for vcpu in &self.vcpus {
            vcpu.control().run();
        }
    }

    /// Brings all vCPUs to an instruction boundary, then all devices to rest with nothing in flight.
    pub fn pause(&self) {
        pause_all(&self.vcpus);
        self.virtio.pause();
        if let Some(slots) = &self.slots {
            slots.pause();
        }
    }

    /// Puts `device` into the slot with this index, from 0 on, and tells the guest.
    ///
    /// # Errors
    ///
    /// [`VmmError::Host`] when there is no such slot, it is not empty, or the host refuses something.
    pub fn attach(&mut self, slot: usize, device: Box<dyn VirtioDevice>) -> Result<(), VmmError> {
        match &mut self.slots {
            Some(slots) => slots.attach(slot, device),
            None => Err(VmmError::host(pci::AttachError::NoSlot)),
        }
    }

    /// Asks the guest for a slot's device: whether it may be taken away at once. If not,
    /// [`Request::SlotReleased`](crate::events::Request::SlotReleased) comes when it may.
    pub fn request_removal(&self, slot: usize) -> bool {
        let slots = self.slots.as_ref();
        slots.is_none_or(|slots| slots.request_removal(slot))
    }

    /// Whether the guest permits that a slot's device is taken away.
    pub fn removal_is_permitted(&self, slot: usize) -> bool {
        let slots = self.slots.as_ref();
        slots.is_some_and(|slots| slots.removal_is_permitted(slot))
    }

    /// Takes [`request_removal`](Self::request_removal) back: the device stays.
    pub fn withdraw_request(&self, slot: usize) {
        if let Some(slots) = &self.slots {
            slots.withdraw_request(slot);
        }
    }

    /// Takes a slot's device away, whatever the guest does with it. It is gone when this returns.
    pub fn detach(&mut self, slot: usize) {
        if let Some(slots) = &mut self.slots {
            slots.detach(slot);
        }
    }

    /// Presses the ACPI power button.
    pub fn press_power_button(&self) {
        self.platform
            .acpi_pm
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .press_power_button();
    }

    /// Readable when the serial port has room for input that [`put_serial_input`](Self::put_serial_input)
    /// left over.
    pub fn serial_room_event(&self) -> BorrowedFd<'_> {
        self.platform.serial_room.as_fd()
    }

    /// Gives `bytes` to the serial port and returns how many it took. When it left some, the room event
    /// tells when it can take more.
    pub fn put_serial_input(&self, bytes: &[u8]) -> usize {
        self.platform.serial_room.acknowledge();
        self.platform
            .serial
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .enqueue_input(bytes)
    }
}

fn create_vm(host: &Host) -> Result<VmFd, VmmError> {
    loop {
        match host.kvm().create_vm() {
            Ok(vm) => return Ok(vm),
            // A signal came while the kernel was at it (Linux, kvm_create_vm waits killably).
            Err(error) if error.errno() == libc::EINTR => {}
            Err(source) => {
                return Err(VmmError::host(KvmError::Ioctl {
                    what: "create a machine",
                    source,
                }));
            }
        }
    }
}

/// Asks KVM to leave the guest at each instruction that it does not emulate, a program's too
/// (KVM_CAP_EXIT_ON_EMULATION_FAILURE, KVM API, 7.31). A KVM without that does it for kernels alone and gives
/// programs an invalid opcode, which is no reason not to run.
fn exit_on_emulation_failures(vm: &VmFd) {
    let mut capability = kvm_enable_cap {
        cap: KVM_CAP_EXIT_ON_EMULATION_FAILURE,
        ..kvm_enable_cap::default()
    };
    capability.args[0] = 1;
    if let Err(error) = vm.enable_cap(&capability) {
        tracing::debug!("KVM tells of no instruction of a program that it refuses: {error}");
    }
}

/// Tells KVM where it may put the pages that real mode needs on older Intel processors, in the hole
/// below 4 GiB.
fn set_internal_pages(vm: &VmFd) -> Result<(), KvmError> {
    let refused = |source| KvmError::Ioctl {
        what: "take the addresses of its own pages",
        source,
    };
    let tss = usize::try_from(layout::KVM_TSS).unwrap_or(usize::MAX);
    vm.set_identity_map_address(layout::KVM_IDENTITY_MAP)
        .map_err(refused)?;
    vm.set_tss_address(tss).map_err(refused)
}

/// Whether vCPUs run ahead of a software KVM. Of several vCPUs, an idle one was seen to wait for the others
/// without end, so that they do not.
const fn runs_ahead(host: &Host, config: &MachineConfig) -> bool {
    config.completion && config.cpus == 1 && host.is_software()
}

/// Whether KVM exchanges all registers that completions use through the page that it shares with a vCPU.
fn synchronises_registers(host: &Host) -> bool {
    let supported = host.kvm().check_extension_int(Cap::SyncRegs);
    let wanted = KVM_SYNC_X86_VALID_FIELDS;
    u32::try_from(supported).is_ok_and(|supported| supported & wanted == wanted)
}

fn ram_size(map: &MemoryMap) -> RamSize {
    RamSize {
        below_4_gib_bytes: map.low_ram_end(),
        above_4_gib_bytes: map.size_bytes() - map.low_ram_end(),
    }
}

/// Where a guest finds its devices.
#[derive(Debug)]
enum Places {
    Pci(PciPlaces),
    Mmio(Vec<boot::acpi::VirtioMmio>),
}

/// Loads kernel, initrd, command line and tables; gives the boot vCPU's state.
fn load(
    config: &MachineConfig,
    resources: &Resources,
    memory: &GuestMemory,
    places: &Places,
) -> Result<EntryState, VmmError> {
    let (pci, virtio_mmio) = match places {
        Places::Pci(places) => (Some(places.host()), [].as_slice()),
        Places::Mmio(places) => (None, places.as_slice()),
    };
    let platform = boot::acpi::Platform {
        cpus: u8::try_from(config.cpus).unwrap_or(u8::MAX),
        pit_override: true,
        virtio_mmio,
        pci: pci.as_slice(),
        serial: true,
        rtc: true,
        pvpanic: true,
    };
    let rsdp = boot::acpi::write_tables(memory, &platform).map_err(VmmError::host)?;
    let command_line = command_line(config, virtio_mmio);
    let entry = boot::load(
        memory,
        &resources.kernel,
        resources.initrd.as_ref(),
        &command_line,
        Some(rsdp),
    )
    .map_err(|error| {
        let key = match error {
            LoadError::Kernel(_) | LoadError::Paging { .. } => "kernel",
            LoadError::Initrd(_) => "initrd",
            LoadError::CommandLine(_) => "cmdline",
            LoadError::MemoryLayout { .. } | LoadError::Memory { .. } => {
                return VmmError::host(error);
            }
        };
        Problem::new(key, error).into()
    })?;
    Ok(match entry {
        boot::Entry::Linux64 { entry, .. } => EntryState::linux_64_bit(entry),
        boot::Entry::Pvh { entry, .. } => EntryState::pvh(entry),
    })
}

fn start_vcpus(
    host: &Host,
    config: &MachineConfig,
    vm: &VmFd,
    context: &VcpuContext,
    boot_vcpu: Arc<VcpuControl>,
    entry: &EntryState,
    report: impl Fn(GuestEnd) + Clone + Send + 'static,
) -> Result<Vec<VcpuThread>, VmmError> {
    let mut template: Option<VcpuTemplate> = None;
    let mut vcpus = Vec::with_capacity(usize::from(config.cpus));
    for number in 0..config.cpus {
        let vcpu = vm.create_vcpu(u64::from(number)).map_err(|source| {
            VmmError::host(KvmError::Ioctl {
                what: "create a vCPU",
                source,
            })
        })?;
        let is_boot = number == 0;
        let template = match &mut template {
            Some(template) => template,
            None => {
                let tsc_khz = vcpu.get_tsc_khz().ok();
                template.insert(VcpuTemplate::new(host, config.cpus, &config.cpu, tsc_khz)?)
            }
        };
        let setup = VcpuSetup {
            number,
            entry: is_boot.then_some(entry),
        };
        template.set_up(&vcpu, &setup)?;
        let (control, external) = match is_boot {
            true => (Arc::clone(&boot_vcpu), context.interrupts.external()),
            false => (Arc::default(), None),
        };
        let vcpu = Vcpu::new(number, vcpu, context.clone(), external);
        let thread = VcpuThread::start(number, vcpu, control, report.clone());
        vcpus.push(thread.map_err(VmmError::host)?);
    }
    Ok(vcpus)
}
