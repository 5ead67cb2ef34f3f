use super::*;
use crate::feature;
use crate::queue::QueueState;
use crate::testing::{Buffer, DriverQueue, memory};
use std::fmt::Display;
use std::sync::atomic::{AtomicU32, Ordering};

/// Counts what a device says.
#[derive(Debug, Default)]
struct Counted {
    used: AtomicU32,
    broken: AtomicU32,
}

impl Interrupt for Counted {
    fn signal_used(&self, _queue_index: u16) {
        self.used.fetch_add(1, Ordering::SeqCst);
    }

    fn signal_config_change(&self) {}

    fn mark_broken(&self, _reason: &dyn Display) {
        self.broken.fetch_add(1, Ordering::SeqCst);
    }
}

/// What a task does with its doorbell.
#[derive(Debug, Clone, Copy)]
enum Behaviour {
    Wait,
    Again,
    Fail,
    Panic,
}

#[derive(Debug)]
struct Counter {
    behaviour: Behaviour,
    turns: Arc<AtomicU32>,
    own: Option<EventFd>,
    own_events: Arc<AtomicU32>,
    ends: Arc<AtomicU32>,
    thread_name: Arc<std::sync::Mutex<String>>,
}

impl Counter {
    fn new(behaviour: Behaviour) -> Self {
        Self {
            behaviour,
            turns: Arc::default(),
            own: None,
            own_events: Arc::default(),
            ends: Arc::default(),
            thread_name: Arc::default(),
        }
    }
}

impl WorkerTask for Counter {
    fn begin(&mut self, events: &mut OwnEvents<'_, '_>) -> Result<(), Fault> {
        let name = thread::current().name().unwrap().to_owned();
        *self.thread_name.lock().unwrap() = name;
        if let Some(own) = &self.own {
            use std::os::fd::AsRawFd as _;
            events.add(own.as_raw_fd(), 5, EventSet::IN)?;
        }
        Ok(())
    }

    fn doorbell(
        &mut self,
        _queue_index: usize,
        _events: &mut OwnEvents<'_, '_>,
    ) -> Result<Turn, Fault> {
        self.turns.fetch_add(1, Ordering::SeqCst);
        match self.behaviour {
            Behaviour::Wait => Ok(Turn::Wait),
            Behaviour::Again => Ok(Turn::Again),
            Behaviour::Fail => Err(Fault::Request {
                index: 0,
                what: "the test says so",
            }),
            Behaviour::Panic => panic!("the test says so"),
        }
    }

    fn ready(
        &mut self,
        token: u32,
        _ready: EventSet,
        events: &mut OwnEvents<'_, '_>,
    ) -> Result<(), Fault> {
        use std::os::fd::AsRawFd as _;
        assert_eq!(token, 5);
        self.own_events.fetch_add(1, Ordering::SeqCst);
        // It stays readable, and is looked at no more.
        events.remove(self.own.as_ref().unwrap().as_raw_fd())
    }

