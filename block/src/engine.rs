//! Requests in, completions out.
//!
//! Requests are submitted with a tag and complete with it, in any order. A turn of an engine's user is:
//! [`submit`](Engine::submit) what there is, [`commit`](Engine::commit) it to the host at once, take what
//! has completed by [`next_completion`](Engine::next_completion), and before it waits, ask
//! [`prepare_wait`](Engine::prepare_wait) whether it may. The [`event`](Engine::event) then says when there
//! is more.
//!
//! An engine belongs to one thread from its first request on: the worker of the device's queue that it
//! serves. It may be made on another thread, and dropped on another when nothing is in flight.
//! No request allocates memory once an engine has seen as many at a time, and as many buffers, before.

mod error_log;
mod inline;
mod places;
mod pool;
mod uring;

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::buffer::{IoBuffer, Rest, total_bytes};
use crate::disk::{CacheMode, Image};
use crate::executor::Executor;
use crate::request::{Completion, Direction, Job, Operation, Work};
use crate::transfer::{Fit, fit};
use crate::{IoError, SECTOR_BYTES};
use error_log::ErrorLog;
use inline::{Attempt, Inline};
use places::Places;
use pool::Pool;
use uring::Uring;

/// Who carries requests out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EngineKind {
    /// The kernel, through io_uring; threads where it is refused.
    #[default]
    IoUring,
    /// A few threads.
    Threads,
    /// The thread that submits, one request after the other.
    Sync,
}

/// Carries the requests of one queue out.
#[derive(Debug)]
pub struct Engine {
    image: Arc<Image>,
    inline: Inline,
    places: Places,
    backend: Backend,
    /// Beside the ring: one for transfers whose completions are polled for.
    polled: Option<Box<Uring>>,
    /// The host has refused that.
    polling_is_over: bool,
    /// Carries out what the ring does not take; started when there is such a request.
    helpers: Option<Pool>,
    /// Signalled by the ring and by threads.
    event: EventFd,
    depth: usize,
    completions: VecDeque<Completion>,
    /// Requests that the backend or the helpers have.
    in_flight: usize,
    /// Of those, the ones that the helpers have.
    with_helpers: usize,
    /// Requests since the last commit, and before it: what comes alone is likely to go on so.
    batch: usize,
    last_batch: usize,
    /// Buffer lists that are used again.
    spare: Vec<Rest>,
    log: ErrorLog,
}

#[derive(Debug)]
enum Backend {
    Uring(Box<Uring>),
    Threads,
    Sync(Executor),
}

/// One line for a process is enough.
static REFUSAL_SAID: AtomicBool = AtomicBool::new(false);

impl Engine {
    pub(crate) fn new(image: Arc<Image>, kind: EngineKind, depth: usize) -> io::Result<Self> {
        let depth = depth.max(1);
        let event = EventFd::new(EFD_NONBLOCK)?;
        let backend = match kind {
            EngineKind::IoUring => match Uring::new(&image, depth, &event) {
                Ok(ring) => Backend::Uring(Box::new(ring)),
                Err(error) => {
                    if !REFUSAL_SAID.swap(true, Ordering::Relaxed) {
                        tracing::warn!(disk = %image.path.display(),
                            "the host refuses io_uring ({error}); threads carry out disk requests");
                    }
                    Backend::Threads
                }
            },
            EngineKind::Threads => Backend::Threads,
            EngineKind::Sync => Backend::Sync(Executor::new(Arc::clone(&image))),
        };
        let polls = image.polls.is_some() && matches!(backend, Backend::Uring(_));
        let polled = polls.then(|| Uring::polled(&image, depth)).transpose();
        let polled = polled.unwrap_or_else(|error| {
            tracing::warn!(disk = %image.path.display(),
                "the host refuses to poll for completions now: {error}");
            None
        });
        Ok(Self {
            inline: Inline::new(&image),
            places: Places::default(),
            image,
            backend,
            polled: polled.map(Box::new),
            polling_is_over: false,
            helpers: None,
            event,
            depth,
            completions: VecDeque::with_capacity(depth),
            in_flight: 0,
            with_helpers: 0,
            batch: 0,
            last_batch: 0,
            spare: Vec::with_capacity(depth),
            log: ErrorLog::default(),
        })
    }

