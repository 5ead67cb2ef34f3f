//! The thread of a started device: waits for doorbells and for the device's own file descriptors.
//!
//! Made by [`Worker::start`] from a device's `start`, joined by [`Worker::stop`] from its `stop`; both
//! run on a vCPU thread or on the main thread. The waiting is event-manager's (epoll). What the
//! thread does is a [`WorkerTask`]: it belongs to the thread while that runs and comes back from
//! `stop`, so that no lock is needed.
//!
//! A task does a bounded amount of work for each event and says [`Turn::Again`] when there is more:
//! the thread then looks at the stop event first. A guest that keeps its ring full cannot hold a
//! `stop` up.

use std::fmt::Debug;
use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use event_manager::{EventManager, EventOps, Events, MutEventSubscriber, SubscriberOps};
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::queue::{DescriptorChain, Queue, QueueError};
use crate::{Interrupt, StartError};

/// Most events that one wait takes from the kernel; the others come with the next one.
const EVENTS_PER_WAIT: usize = 16;

/// Longest time for which a used buffer is kept from the driver while others are worked on: what takes
/// longer is not worth an interrupt less.
const NOTIFY_AFTER: Duration = Duration::from_micros(100);

/// Longest time for which a turn takes further requests, so that a stop waits for little more than one.
const TURN_TIME: Duration = Duration::from_millis(5);

/// What an event is for, in the 32 bits that event-manager carries: the stop event, the device's own
/// tokens, or a doorbell.
const STOP: u32 = u32::MAX;
const OWN: u32 = 1 << 31;

/// What a device does on its thread.
pub trait WorkerTask: Debug + Send + 'static {
    /// Comes first on the thread: registers the device's own file descriptors.
    ///
    /// # Errors
    ///
    /// What the host answers; the device is then broken.
    fn begin(&mut self, _events: &mut OwnEvents<'_, '_>) -> Result<(), Fault> {
        Ok(())
    }

    /// The doorbell of a queue rang, or this is the queue's first turn after the start, or it said
    /// [`Turn::Again`]. The doorbell's event has been read.
    ///
    /// # Errors
    ///
    /// [`Fault`], by which the device is broken: nothing is called any more.
    fn doorbell(
        &mut self,
        queue_index: usize,
        events: &mut OwnEvents<'_, '_>,
    ) -> Result<Turn, Fault>;

    /// Comes last on the thread, and right after a fault, as nothing else is called then: ends what is under
    /// way, for which others may wait. Nothing touches guest memory for this task afterwards.
    ///
    /// # Errors
    ///
    /// What the host answers; the device is then broken.
    fn end(&mut self) -> Result<(), Fault> {
        Ok(())
    }

    /// A file descriptor of the device is ready.
    ///
    /// # Errors
    ///
    /// As for [`doorbell`](Self::doorbell).
    fn ready(
        &mut self,
        _token: u32,
        _ready: EventSet,
        _events: &mut OwnEvents<'_, '_>,
    ) -> Result<(), Fault> {
        Ok(())
    }
}

/// What is left after a queue's turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// Nothing, until its doorbell rings.
    Wait,
    /// More of the same: the queue gets another turn after the other events.
    Again,
}

/// Why a started device cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The driver broke a rule of the ring.
    #[error("the driver broke queue {index}: {source}")]
    Queue {
        /// Index of the queue.
        index: usize,
        /// The rule.
        source: QueueError,
    },
    /// The driver sent a request that cannot even be refused.
    #[error("the driver broke queue {index}: {what}")]
    Request {
        /// Index of the queue.
        index: usize,
        /// What is wrong with the request.
        what: &'static str,
    },
    /// The host fails.
    #[error("cannot {what}: {source}")]
    Host {
        /// What was wanted, to be read after "cannot".
        what: &'static str,
        /// What the host answered.
        source: io::Error,
    },
}

/// The file descriptors that a device waits for beside its doorbells.
#[derive(Debug)]
pub struct OwnEvents<'a, 'b> {
    sources: Sources<'a, 'b>,
    doorbells: &'a [EventFd],
}

