//! The thread of a vCPU.

use std::io;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};

use super::control::VcpuControl;
use super::run_loop::{Leave, Vcpu};
use crate::crash::Crash;
use crate::lifecycle::GuestEnd;

/// A vCPU thread could not be started.
#[derive(Debug, thiserror::Error)]
#[error("cannot start the thread of vCPU {vcpu}: {source}")]
pub struct VcpuThreadError {
    /// Which vCPU.
    pub vcpu: u16,
    /// What the host said.
    pub source: io::Error,
}

/// A vCPU and its thread. Dropped, it ends the thread and waits for it.
#[derive(Debug)]
pub struct VcpuThread {
    control: Arc<VcpuControl>,
    thread: Option<JoinHandle<()>>,
}

impl VcpuThread {
    /// Puts `vcpu` on a thread of its own, where it stands until it is told to run. `report` is called
    /// on that thread, which holds no lock, when the guest ends; the vCPU stands from then on.
    ///
    /// # Errors
    ///
    /// [`VcpuThreadError`] when the host gives no thread.
    pub fn start(
        number: u16,
        mut vcpu: Vcpu,
        control: Arc<VcpuControl>,
        report: impl Fn(GuestEnd) + Send + 'static,
    ) -> Result<Self, VcpuThreadError> {
        let thread_control = Arc::clone(&control);
        let thread = Builder::new()
            .name(format!("vcpu{number}"))
            .spawn(move || run(&mut vcpu, &thread_control, &report))
            .map_err(|source| VcpuThreadError {
                vcpu: number,
                source,
            })?;
        Ok(Self {
            control,
            thread: Some(thread),
        })
    }

    /// What steers it.
    pub fn control(&self) -> &VcpuControl {
        &self.control
    }
}

impl Drop for VcpuThread {
    fn drop(&mut self) {
        self.control.request_end();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("a vCPU thread panicked");
        }
    }
}

/// Brings all of `vcpus` to an instruction boundary: all are asked, then all are waited for.
pub fn pause_all(vcpus: &[VcpuThread]) {
    for vcpu in vcpus {
        vcpu.control.request_stand();
    }
    for vcpu in vcpus {
        vcpu.control.wait_until_it_stands();
    }
}

fn run(vcpu: &mut Vcpu, control: &VcpuControl, report: &dyn Fn(GuestEnd)) {
    // Whoever waits for this thread to stand is released however the thread ends.
    struct Ended<'a>(&'a VcpuControl);
    impl Drop for Ended<'_> {
        fn drop(&mut self) {
            self.0.ended();
        }
    }
    let _ended = Ended(control);

    let immediate_exit = vcpu.page().immediate_exit();
    // SAFETY: the page is mapped as long as the vCPU is there, which is longer than this function runs,
    // and the run page accesses the field atomically.
    let target = unsafe { control.kick_target().target(immediate_exit) };
    let _target = match target {
        Ok(target) => target,
        Err(error) => {
            report(GuestEnd::Crash(Crash::new(format!(
                "a vCPU cannot be interrupted: {error}"
            ))));
            return;
        }
    };
    while control.stand_until_run() {
        match vcpu.run(control) {
            Leave::Attention => {}
            Leave::GuestEnd(end) => {
                control.stand_by_itself();
                report(end);
            }
        }
    }
}
