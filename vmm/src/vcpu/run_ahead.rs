//! Running ahead of KVM: on a software KVM, what a guest's kernel executes before its first program is carried
//! out by the crate `completion`, many instructions at a time, and only what it leaves is stepped by KVM.
//!
//! On the vCPU's thread. KVM is asked to stop after each instruction (KVM_SET_GUEST_DEBUG with
//! KVM_GUESTDBG_SINGLESTEP, KVM API, 4.87); at each stop a run begins where KVM stands. Interrupts, faults,
//! device accesses, model-specific registers and all that is not 64-bit code at ring 0 stay KVM's.
//!
//! It ends for good when the first vCPU returns to a program. From then on KVM keeps tables of its own for
//! the programs' page tables, and has to see who writes to those (Linux, `kvm_mmu_track_write`); a write from
//! here it would not see. So whoever returns to a program first waits for the runs of the other vCPUs to end.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// Whether the vCPUs of a machine run ahead.
#[derive(Debug, Default)]
pub struct RunAhead {
    ended: AtomicBool,
    /// How many vCPUs are in a run.
    running: AtomicU32,
}

impl RunAhead {
    /// Whether vCPUs run ahead no more.
    pub fn has_ended(&self) -> bool {
        self.ended.load(Ordering::SeqCst)
    }

    /// Does `run` unless it has ended, which it then does not before `run` is over.
    pub fn run<T>(&self, run: impl FnOnce() -> T) -> Option<T> {
        self.running.fetch_add(1, Ordering::SeqCst);
        let result = match self.has_ended() {
            true => None,
            false => Some(run()),
        };
        self.running.fetch_sub(1, Ordering::SeqCst);
        result
    }

    /// No vCPU runs ahead from now on. Waits for those that do: less than a millisecond.
    pub fn end(&self) {
        self.ended.store(true, Ordering::SeqCst);
        while self.running.load(Ordering::SeqCst) != 0 {
            std::thread::yield_now();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::{Arc, mpsc};
    use std::thread;
    use std::time::Duration;

    use super::RunAhead;

    #[test]
    fn no_run_begins_after_the_end_and_none_lasts_beyond_it() {
        let runs = Arc::new(RunAhead::default());
        assert_eq!(runs.run(|| 7), Some(7));
        let (begun, begins) = mpsc::channel();
        let over = Arc::new(AtomicBool::new(false));
        let other = thread::spawn({
            let (runs, over) = (Arc::clone(&runs), Arc::clone(&over));
            move || {
                runs.run(|| {
                    begun.send(()).expect("somebody who waits");
                    thread::sleep(Duration::from_millis(20));
                    over.store(true, Ordering::SeqCst);
                })
            }
        });
        begins.recv().expect("a run");
        runs.end();
        assert!(over.load(Ordering::SeqCst), "the other run is over");
        assert_eq!(runs.run(|| 7), None);
        assert!(runs.has_ended());
        assert_eq!(other.join().expect("no panic"), Some(()));
    }
}
