//! A device that does all its work when it is stopped: what comes last is what a transport can get wrong.

use vm_memory::{Bytes, GuestAddress};

use crate::queue::Queue;
use crate::{Activation, StartError, VirtioDevice};

/// Where it counts how often it was stopped.
pub const COUNTER: GuestAddress = GuestAddress(0x8000);

/// The device.
#[derive(Debug, Default)]
pub struct Late(Option<Activation>);

impl VirtioDevice for Late {
    fn name(&self) -> &str {
        "late"
    }

    fn device_type(&self) -> u32 {
        4
    }

    fn features(&self) -> u64 {
        0
    }

    fn queue_max_sizes(&self) -> &[u16] {
        &[8]
    }

    fn read_config(&self, _offset: u64, _data: &mut [u8]) {}

    fn write_config(&mut self, _offset: u64, _data: &[u8]) {}

    fn start(&mut self, activation: Activation) -> Result<(), StartError> {
        self.0 = Some(activation);
        Ok(())
    }

    fn stop(&mut self) -> Vec<Queue> {
        let Some(activation) = self.0.take() else {
            return Vec::new();
        };
        let memory = &activation.memory;
        let stops: u32 = memory.read_obj(COUNTER).unwrap();
        memory.write_obj(stops + 1, COUNTER).unwrap();
        activation.interrupt.signal_used(0);
        activation
            .queues
            .into_iter()
            .map(|active| active.queue)
            .collect()
    }
}