/// Who waits for them.
#[derive(Debug)]
enum Sources<'a, 'b> {
    Epoll(&'a mut EventOps<'b>),
    #[cfg(any(test, fuzzing))]
    Driven(&'a mut driven::OwnSources),
}

impl OwnEvents<'_, '_> {
    /// Gives the queue with this index a turn after the other events, as [`Turn::Again`] does.
    pub fn again(&self, queue_index: usize) {
        if let Some(doorbell) = self.doorbells.get(queue_index) {
            // A counter that is full is an event that is pending.
            let _already_pending = doorbell.write(1);
        }
    }

    /// Waits for `events` of `fd`, level-triggered unless they say otherwise; they come as `token`,
    /// which is below 2^31 - 1.
    ///
    /// # Errors
    ///
    /// What epoll answers.
    pub fn add(&mut self, fd: RawFd, token: u32, events: EventSet) -> Result<(), Fault> {
        match &mut self.sources {
            Sources::Epoll(operations) => operations
                .add(Events::with_data_raw(fd, OWN | token, events))
                .map_err(|error| epoll_fault("wait for a file descriptor", error)),
            #[cfg(any(test, fuzzing))]
            Sources::Driven(sources) => {
                sources.set(fd, token, events);
                Ok(())
            }
        }
    }

    /// Waits for other events of `fd`; none at all is possible.
    ///
    /// # Errors
    ///
    /// What epoll answers.
    pub fn modify(&mut self, fd: RawFd, token: u32, events: EventSet) -> Result<(), Fault> {
        match &mut self.sources {
            Sources::Epoll(operations) => operations
                .modify(Events::with_data_raw(fd, OWN | token, events))
                .map_err(|error| epoll_fault("change the wait for a file descriptor", error)),
            #[cfg(any(test, fuzzing))]
            Sources::Driven(sources) => {
                sources.set(fd, token, events);
                Ok(())
            }
        }
    }

    /// Waits for `fd` no more.
    ///
    /// # Errors
    ///
    /// What epoll answers.
    pub fn remove(&mut self, fd: RawFd) -> Result<(), Fault> {
        match &mut self.sources {
            Sources::Epoll(operations) => operations
                .remove(Events::empty_raw(fd))
                .map_err(|error| epoll_fault("end the wait for a file descriptor", error)),
            #[cfg(any(test, fuzzing))]
            Sources::Driven(sources) => {
                sources.remove(fd);
                Ok(())
            }
        }
    }
}

/// A running thread and its task.
#[derive(Debug)]
pub struct Worker<T> {
    stop: EventFd,
    thread: Option<JoinHandle<Option<T>>>,
    /// There instead of the thread where the caller of `start` is to do the work.
    #[cfg(any(test, fuzzing))]
    driven: Option<driven::Driven<T>>,
}

impl<T: WorkerTask> Worker<T> {
    /// Starts a thread that is named `name` and serves `doorbells`, one for each queue in their order.
    /// Each queue gets a first turn without its doorbell: what became available while nobody waited
    /// is not lost.
    ///
    /// # Errors
    ///
    /// [`StartError::Host`] when the host gives no event or no thread.
    pub fn start(
        name: &str,
        task: T,
        doorbells: Vec<EventFd>,
        interrupt: Arc<dyn Interrupt>,
    ) -> Result<Self, StartError> {
        let host = |what| move |source| StartError::Host { what, source };
        let stop = EventFd::new(EFD_NONBLOCK).map_err(host("make an event"))?;
        let service = Service {
            task,
            doorbells,
            interrupt,
            state: State::Starting,
            has_ended: false,
        };
        #[cfg(any(test, fuzzing))]
        if driven::is_on() {
            return Ok(Self {
                stop,
                thread: None,
                driven: Some(driven::Driven::new(service)),
            });
        }
        let stop_of_thread = stop.try_clone().map_err(host("duplicate an event"))?;
        let mut manager = EventManager::new_with_capacity(EVENTS_PER_WAIT)
            .map_err(|error| host("make an epoll instance")(epoll_error(error)))?;
        let subscriber = manager.add_subscriber(Subscriber {
            service,
            stop: stop_of_thread,
            registration: Ok(()),
        });
        let registration = manager
            .subscriber_mut(subscriber)
            .map(|subscriber| std::mem::replace(&mut subscriber.registration, Ok(())));
        registration
            .and_then(|registered| registered)
            .map_err(|error| host("wait for a doorbell")(epoll_error(error)))?;
        // A zero in the name would be a panic; Linux shows its first 15 bytes.
        let thread = thread::Builder::new()
            .name(name.replace('\0', ""))
            .spawn(move || run_to_end(manager, subscriber))
            .map_err(host("start a thread"))?;
        Ok(Self {
            stop,
            thread: Some(thread),
            #[cfg(any(test, fuzzing))]
            driven: None,
        })
    }

