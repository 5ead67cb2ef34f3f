//! Requests carried out by the kernel, through io_uring(7).
//!
//! The ring belongs to the thread that first hands requests over: it is made switched off, on the
//! thread that starts a device, and switched on by the device's own (`IORING_SETUP_SINGLE_ISSUER`). What
//! the kernel has to do to complete requests, it does when that thread comes to it anyway
//! (`IORING_SETUP_DEFER_TASKRUN`). Kernels before 6.1 know neither; there the ring is a plain one.
//!
//! The kernel copies an entry and its vectors when it is handed over (`IORING_FEAT_SUBMIT_STABLE`), the
//! memory itself is used until the completion.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::atomic::{Ordering, fence};

use io_uring::types::{Fixed, FsyncFlags};
use io_uring::{IoUring, cqueue, opcode, squeue};
use vmm_sys_util::eventfd::EventFd;

use crate::IoBuffer;
use crate::disk::Image;
use crate::request::{Direction, Job, Work};
use crate::transfer::{VECTORS_MAX, write_flags};

/// Index of the registered file for transfers: past the page cache where that was asked for.
const TRANSFERS: Fixed = Fixed(0);
/// Index of the registered file for everything else.
const BUFFERED: Fixed = Fixed(1);
/// Longest registered piece of memory (`io_sqe_buffer_register` takes no longer one).
const REGISTERED_MAX_BYTES: usize = 1 << 30;
/// Most registered pieces (`IORING_MAX_REG_BUFFERS`).
const REGISTERED_MAX: usize = 1 << 14;

/// The ring and the requests that are in it.
pub(super) struct Uring {
    ring: IoUring,
    /// The thread has switched it on.
    enabled: bool,
    /// Completions signal the event.
    signals: bool,
    /// Nothing announces completions: the kernel looks for them when it is asked to.
    polls: bool,
    /// By index, which is the user data of their entries.
    jobs: Vec<Option<Job>>,
    /// Indices without a job.
    free: Vec<usize>,
    /// Memory whose pages the kernel holds, by index.
    registered: Vec<IoBuffer>,
}

impl std::fmt::Debug for Uring {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Uring")
            .field("enabled", &self.enabled)
            .field("in_flight", &self.in_flight())
            .finish_non_exhaustive()
    }
}

impl Uring {
    /// A ring for `image` with room for `depth` requests, which signals `event`.
    ///
    /// # Errors
    ///
    /// What the host answers: EPERM or ENOSYS where io_uring is forbidden or not there.
    pub(super) fn new(image: &Image, depth: usize, event: &EventFd) -> io::Result<Self> {
        let ring = Self::with(image, depth, false)?;
        ring.ring.submitter().register_eventfd(event.as_raw_fd())?;
        Ok(ring)
    }

    /// A ring for transfers past the page cache alone, not durable ones, whose completions are found by
    /// [`enter`](Self::enter) (`IORING_SETUP_IOPOLL`).
    ///
    /// # Errors
    ///
    /// As for [`new`](Self::new).
    pub(super) fn polled(image: &Image, depth: usize) -> io::Result<Self> {
        Self::with(image, depth, true)
    }