    /// Who carries requests out, now that the host has been asked.
    pub fn kind(&self) -> EngineKind {
        match self.backend {
            Backend::Uring(_) => EngineKind::IoUring,
            Backend::Threads => EngineKind::Threads,
            Backend::Sync(_) => EngineKind::Sync,
        }
    }

    /// Lets the kernel hold the pages of `memory`, in which buffers will be: transfers past the page cache
    /// then cost less. It takes them from the host at once, all of them, so this is for memory that is
    /// there anyway. Returns whether it was worth it: it is not with another engine, or with the page
    /// cache.
    ///
    /// # Errors
    ///
    /// What the host answers, for example beyond the limit of locked memory; all goes on without.
    ///
    /// # Safety
    ///
    /// The memory stays mapped for as long as the engine.
    pub unsafe fn register_memory(&mut self, memory: &[IoBuffer]) -> io::Result<bool> {
        match (&mut self.polled, &mut self.backend) {
            (Some(ring), _) | (None, Backend::Uring(ring)) if self.image.direct.is_some() => {
                // SAFETY: the caller promises that the memory outlives this engine, and so its ring.
                unsafe { ring.register_memory(memory) }?;
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// Has the kernel hold the memory no more, for nothing is under way: whoever has the same memory next, or
    /// as much of it, is not refused because the kernel is slow to close a ring. To be called on the thread
    /// that the engine belongs to.
    pub fn release_memory(&mut self) {
        if let Backend::Uring(ring) = &mut self.backend {
            ring.release_memory();
        }
        if let Some(ring) = &mut self.polled {
            ring.release_memory();
        }
    }

    /// Whether there are requests under way whose completions nobody announces: they are found by
    /// [`commit`](Self::commit) alone, which their user calls again and again.
    pub fn is_polling(&self) -> bool {
        self.polled
            .as_ref()
            .is_some_and(|ring| ring.in_flight() > 0)
    }

    /// Takes a request; at most the depth of the engine should be under way. It is carried out from now or
    /// from [`commit`](Self::commit) on, and its completion comes with `tag`. The buffer list itself is not
    /// needed any more when this returns.
    pub fn submit(&mut self, tag: u64, operation: Operation<'_>) {
        self.batch = self.batch.saturating_add(1);
        match self.prepare(operation) {
            Ok((work, buffers)) => self.start(tag, work, buffers),
            Err(error) => self.completions.push_back(Completion {
                tag,
                result: Err(error),
            }),
        }
    }

    /// Hands what was submitted to the host, and collects what has completed. One system call, or none
    /// when there is nothing for it to do.
    ///
    /// # Errors
    ///
    /// What the host answers when the ring cannot be used any more.
    pub fn commit(&mut self) -> io::Result<()> {
        if self.batch > 0 {
            self.last_batch = std::mem::take(&mut self.batch);
        }
        if let Some(helpers) = &self.helpers {
            helpers.let_signal(false);
        }
        if let Backend::Uring(ring) = &mut self.backend
            && ring.in_flight() > 0
        {
            ring.let_signal(false);
            if ring.needs_enter() {
                ring.enter(0)?;
            }
        }
        self.poll()?;
        self.collect();
        // What had to go on may have been pushed again.
        if let Some(ring) = &mut self.polled
            && ring.in_flight() > 0
            && ring.has_unsubmitted()
        {
            ring.enter(0)?;
        }
        if let Backend::Uring(ring) = &mut self.backend
            && ring.in_flight() > 0
            && ring.has_unsubmitted()
        {
            ring.enter(0)?;
            self.collect();
        }
        Ok(())
    }

    /// The next request that completed.
    pub fn next_completion(&mut self) -> Option<Completion> {
        self.completions.pop_front()
    }

    /// Whether the host lost something that was written to the disk: all flushes fail from then on.
    pub fn has_lost_writes(&self) -> bool {
        self.image.lost_writes().is_some()
    }

    /// Requests whose completion has not been taken.
    pub fn in_flight(&self) -> usize {
        self.in_flight.saturating_add(self.completions.len())
    }

    /// Signalled when requests complete after [`prepare_wait`](Self::prepare_wait) said that there are
    /// none. It need not be read by a user that waits for its edges; its count means nothing.
    pub fn event(&self) -> &EventFd {
        &self.event
    }

    /// Hands transfers over whose completions are polled for, and looks for completions once.
    fn poll(&mut self) -> io::Result<()> {
        if let Some(ring) = &mut self.polled
            && ring.in_flight() > 0
            && ring.needs_enter()
        {
            ring.enter(0)?;
        }
        Ok(())
    }

    /// Asks for the event, and returns whether the user may wait for it: not when there are completions,
    /// requests that the host could not take yet, or some that have to be polled for.
    ///
    /// # Errors
    ///
    /// As for [`commit`](Self::commit).
    pub fn prepare_wait(&mut self) -> io::Result<bool> {
        if let Some(helpers) = &self.helpers {
            helpers.let_signal(true);
        }
        if let Backend::Uring(ring) = &mut self.backend
            && ring.in_flight() > 0
        {
            ring.let_signal(true);
            // What completed before that has signalled nothing.
            if ring.needs_enter() {
                ring.enter(0)?;
            }
        }
        self.poll()?;
        self.collect();
        let unsubmitted = match &mut self.backend {
            Backend::Uring(ring) => ring.has_unsubmitted(),
            Backend::Threads | Backend::Sync(_) => false,
        };
        Ok(self.completions.is_empty() && !unsubmitted && !self.is_polling())
    }

    /// Waits until nothing is with the host. The completions are then all there to be taken.
    ///
    /// # Errors
    ///
    /// As for [`commit`](Self::commit).
    pub fn drain(&mut self) -> io::Result<()> {
        loop {
            self.commit()?;
            if self.in_flight == 0 {
                return Ok(());
            }
            if let Some(ring) = &mut self.polled
                && ring.in_flight() > 0
            {
                ring.enter(1)?;
                continue;
            }
            match (&mut self.backend, &self.helpers) {
                (Backend::Uring(ring), _) if ring.in_flight() > 0 => ring.enter(1)?,
                (_, Some(helpers)) => helpers.wait(),
                // Nobody has what is said to be under way.
                (_, None) => return Err(io::ErrorKind::Other.into()),
            }
        }
    }

    /// Checks a request against the disk.
    fn prepare<'a>(&self, operation: Operation<'a>) -> Result<(Work, &'a [IoBuffer]), IoError> {
        let always_durable = self.image.cache == CacheMode::DirectSync;
        let never_durable = self.image.cache == CacheMode::Unsafe;
        let is_durable = |durable: bool| (durable || always_durable) && !never_durable;
        Ok(match operation {
            Operation::Read { sector, buffers } => {
                let offset = self.check_range(sector, total_bytes(buffers))?;
                let direction = Direction::Read;
                (Work::Transfer { direction, offset }, buffers)
            }
            Operation::Write {
                sector,
                buffers,
                durable,
            } => {
                self.check_writable()?;
                let offset = self.check_range(sector, total_bytes(buffers))?;
                let direction = Direction::Write {
                    durable: is_durable(durable),
                };
                (Work::Transfer { direction, offset }, buffers)
            }
            Operation::Flush => (Work::Flush, &[]),
            Operation::Discard {
                sector,
                length_bytes: length,
            } => {
                self.check_writable()?;
                let offset = self.check_range(sector, length)?;
                (Work::Discard { offset, length }, &[])
            }
            Operation::WriteZeroes {
                sector,
                length_bytes: length,
                may_unmap,
                durable,
            } => {
                self.check_writable()?;
                let offset = self.check_range(sector, length)?;
                let work = Work::WriteZeroes {
                    offset,
                    length,
                    may_unmap,
                    durable: is_durable(durable),
                };
                (work, &[])
            }
        })
    }

    fn check_writable(&self) -> Result<(), IoError> {
        if self.image.readonly {
            return Err(IoError::ReadOnly);
        }
        Ok(())
    }

    /// The offset of `sector` in bytes, if all of `length_bytes` from there is on the disk.
    fn check_range(&self, sector: u64, length_bytes: u64) -> Result<u64, IoError> {
        if !length_bytes.is_multiple_of(SECTOR_BYTES) {
            return Err(IoError::PartialSector);
        }
        let size_bytes = self.image.size_bytes.load(Ordering::Acquire);
        sector
            .checked_mul(SECTOR_BYTES)
            .filter(|offset| {
                offset
                    .checked_add(length_bytes)
                    .is_some_and(|end| end <= size_bytes)
            })
            .ok_or(IoError::OutOfRange)
    }

    /// Does at once what can be done at once, and hands the rest over.
    fn start(&mut self, tag: u64, work: Work, buffers: &[IoBuffer]) {
        if work.is_to_be_durable()
            && let Some(error) = self.image.lost_writes()
        {
            return self.complete(tag, Err(IoError::Host(error)));
        }
        let (mut place, mut done_bytes) = (None, 0);
        match work {
            Work::Flush if !self.image.flushes() => return self.complete(tag, Ok(())),
            Work::Transfer { direction, offset } => {
                let length = total_bytes(buffers);
                if length == 0 {
                    return self.complete(tag, Ok(()));
                }
                if !matches!(self.backend, Backend::Sync(_)) {
                    let at = match &self.image.qcow2 {
                        None => Some(offset),
                        Some(qcow2) => {
                            place = self.places.hold(qcow2, direction, offset, length);
                            place
                        }
                    };
                    if let Some(at) = at {
                        match self.attempt(direction, at, buffers, length) {
                            Attempt::Done => {
                                self.release(&mut place);
                                return self.complete(tag, Ok(()));
                            }
                            Attempt::Failed(error) => {
                                self.release(&mut place);
                                self.log.write(&self.image.path, &work, &error);
                                return self.complete(tag, Err(IoError::Host(error)));
                            }
                            Attempt::Partly(count) => done_bytes = count,
                        }
                    }
                }
            }
            _ => {}
        }
        let mut rest = self.spare.pop().unwrap_or_else(Rest::with_room);
        rest.fill(buffers);
        let mut job = Job {
            tag,
            work,
            place,
            rest,
        };
        job.advance(done_bytes);
        self.in_flight = self.in_flight.saturating_add(1);
        self.hand_over(job);
    }

    /// Transfers at once what can be transferred at once, at this offset of the file.
    fn attempt(
        &mut self,
        direction: Direction,
        offset: u64,
        buffers: &[IoBuffer],
        length: u64,
    ) -> Attempt {
        // Threads have no system call to share.
        let alone = !matches!(self.backend, Backend::Uring(_))
            || (self.batch <= 1
                && self.last_batch <= 1
                && self.in_flight == 0
                && self.completions.is_empty());
        self.inline
            .attempt(alone, &self.image, direction, offset, buffers, length)
    }

    /// Nothing goes on at `place` any more.
    fn release(&self, place: &mut Option<u64>) {
        if place.take().is_some()
            && let Some(qcow2) = &self.image.qcow2
        {
            qcow2.release();
        }
    }

    /// Gives `job` to whoever carries such a one out. It counts as in flight already.
    fn hand_over(&mut self, mut job: Job) {
        match &mut self.backend {
            Backend::Sync(executor) => {
                let result = executor.run(&mut job);
                self.finish(job, result);
            }
            Backend::Threads => self.give_to_helpers(job),
            Backend::Uring(ring) => {
                // A ring knows nothing of what is in the file.
                let is_raw = self.image.qcow2.is_none();
                let belongs_there = match (job.work, &self.image.direct) {
                    (Work::Flush, _) => is_raw,
                    (Work::Transfer { .. }, None) => is_raw || job.place.is_some(),
                    (Work::Transfer { offset, .. }, Some(direct)) => {
                        let offset = if is_raw { Some(offset) } else { job.place };
                        offset.is_some_and(|offset| {
                            fit(direct, offset, job.rest.buffers()) == Fit::Whole
                        })
                    }
                    (Work::Discard { .. } | Work::WriteZeroes { .. }, _) => false,
                };
                if !belongs_there {
                    return self.give_to_helpers(job);
                }
                let is_polled_for = !self.polling_is_over
                    && matches!(job.work, Work::Transfer { .. })
                    && !job.work.is_to_be_durable()
                    && (self.image.polls).is_some_and(|limits| limits.fit(job.rest.buffers()));
                let ring = match &mut self.polled {
                    Some(polled) if is_polled_for => polled,
                    _ => ring,
                };
                if let Err(job) = ring.push(job) {
                    self.give_to_helpers(job);
                }
            }
        }
    }

    /// Gives `job` to threads; where there are none to be had, carries it out here.
    fn give_to_helpers(&mut self, mut job: Job) {
        // They find the place by themselves.
        self.release(&mut job.place);
        if self.helpers.is_none() {
            let event = self.event.try_clone();
            let made = event.and_then(|event| Pool::new(&self.image, event, self.depth));
            match made {
                Ok(pool) => self.helpers = Some(pool),
                Err(error) if self.image.qcow2.is_some() => {
                    // What gives clusters back would wait for transfers that only this thread can end.
                    return self.finish(job, Err(IoError::Host(error)));
                }
                Err(error) => {
                    self.log.write(&self.image.path, &job.work, &error);
                    let result = Executor::new(Arc::clone(&self.image)).run(&mut job);
                    return self.finish(job, result);
                }
            }
        }
        if let Some(helpers) = &self.helpers {
            self.with_helpers = self.with_helpers.saturating_add(1);
            helpers.push(job);
        }
    }

    /// Takes what the rings and the threads have completed.
    fn collect(&mut self) {
        while let Some(ring) = &mut self.polled
            && ring.in_flight() > 0
            && let Some((job, answer)) = ring.pop()
        {
            if answer.checked_neg() == Some(libc::EOPNOTSUPP) {
                // As it was when the disk was opened it is no more.
                self.stop_polling(job);
            } else {
                self.go_on(job, answer);
            }
        }
        while let Backend::Uring(ring) = &mut self.backend
            && ring.in_flight() > 0
            && let Some((job, answer)) = ring.pop()
        {
            self.go_on(job, answer);
        }
        while self.with_helpers > 0
            && let Some(helpers) = &self.helpers
            && let Some((job, result)) = helpers.pop()
        {
            self.with_helpers = self.with_helpers.saturating_sub(1);
            self.finish(job, result);
        }
    }

    /// The host does not let completions be polled for after all: `job`, and what comes, goes the other way.
    fn stop_polling(&mut self, job: Job) {
        if !std::mem::replace(&mut self.polling_is_over, true) {
            tracing::warn!(disk = %self.image.path.display(),
                "the host does not let completions be polled for any more");
        }
        self.hand_over(job);
    }

    /// The ring has answered: the job is done, has failed, or has to go on.
    fn go_on(&mut self, mut job: Job, answer: i32) {
        let direction = match job.work {
            Work::Transfer { direction, .. } => Some(direction),
            _ => None,
        };
        match (usize::try_from(answer), direction) {
            (Ok(_), None) => self.finish(job, Ok(())),
            // The last cluster of an image may be longer than its file.
            (Ok(0), Some(_)) if job.place.is_some() => self.give_to_helpers(job),
            (Ok(0), Some(direction)) => {
                self.finish(job, Err(IoError::Host(direction.cut_short())));
            }
            (Ok(count), Some(_)) => {
                job.advance(count);
                if job.rest.is_empty() {
                    self.finish(job, Ok(()));
                } else {
                    // Each time there is less left.
                    self.hand_over(job);
                }
            }
            (Err(_), _) => match answer.checked_neg() {
                // What a ring does not do, or not now, or not with O_DIRECT, a thread does.
                Some(libc::EAGAIN | libc::EINTR | libc::EINVAL | libc::EOPNOTSUPP) => {
                    self.give_to_helpers(job);
                }
                code => {
                    let error = io::Error::from_raw_os_error(code.unwrap_or(libc::EIO));
                    self.finish(job, Err(IoError::Host(error)));
                }
            },
        }
    }

    /// The end of a job that was in flight.
    fn finish(&mut self, mut job: Job, result: Result<(), IoError>) {
        self.release(&mut job.place);
        self.in_flight = self.in_flight.saturating_sub(1);
        if let Err(IoError::Host(error)) = &result {
            self.image.note_error(&job.work, error);
            self.log.write(&self.image.path, &job.work, error);
        }
        self.spare.push(job.rest);
        self.complete(job.tag, result);
    }

    fn complete(&mut self, tag: u64, result: Result<(), IoError>) {
        self.completions.push_back(Completion { tag, result });
    }
}

impl Drop for Engine {
    /// Guest memory must not be written to after an engine is gone.
    fn drop(&mut self) {
        if self.in_flight > 0 && self.drain().is_err() {
            tracing::error!(disk = %self.image.path.display(),
                "requests of the disk were under way when its ring failed");
        }
    }
}

#[cfg(test)]
mod tests;