    /// Lets the task finish its turn, ends the thread, and gives the task back. `None` when the thread
    /// panicked.
    pub fn stop(mut self) -> Option<T> {
        self.end()
    }
}

impl<T> Worker<T> {
    fn end(&mut self) -> Option<T> {
        // The counter would have to be full for this to fail, and then the event is pending.
        let _already_pending = self.stop.write(1);
        #[cfg(any(test, fuzzing))]
        if let Some(driven) = self.driven.take() {
            return driven.end();
        }
        self.thread.take()?.join().ok().flatten()
    }
}

impl<T> Drop for Worker<T> {
    fn drop(&mut self) {
        self.end();
    }
}

/// Serves a queue of requests that are answered at once: each chain goes to `handle`, which returns
/// how many bytes it wrote, and back to the driver. At most `budget` chains a turn, and none after some
/// milliseconds; the driver is told at the end of the turn, or earlier when requests take long.
///
/// # Errors
///
/// [`Fault::Queue`] when the driver broke a rule of the ring, or what `handle` answers.
pub fn serve(
    queue_index: u16,
    queue: &mut Queue,
    chain: &mut DescriptorChain,
    interrupt: &dyn Interrupt,
    budget: u16,
    mut handle: impl FnMut(&DescriptorChain) -> Result<u32, Fault>,
) -> Result<Turn, Fault> {
    let broken = |source| Fault::Queue {
        index: usize::from(queue_index),
        source,
    };
    let mut turn = Turn::Again;
    let turn_started = Instant::now();
    // When the driver began to wait for word of a buffer that is used.
    let mut untold_since: Option<Instant> = None;
    queue.disable_notification().map_err(broken)?;
    for _ in 0..budget {
        if queue.pop(chain).map_err(broken)? {
            let started = Instant::now();
            let written_bytes = handle(chain)?;
            queue
                .add_used(chain.head(), written_bytes)
                .map_err(broken)?;
            let since = *untold_since.get_or_insert(started);
            if since.elapsed() >= NOTIFY_AFTER {
                untold_since = None;
                notify(queue_index, queue, interrupt)?;
                if turn_started.elapsed() >= TURN_TIME {
                    break;
                }
            }
        } else if queue.enable_notification().map_err(broken)? {
            queue.disable_notification().map_err(broken)?;
        } else {
            turn = Turn::Wait;
            break;
        }
    }
    if untold_since.is_some() {
        notify(queue_index, queue, interrupt)?;
    }
    Ok(turn)
}

/// Tells the driver of used buffers, if it wants to hear of them.
///
/// # Errors
///
/// [`Fault::Queue`] when the queue is unusable.
pub fn notify(queue_index: u16, queue: &mut Queue, interrupt: &dyn Interrupt) -> Result<(), Fault> {
    match queue.needs_notification() {
        Ok(true) => interrupt.signal_used(queue_index),
        Ok(false) => {}
        Err(source) => {
            return Err(Fault::Queue {
                index: usize::from(queue_index),
                source,
            });
        }
    }
    Ok(())
}

/// The service as event-manager calls it.
#[derive(Debug)]
struct Subscriber<T> {
    service: Service<T>,
    stop: EventFd,
    registration: event_manager::Result<()>,
}

/// What is done with events, whoever waits for them.
#[derive(Debug)]
struct Service<T> {
    task: T,
    doorbells: Vec<EventFd>,
    interrupt: Arc<dyn Interrupt>,
    state: State,
    /// The task has ended what was under way.
    has_ended: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Starting,
    Serving,
    /// A fault was reported; only the stop event counts.
    Broken,
    Stopping,
}

/// What the thread does: serves events until the stop, and gives the task back.
fn run_to_end<T: WorkerTask>(
    mut manager: EventManager<Subscriber<T>>,
    id: event_manager::SubscriberId,
) -> Option<T> {
    run(&mut manager, id);
    let mut service = manager.remove_subscriber(id).ok()?.service;
    service.end();
    Some(service.task)
}

fn run<T: WorkerTask>(manager: &mut EventManager<Subscriber<T>>, id: event_manager::SubscriberId) {
    loop {
        let waited = manager.run();
        let Ok(subscriber) = manager.subscriber_mut(id) else {
            return;
        };
        if let Err(error) = waited {
            // epoll_wait fails on arguments alone, and they do not change: this thread is of no more use.
            subscriber.service.fail(&Fault::Host {
                what: "wait for events",
                source: epoll_error(error),
            });
            return;
        }
        if subscriber.service.state == State::Stopping {
            return;
        }
    }
}

impl<T: WorkerTask> Service<T> {
    /// Serves an event: whether it is still of interest.
    fn process(&mut self, data: u32, ready: EventSet, sources: Sources<'_, '_>) -> bool {
        match self.state {
            State::Starting | State::Serving => match self.serve_event(data, ready, sources) {
                Ok(()) => true,
                Err(fault) => {
                    self.fail(&fault);
                    false
                }
            },
            State::Broken => false,
            State::Stopping => true,
        }
    }