    fn with(image: &Image, depth: usize, polls: bool) -> io::Result<Self> {
        let entries = u32::try_from(depth).unwrap_or(u32::MAX);
        let builder = || {
            let mut builder = IoUring::builder();
            builder.dontfork().setup_clamp();
            if polls {
                builder.setup_iopoll();
            }
            builder
        };
        let modern = builder()
            .setup_submit_all()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_r_disabled()
            .build(entries);
        let (ring, enabled) = match modern {
            Ok(ring) => (ring, false),
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                (builder().build(entries)?, true)
            }
            Err(error) => return Err(error),
        };
        if !ring.params().is_feature_nodrop() || !ring.params().is_feature_submit_stable() {
            // Before Linux 5.5.
            return Err(io::ErrorKind::Unsupported.into());
        }
        let transfers = image
            .direct
            .as_ref()
            .map_or(&image.file, |direct| &direct.file);
        let files = [transfers.as_raw_fd(), image.file.as_raw_fd()];
        ring.submitter().register_files(&files)?;
        Ok(Self {
            ring,
            enabled,
            signals: !polls,
            polls,
            jobs: (0..depth).map(|_| None).collect(),
            free: (0..depth).rev().collect(),
            registered: Vec::new(),
        })
    }

    /// Has the kernel hold the pages of `memory`, so that it need not look each of them up again for each
    /// transfer past the page cache. Returns whether it does.
    ///
    /// # Safety
    ///
    /// The memory stays mapped for as long as the ring.
    pub(super) unsafe fn register_memory(&mut self, memory: &[IoBuffer]) -> io::Result<()> {
        let mut pieces = Vec::new();
        for region in memory {
            let mut done = 0;
            while done < region.len() {
                let length = region.len().saturating_sub(done).min(REGISTERED_MAX_BYTES);
                let start = region.as_ptr().wrapping_add(done);
                // SAFETY: a part of memory for which the caller promises more than is needed here.
                pieces.push(unsafe { IoBuffer::new(start, length) });
                done = done.saturating_add(length);
            }
        }
        if pieces.len() > REGISTERED_MAX {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        // SAFETY: the caller promises that the memory outlives the ring.
        unsafe {
            self.ring
                .submitter()
                .register_buffers(IoBuffer::as_iovecs(&pieces))
        }?;
        self.registered = pieces;
        Ok(())
    }

    /// Gives up what [`register_memory`](Self::register_memory) holds, when no request uses it.
    pub(super) fn release_memory(&mut self) {
        if self.registered.is_empty() || self.in_flight() > 0 {
            return;
        }
        match self.ring.submitter().unregister_buffers() {
            Ok(()) => self.registered.clear(),
            // It ends with the ring.
            Err(error) => tracing::debug!("the kernel holds the guest's memory on: {error}"),
        }
    }

    /// Requests that are in the ring.
    pub(super) fn in_flight(&self) -> usize {
        self.jobs.len().saturating_sub(self.free.len())
    }

    /// Puts a transfer or a flush into the ring. The kernel sees it at the next [`enter`](Self::enter), or
    /// now when the ring is full.
    ///
    /// # Errors
    ///
    /// The job itself, when there is no room, the kernel takes nothing at the moment, or it is of a kind
    /// that does not belong here.
    pub(super) fn push(&mut self, job: Job) -> Result<(), Job> {
        let Some(index) = self.free.pop() else {
            return Err(job);
        };
        let user_data = u64::try_from(index).unwrap_or(u64::MAX);
        let Some(entry) = self.entry(&job) else {
            self.free.push(index);
            return Err(job);
        };
        let Some(place) = self.jobs.get_mut(index) else {
            return Err(job);
        };
        // The entry points to the vectors of the job; moved, they stay where they are.
        let job = place.insert(job);
        let entry = entry.user_data(user_data);
        debug_assert!(matches!(job.work, Work::Transfer { .. } | Work::Flush));
        if self.push_entry(&entry) || (self.enter(0).is_ok() && self.push_entry(&entry)) {
            return Ok(());
        }
        self.free.push(index);
        match self.jobs.get_mut(index).and_then(Option::take) {
            Some(job) => Err(job),
            // It was put there just now.
            None => Ok(()),
        }
    }

    fn push_entry(&mut self, entry: &squeue::Entry) -> bool {
        // SAFETY: the files are registered for as long as the ring lives. The vectors are in the job,
        // which stays in `jobs` until its completion has been taken, and whoever made the buffers promised
        // that their memory can be used until then.
        unsafe { self.ring.submission().push(entry) }.is_ok()
    }

    fn entry(&self, job: &Job) -> Option<squeue::Entry> {
        let (direction, offset) = match job.work {
            Work::Transfer { direction, offset } => (direction, job.place.unwrap_or(offset)),
            Work::Flush => {
                let flush = opcode::Fsync::new(BUFFERED).flags(FsyncFlags::DATASYNC);
                return Some(flush.build());
            }
            Work::Discard { .. } | Work::WriteZeroes { .. } => return None,
        };
        let buffers = job.rest.buffers();
        let flags = write_flags(direction);
        if let &[buffer] = buffers
            && let Ok(length) = u32::try_from(buffer.len())
        {
            let start = buffer.as_ptr();
            return Some(match (direction, self.registered_index(&buffer)) {
                (Direction::Read, Some(index)) => {
                    opcode::ReadFixed::new(TRANSFERS, start, length, index)
                        .offset(offset)
                        .build()
                }
                (Direction::Read, None) => opcode::Read::new(TRANSFERS, start, length)
                    .offset(offset)
                    .build(),
                (Direction::Write { .. }, Some(index)) => {
                    opcode::WriteFixed::new(TRANSFERS, start, length, index)
                        .offset(offset)
                        .rw_flags(flags)
                        .build()
                }
                (Direction::Write { .. }, None) => opcode::Write::new(TRANSFERS, start, length)
                    .offset(offset)
                    .rw_flags(flags)
                    .build(),
            });
        }
        // What is beyond is the rest of a short transfer.
        let count = u32::try_from(buffers.len().min(VECTORS_MAX)).ok()?;
        let vectors = IoBuffer::as_iovecs(buffers).as_ptr();
        Some(match direction {
            Direction::Read => opcode::Readv::new(TRANSFERS, vectors, count)
                .offset(offset)
                .build(),
            Direction::Write { .. } => opcode::Writev::new(TRANSFERS, vectors, count)
                .offset(offset)
                .rw_flags(flags)
                .build(),
        })
    }

    /// The registered piece in which all of `buffer` is.
    fn registered_index(&self, buffer: &IoBuffer) -> Option<u16> {
        let holds = |piece: &IoBuffer| {
            let start = buffer.as_ptr().addr().checked_sub(piece.as_ptr().addr());
            start
                .and_then(|start| start.checked_add(buffer.len()))
                .is_some_and(|end| end <= piece.len())
        };
        let index = self.registered.iter().position(holds)?;
        u16::try_from(index).ok()
    }

    /// Hands what was put into the ring to the kernel, lets it complete what is ready, and waits for
    /// `wanted` completions.
    ///
    /// # Errors
    ///
    /// What the host answers, but for what passes: interruptions, and a kernel without memory.
    pub(super) fn enter(&mut self, wanted: usize) -> io::Result<()> {
        if !self.enabled {
            self.ring.submitter().register_enable_rings()?;
            self.enabled = true;
        }
        let result = loop {
            match self.ring.submitter().submit_and_wait(wanted) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => break result,
            }
        };
        match result {
            Ok(_) => Ok(()),
            Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EBUSY)) => {
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Whether [`enter`](Self::enter) would do something: entries wait for the kernel, or completions for
    /// this thread.
    pub(super) fn needs_enter(&mut self) -> bool {
        if self.polls && self.in_flight() > 0 && self.ring.completion().is_empty() {
            return true;
        }
        let submission = self.ring.submission();
        !submission.is_empty() || submission.taskrun() || submission.cq_overflow()
    }

    /// Whether entries wait for the kernel.
    pub(super) fn has_unsubmitted(&mut self) -> bool {
        !self.ring.submission().is_empty()
    }

    /// The next job that the kernel has completed, and what it answered: bytes, or the negative of an
    /// error number.
    pub(super) fn pop(&mut self) -> Option<(Job, i32)> {
        loop {
            let entry: cqueue::Entry = self.ring.completion().next()?;
            let index = usize::try_from(entry.user_data()).unwrap_or(usize::MAX);
            // The kernel gives back what it got; another number would be none of ours.
            if let Some(job) = self.jobs.get_mut(index).and_then(Option::take) {
                self.free.push(index);
                return Some((job, entry.result()));
            }
        }
    }

    /// Whether a completion signals the event.
    pub(super) fn let_signal(&mut self, signals: bool) {
        if self.signals == signals {
            return;
        }
        self.signals = signals;
        let completion = self.ring.completion();
        if signals {
            completion.enable_eventfd();
            // Whoever asks for signals looks for completions next: in this order, or one is missed.
            fence(Ordering::SeqCst);
        } else {
            completion.disable_eventfd();
        }
    }
}
