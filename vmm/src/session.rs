//! A machine from its configuration to its end: what the host lends it, and the driver of its life.
//!
//! A session opens everything that the configuration names, once. The machine that it builds can end and
//! be built again; disks, network interfaces, kernel and console stay open meanwhile. All of this runs on
//! the thread that calls [`Session::run`].

mod wait;

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use crate::config::MachineConfig;
use crate::console::Console;
use crate::crash::Crash;
use crate::error::VmmError;
use crate::events::{Control, EventQueue, Request};
use crate::hotplug::{Hotplug, SlotDriver};
use crate::kvm::Host;
use crate::lifecycle::{Command, Event, GuestEnd, Outcome, Policy, State};
use crate::machine::{Machine, SlotSetup};
use crate::metrics::Counters;
use crate::resources::{DiskHandle, Resources};

/// How much input is taken from the console at a time.
const INPUT_MAX_BYTES: usize = 4096;

/// Called on the driver's thread when the descriptor beside it is readable.
pub type EventHandler = Box<dyn FnMut(BorrowedFd<'_>, &Control) + Send>;

struct EventSource {
    descriptor: OwnedFd,
    handler: EventHandler,
}

/// A machine and what the host lends it.
pub struct Session {
    config: MachineConfig,
    host: Host,
    resources: Resources,
    console: Console,
    queue: Arc<EventQueue>,
    counters: Arc<Counters>,
    slots: SlotDriver,
    sources: Vec<EventSource>,
    /// Input that the console gave and the serial port has not taken yet.
    pending_input: VecDeque<u8>,
}

impl Session {
    /// Opens all that `config` names. Nothing is opened before the configuration is valid.
    ///
    /// # Errors
    ///
    /// [`VmmError::Configuration`] with all problems at once, or [`VmmError::Host`].
    pub fn open(config: MachineConfig, console: Console) -> Result<Self, VmmError> {
        config.validate()?;
        let queue = Arc::new(EventQueue::new().map_err(VmmError::host)?);
        let resources = Resources::open(&config, &queue)?;
        let host = Host::open().map_err(VmmError::host)?;
        tell_of_hidden_features(&host, &config.cpu);
        Ok(Self {
            host,
            counters: Arc::new(
                Counters::new(&config.name, config.cpus).with_vsock(resources.vsock_counters()),
            ),
            resources,
            slots: SlotDriver::new(&config.name, config.hotplug_slots),
            config,
            console,
            queue,
            sources: Vec::new(),
            pending_input: VecDeque::new(),
        })
    }

    /// A handle that steers the machine from any thread.
    pub fn control(&self) -> Control {
        Control::new(Arc::clone(&self.queue), Arc::clone(&self.counters))
    }

    /// A handle on the disk at `index` of the configuration, if there is one.
    pub fn disk(&self, index: usize) -> Option<DiskHandle> {
        self.resources.disk(index)
    }

    /// A handle by which devices are attached to the machine and detached from it, while it runs.
    pub fn hotplug(&self) -> Hotplug {
        Hotplug::new(Arc::clone(&self.queue), Arc::clone(self.slots.exchange()))
    }

    /// Has `handler` called by the driver whenever `descriptor` is readable.
    pub fn add_event_source(&mut self, descriptor: OwnedFd, handler: EventHandler) {
        self.sources.push(EventSource {
            descriptor,
            handler,
        });
    }

    /// Builds the machine, runs it, and returns how it ended.
    ///
    /// # Errors
    ///
    /// [`VmmError`] when the machine cannot be built, or not again after a reset.
    pub fn run(mut self) -> Result<Outcome, VmmError> {
        let policy = Policy {
            on_poweroff: self.config.on_poweroff,
            on_reboot: self.config.on_reboot,
            on_crash: self.config.on_crash,
        };
        let mut incarnation = 0;
        let mut machine = self.build(incarnation)?;
        let mut state = State::Created;
        self.control().start();
        loop {
            while let Some(request) = self.queue.pop() {
                let event = match request {
                    Request::Lifecycle(event) => event,
                    Request::GuestEnd {
                        incarnation: of,
                        end,
                    } if of == incarnation => Event::Guest(end),
                    Request::GuestEnd { .. } => continue,
                    Request::Hotplug => {
                        self.slots.work(&mut machine, &self.resources);
                        continue;
                    }
                    Request::SlotReleased {
                        incarnation: of,
                        slot,
                    } => {
                        if of == incarnation {
                            self.slots.released(&mut machine, slot);
                        }
                        continue;
                    }
                    Request::PowerButton => {
                        machine.press_power_button();
                        continue;
                    }
                    Request::DiskError {
                        incarnation: of, ..
                    } if of != incarnation => continue,
                    Request::DiskError { disk, .. } => {
                        let name = &self.config.name;
                        tracing::warn!(
                            "{name}: the host failed a request of {disk}; paused until it is resumed, which tries again"
                        );
                        Event::Pause
                    }
                };
                tracing::debug!("{state:?}: {event:?}");
                let crash = match &event {
                    Event::Guest(GuestEnd::Crash(crash)) => Some(crash.clone()),
                    _ => None,
                };
                let (next, command) = state.next(event, policy);
                state = next;
                self.tell(&state, command, crash.as_ref());
                match command {
                    Command::Nothing => {}
                    Command::Run => machine.run(),
                    Command::Pause => self.without_waiting_for_readers(|| machine.pause()),
                    Command::Rebuild => {
                        self.without_waiting_for_readers(|| drop(machine));
                        incarnation += 1;
                        machine = self.build(incarnation)?;
                        machine.run();
                    }
                    Command::Destroy => {
                        self.without_waiting_for_readers(|| drop(machine));
                        self.summarise();
                        let State::Stopped(outcome) = state else {
                            unreachable!("a machine is taken apart when it has stopped")
                        };
                        return Ok(outcome);
                    }
                }
            }
            self.wait(&machine)?;
        }
    }

    /// Says what becomes of the machine where nobody else does: the caller hears of its end.
    fn tell(&self, state: &State, command: Command, crash: Option<&Crash>) {
        let name = &self.config.name;
        match (state, command, crash) {
            (_, Command::Nothing, _) => {}
            (State::Preserved(outcome), ..) => {
                tracing::warn!("{name}: {outcome}; kept as it is until it is told to stop");
                if let Some(registers) = crash.and_then(|crash| crash.vcpu.as_ref()) {
                    tracing::warn!("{name}: the vCPU's registers:\n{registers}");
                }
            }
            (_, Command::Rebuild, Some(crash)) => {
                tracing::warn!("{name}: the guest crashed: {crash}; it starts again");
                if let Some(registers) = &crash.vcpu {
                    tracing::info!("{name}: the vCPU's registers:\n{registers}");
                }
            }
            (_, Command::Rebuild, None) => tracing::info!("{name}: it starts again"),
            (State::Stopped(outcome), ..) => tracing::info!("{name}: {outcome}"),
            _ => tracing::info!("{name}: {state:?}"),
        }
    }

    /// Says what the vCPUs counted.
    fn summarise(&self) {
        if tracing::enabled!(tracing::Level::INFO) {
            for (number, vcpu) in self.counters.snapshot().vcpus.iter().enumerate() {
                tracing::info!("{}: vCPU {number}: {}", self.config.name, vcpu.summary());
            }
        }
    }

    fn build(&mut self, incarnation: u64) -> Result<Machine, VmmError> {
        let queue = Arc::clone(&self.queue);
        Machine::build(
            &self.host,
            &self.config,
            &self.resources,
            &self.counters,
            self.console.output(),
            SlotSetup {
                count: self.slots.count(),
                devices: self.slots.restart(&self.resources, incarnation)?,
                events: Arc::clone(&self.queue),
                incarnation,
            },
            move |end| queue.push(Request::GuestEnd { incarnation, end }),
        )
    }

    /// Does something that waits for vCPUs, none of which may then be held up by a pipe that nobody reads.
    fn without_waiting_for_readers(&self, action: impl FnOnce()) {
        self.console.let_output_wait(false);
        action();
        self.console.let_output_wait(true);
    }

    /// Waits until there is something to do, and does what is not for the lifecycle.
    fn wait(&mut self, machine: &Machine) -> Result<(), VmmError> {
        let console = self.console.event_source();
        let fixed = [
            Some(self.queue.as_fd()),
            console,
            Some(machine.serial_room_event()),
        ];
        let sources = self.sources.iter().map(|source| source.descriptor.as_fd());
        let descriptors: Vec<_> = fixed.into_iter().chain(sources.map(Some)).collect();
        let ready = wait::until_readable(&descriptors).map_err(VmmError::host)?;
        let mut ready = ready.into_iter();
        if ready.next() == Some(true) {
            self.queue.acknowledge();
        }
        let (input, room) = (ready.next() == Some(true), ready.next() == Some(true));
        if input || room {
            self.move_serial_input(machine);
        }
        let control = self.control();
        for (source, readable) in self.sources.iter_mut().zip(ready) {
            if readable {
                (source.handler)(source.descriptor.as_fd(), &control);
            }
        }
        Ok(())
    }

    /// Moves input from the console to the serial port. What the port has no room for waits here, and
    /// the console stays silent meanwhile: the port says when it has room.
    fn move_serial_input(&mut self, machine: &Machine) {
        let room = match self.pending_input.is_empty() {
            true => INPUT_MAX_BYTES,
            false => 0,
        };
        self.pending_input.extend(self.console.service(room));
        let taken = machine.put_serial_input(self.pending_input.make_contiguous());
        self.pending_input.drain(..taken);
        if self.pending_input.is_empty() && room == 0 {
            // The console was silenced; with room it speaks again.
            self.pending_input
                .extend(self.console.service(INPUT_MAX_BYTES));
            let taken = machine.put_serial_input(self.pending_input.make_contiguous());
            self.pending_input.drain(..taken);
        }
    }
}

/// Says once which features the guest does not see although nobody asked for that.
fn tell_of_hidden_features(host: &Host, model: &str) {
    if let Ok(model) = model.parse() {
        let (_, names) = host.cpu_model(model);
        for name in names {
            tracing::warn!(
                "this KVM is a software one, where {name} is slow: the guest does not see it; \
                 --cpu host,+{name} shows it, host,-{name} hides it silently"
            );
        }
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Session")
            .field("config", &self.config)
            .field("console", &self.console)
            .finish_non_exhaustive()
    }
}