    fn end(&mut self) -> Result<(), Fault> {
        self.ends.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

fn doorbell() -> EventFd {
    EventFd::new(EFD_NONBLOCK).unwrap()
}

fn wait_for(counter: &AtomicU32, at_least: u32) {
    let end = Instant::now() + Duration::from_secs(10);
    while counter.load(Ordering::SeqCst) < at_least {
        assert!(Instant::now() < end, "it does not happen");
        thread::sleep(Duration::from_micros(50));
    }
}

#[test]
fn each_queue_has_a_first_turn_and_then_one_for_its_doorbell() {
    let bell = doorbell();
    let task = Counter::new(Behaviour::Wait);
    let (turns, name) = (Arc::clone(&task.turns), Arc::clone(&task.thread_name));
    let bells = vec![bell.try_clone().unwrap(), doorbell()];
    let worker = Worker::start("disk\0 0", task, bells, Arc::new(Counted::default())).unwrap();
    wait_for(&turns, 2);
    assert_eq!(*name.lock().unwrap(), "disk 0");
    bell.write(1).unwrap();
    wait_for(&turns, 3);
    let task = worker.stop().unwrap();
    assert_eq!(task.turns.load(Ordering::SeqCst), 3);
}

#[test]
fn a_queue_that_is_never_empty_does_not_hold_a_stop_up() {
    let task = Counter::new(Behaviour::Again);
    let turns = Arc::clone(&task.turns);
    let worker =
        Worker::start("busy", task, vec![doorbell()], Arc::new(Counted::default())).unwrap();
    wait_for(&turns, 1000);
    let before = Instant::now();
    assert!(worker.stop().is_some());
    assert!(before.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_fault_is_told_once_and_ends_the_work() {
    let bell = doorbell();
    let interrupt = Arc::new(Counted::default());
    let task = Counter::new(Behaviour::Fail);
    let ends = Arc::clone(&task.ends);
    let bells = vec![bell.try_clone().unwrap(), doorbell()];
    let worker = Worker::start("broken", task, bells, Arc::<Counted>::clone(&interrupt)).unwrap();
    wait_for(&interrupt.broken, 1);
    // Others may wait for what is under way, and the stop may be long in coming.
    wait_for(&ends, 1);
    for _ in 0..10 {
        bell.write(1).unwrap();
        thread::sleep(Duration::from_millis(1));
    }
    let task = worker.stop().unwrap();
    assert_eq!(task.turns.load(Ordering::SeqCst), 1);
    assert_eq!(interrupt.broken.load(Ordering::SeqCst), 1);
    assert_eq!(ends.load(Ordering::SeqCst), 1, "once");
}

#[test]
fn a_worker_without_a_thread_works_when_it_is_driven() {
    driven::set(true);
    let bell = doorbell();
    let task = Counter::new(Behaviour::Wait);
    let turns = Arc::clone(&task.turns);
    let bells = vec![bell.try_clone().unwrap(), doorbell()];
    let worker = Worker::start("driven", task, bells, Arc::new(Counted::default())).unwrap();
    let busy = Counter::new(Behaviour::Again);
    let interrupt = Arc::new(Counted::default());
    let busy = Worker::start("busy", busy, vec![doorbell()], interrupt).unwrap();
    driven::set(false);
    assert_eq!(turns.load(Ordering::SeqCst), 0);
    driven::run_pending();
    assert_eq!(turns.load(Ordering::SeqCst), 2);
    assert!(busy.stop().unwrap().turns.load(Ordering::SeqCst) > 1);
    bell.write(1).unwrap();
    driven::run_pending();
    assert_eq!(turns.load(Ordering::SeqCst), 3);
    let task = worker.stop().unwrap();
    assert_eq!(task.ends.load(Ordering::SeqCst), 1);
    driven::run_pending();
}

#[test]
fn a_device_has_events_of_its_own() {
    let mut task = Counter::new(Behaviour::Wait);
    let own = doorbell();
    own.write(1).unwrap();
    task.own = Some(own);
    let own_events = Arc::clone(&task.own_events);
    let worker =
        Worker::start("own", task, vec![doorbell()], Arc::new(Counted::default())).unwrap();
    wait_for(&own_events, 1);
    let task = worker.stop().unwrap();
    assert_eq!(task.own_events.load(Ordering::SeqCst), 1);
}

#[test]
fn a_thread_that_panicked_gives_no_task_back() {
    let task = Counter::new(Behaviour::Panic);
    let turns = Arc::clone(&task.turns);
    let worker = Worker::start(
        "panics",
        task,
        vec![doorbell()],
        Arc::new(Counted::default()),
    )
    .unwrap();
    wait_for(&turns, 1);
    assert!(worker.stop().is_none());
}

#[test]
fn a_turn_has_a_budget_and_tells_the_driver_once_or_when_it_takes_long() {
    let memory = memory();
    let state = QueueState {
        max_size: 16,
        size: 16,
        ready: true,
        descriptor_area: 0x1000,
        driver_area: 0x2000,
        device_area: 0x3000,
        ..QueueState::default()
    };
    let mut queue = Queue::new(state, feature::VERSION_1, Arc::clone(&memory)).unwrap();
    let mut driver = DriverQueue::new(memory, 16, [0x1000, 0x2000, 0x3000], 0);
    let mut chain = DescriptorChain::new(&queue);
    let interrupt = Counted::default();
    for _ in 0..8 {
        driver.add(&[Buffer::Writable(0x4000, 1)]);
    }
    let mut turn = |budget, time: Duration| {
        serve(0, &mut queue, &mut chain, &interrupt, budget, |_chain| {
            thread::sleep(time);
            Ok(1)
        })
        .unwrap()
    };
    assert_eq!(turn(0, Duration::ZERO), Turn::Again);
    assert_eq!(interrupt.used.load(Ordering::SeqCst), 0);
    // A busy host can make any of them the last of its turn.
    while driver.split().used_index() < 3 {
        let budget = 3 - driver.split().used_index();
        assert_eq!(turn(budget, Duration::from_micros(300)), Turn::Again);
    }
    assert_eq!(interrupt.used.load(Ordering::SeqCst), 3);
    // A request that takes long is the last of its turn.
    assert_eq!(turn(9, TURN_TIME), Turn::Again);
    assert_eq!(driver.split().used_index(), 4);
    assert_eq!(turn(9, Duration::ZERO), Turn::Wait);
    assert_eq!(driver.split().used_index(), 8);
    assert!(interrupt.used.load(Ordering::SeqCst) > 4);
    let told = interrupt.used.load(Ordering::SeqCst);
    assert_eq!(turn(9, Duration::ZERO), Turn::Wait);
    assert_eq!(interrupt.used.load(Ordering::SeqCst), told);
}