    fn serve_event(
        &mut self,
        data: u32,
        ready: EventSet,
        sources: Sources<'_, '_>,
    ) -> Result<(), Fault> {
        let mut own = OwnEvents {
            sources,
            doorbells: &self.doorbells,
        };
        if self.state == State::Starting {
            self.state = State::Serving;
            self.task.begin(&mut own)?;
        }
        if data & OWN != 0 {
            return self.task.ready(data & !OWN, ready, &mut own);
        }
        let Ok(index) = usize::try_from(data) else {
            return Ok(());
        };
        let Some(doorbell) = self.doorbells.get(index) else {
            return Ok(());
        };
        // Nothing to read is possible: events are taken in batches, and a queue's event counts once.
        let _nothing_to_read = doorbell.read();
        if self.task.doorbell(index, &mut own)? == Turn::Again {
            let _already_pending = doorbell.write(1);
        }
        Ok(())
    }

    /// Says that the device is broken, and ends what it has under way: it may be long until the stop, and
    /// other queues of the device wait for some of it.
    fn fail(&mut self, fault: &Fault) {
        self.state = State::Broken;
        self.interrupt.mark_broken(fault);
        self.end();
    }

    fn end(&mut self) {
        if std::mem::replace(&mut self.has_ended, true) {
            return;
        }
        if let Err(fault) = self.task.end()
            && self.state != State::Broken
        {
            self.interrupt.mark_broken(&fault);
        }
    }
}

impl<T: WorkerTask> Subscriber<T> {
    fn register(&self, operations: &mut EventOps<'_>) -> event_manager::Result<()> {
        operations.add(Events::with_data(&self.stop, STOP, EventSet::IN))?;
        for (index, doorbell) in (0_u32..).zip(&self.service.doorbells) {
            operations.add(Events::with_data(doorbell, index, EventSet::IN))?;
            // The first turn; a full counter is an event that is pending.
            let _already_pending = doorbell.write(1);
        }
        Ok(())
    }
}

impl<T: WorkerTask> MutEventSubscriber for Subscriber<T> {
    fn process(&mut self, events: Events, operations: &mut EventOps<'_>) {
        if events.data() == STOP {
            self.service.state = State::Stopping;
            return;
        }
        let sources = Sources::Epoll(operations);
        if !self
            .service
            .process(events.data(), events.event_set(), sources)
        {
            // A doorbell or a device that is always ready would keep the thread busy.
            let _gone = operations.remove(Events::empty_raw(events.fd()));
        }
    }

    fn init(&mut self, operations: &mut EventOps<'_>) {
        self.registration = self.register(operations);
    }
}

fn epoll_fault(what: &'static str, error: event_manager::Error) -> Fault {
    Fault::Host {
        what,
        source: epoll_error(error),
    }
}

fn epoll_error(error: event_manager::Error) -> io::Error {
    match error {
        event_manager::Error::Epoll(errno) => io::Error::from_raw_os_error(errno.errno()),
        other => io::Error::other(other),
    }
}

#[cfg(any(test, fuzzing))]
pub mod driven;
#[cfg(test)]
mod tests;
