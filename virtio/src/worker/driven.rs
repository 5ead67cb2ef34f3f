//! Workers without threads: those that a thread starts do their work when it says so. For tests and fuzzing
//! alone: what a device does is then the same each time, and costs neither threads nor waits.

use std::cell::{Cell, RefCell};
use std::fmt::Debug;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use vmm_sys_util::epoll::EventSet;

use super::{OWN, Service, Sources, State, WorkerTask};

/// Most rounds in one [`run_pending`], as a guest can have a queue that is never empty.
const ROUNDS_MAX: usize = 64;

thread_local! {
    static IS_ON: Cell<bool> = const { Cell::new(false) };
    static WORKERS: RefCell<Vec<Weak<dyn Drive>>> = const { RefCell::new(Vec::new()) };
}

/// Has the workers that are started on this thread from now on driven by it, or again by their own threads.
pub fn set(on: bool) {
    IS_ON.set(on);
}

/// Whether workers that are started here are driven.
pub(crate) fn is_on() -> bool {
    IS_ON.get()
}

/// Lets the workers that this thread drives do what there is to do, until there is nothing, or too much.
pub fn run_pending() {
    let workers = WORKERS.with_borrow_mut(|workers| {
        workers.retain(|worker| worker.strong_count() > 0);
        workers.clone()
    });
    for _ in 0..ROUNDS_MAX {
        let mut any = false;
        for worker in workers.iter().filter_map(Weak::upgrade) {
            any |= worker.round();
        }
        if !any {
            return;
        }
    }
}

trait Drive: Debug + Send + Sync {
    /// Serves the events that are there: whether there were any.
    fn round(&self) -> bool;
}

/// A worker that is driven.
#[derive(Debug)]
pub(super) struct Driven<T>(Arc<Mutex<Option<Driver<T>>>>, fn(&mut Service<T>));

/// A service and what it waits for beside its doorbells.
#[derive(Debug)]
struct Driver<T> {
    service: Service<T>,
    own: OwnSources,
}

/// The file descriptors of a device's own.
#[derive(Debug, Default)]
pub(super) struct OwnSources(Vec<OwnSource>);

#[derive(Debug)]
struct OwnSource {
    fd: RawFd,
    token: u32,
    /// What the device wants.
    events: EventSet,
    /// What it was told of and has not used up: of a socket's edges, each is told once.
    told: EventSet,
}

impl OwnSources {
    pub(super) fn set(&mut self, fd: RawFd, token: u32, events: EventSet) {
        self.remove(fd);
        self.0.push(OwnSource {
            fd,
            token,
            events,
            told: EventSet::empty(),
        });
    }

    pub(super) fn remove(&mut self, fd: RawFd) {
        self.0.retain(|source| source.fd != fd);
    }

    /// Takes note of what is still there of what the device was told.
    fn note_used_up(&mut self) {
        let wanted = |source: &OwnSource| (source.fd, source.token, source.events);
        let wanted: Vec<_> = self.0.iter().map(wanted).collect();
        for (source, ready) in self.0.iter_mut().zip(poll(&wanted)) {
            source.told &= ready;
        }
    }
}

impl<T: WorkerTask> Driven<T> {
    /// Remembers it for this thread.
    pub(super) fn new(service: Service<T>) -> Self {
        let own = OwnSources::default();
        let driver = Arc::new(Mutex::new(Some(Driver { service, own })));
        let weak: Weak<dyn Drive> = Arc::<Mutex<Option<Driver<T>>>>::downgrade(&driver);
        WORKERS.with_borrow_mut(|workers| workers.push(weak));
        Self(driver, Service::end)
    }
}

impl<T> Driven<T> {
    /// The stop: what is under way ends, and the task comes back.
    pub(super) fn end(self) -> Option<T> {
        let mut service = lock(&self.0).take()?.service;
        service.state = State::Stopping;
        (self.1)(&mut service);
        Some(service.task)
    }
}

impl<T: WorkerTask> Drive for Mutex<Option<Driver<T>>> {
    fn round(&self) -> bool {
        match &mut *lock(self) {
            Some(driver) => driver.round(),
            None => false,
        }
    }
}

impl<T: WorkerTask> Driver<T> {
    fn round(&mut self) -> bool {
        let doorbells = self.service.doorbells.iter();
        let wanted = (0_u32..).zip(doorbells);
        let wanted = wanted.map(|(index, doorbell)| (doorbell.as_raw_fd(), index, EventSet::IN));
        let own = self.own.0.iter();
        let own = own.map(|source| (source.fd, OWN | source.token, source.events));
        let wanted: Vec<_> = wanted.chain(own).collect();
        let ready = match self.service.state {
            // Each queue has a first turn.
            State::Starting => wanted.iter().map(|(.., events)| *events).collect(),
            State::Serving => poll(&wanted),
            State::Broken | State::Stopping => return false,
        };
        let mut any = false;
        for ((fd, data, events), ready) in wanted.into_iter().zip(ready) {
            let source = self.own.0.iter_mut().find(|source| source.fd == fd);
            let ready = match source {
                Some(source) if events.contains(EventSet::EDGE_TRIGGERED) => {
                    let news = ready & !source.told;
                    source.told = ready;
                    news
                }
                _ => ready,
            };
            if ready.is_empty() {
                continue;
            }
            any = true;
            if events.contains(EventSet::EDGE_TRIGGERED) {
                take_edge(fd);
            }
            let sources = Sources::Driven(&mut self.own);
            self.service.process(data, ready, sources);
        }
        self.own.note_used_up();
        any
    }
}

/// Which events are there now.
fn poll(wanted: &[(RawFd, u32, EventSet)]) -> Vec<EventSet> {
    let flags = [
        (EventSet::IN, libc::POLLIN),
        (EventSet::OUT, libc::POLLOUT),
        (EventSet::ERROR, libc::POLLERR),
        (EventSet::HANG_UP, libc::POLLHUP),
    ];
    let polled = |(fd, _, events): &(RawFd, u32, EventSet)| libc::pollfd {
        fd: *fd,
        events: flags
            .iter()
            .filter(|(event, _)| events.contains(*event))
            .fold(0, |all, (_, flag)| all | flag),
        revents: 0,
    };
    let mut polled: Vec<_> = wanted.iter().map(polled).collect();
    let count = libc::nfds_t::try_from(polled.len()).unwrap_or(0);
    // SAFETY: there are as many entries as the call is told of.
    let result = unsafe { libc::poll(polled.as_mut_ptr(), count, 0) };
    let events = |entry: &libc::pollfd| {
        let set = flags.iter().filter(|(_, flag)| entry.revents & flag != 0);
        set.fold(EventSet::empty(), |all, (event, _)| all | *event)
    };
    match result {
        0.. => polled.iter().map(events).collect(),
        _ => vec![EventSet::empty(); polled.len()],
    }
}

/// An event or a timer that is readable is so no more. What a socket has is its reader's.
fn take_edge(fd: RawFd) {
    let mut kind: libc::c_int = 0;
    let mut length = 4;
    // SAFETY: the pointers are to an integer and to its size.
    let is_socket = unsafe {
        libc::getsockopt(
            fd,
            libc::SOL_SOCKET,
            libc::SO_TYPE,
            (&raw mut kind).cast(),
            &raw mut length,
        )
    };
    if is_socket == 0 {
        return;
    }
    let mut count = [0_u8; 8];
    // SAFETY: there are as many bytes as the call is told of.
    let _nothing_to_read = unsafe { libc::read(fd, count.as_mut_ptr().cast(), count.len()) };
}

fn lock<T>(driver: &Mutex<T>) -> MutexGuard<'_, T> {
    driver.lock().unwrap_or_else(PoisonError::into_inner)
}
