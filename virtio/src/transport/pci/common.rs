//! The common configuration structure (virtio 1.3, 4.1.4.3): the registers that all devices have.

use super::PciTransport;
use crate::queue::QueueState;
use crate::transport::core::{set_high, set_low};

/// Makes the enumeration of the fields and the functions that find one.
macro_rules! fields {
    ($($(#[$attribute:meta])* $offset:literal $bytes:literal $name:ident,)*) => {
        /// A field, named as the specification names it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        enum Field {
            $($(#[$attribute])* $name,)*
        }

        impl Field {
            /// The field that an access of `bytes` bytes at `offset` is about. Fields take accesses of
            /// their own width, 64-bit fields those of their halves as well (4.1.3.1).
            fn at(offset: u64, bytes: usize) -> Option<Self> {
                match (offset, bytes) {
                    $(($offset, $bytes) => Some(Self::$name),)*
                    _ => None,
                }
            }
        }
    };
}

fields! {
    /// RW. Which 32 features the next field shows.
    0x00 4 DeviceFeatureSelect,
    /// R.
    0x04 4 DeviceFeature,
    /// RW. Which 32 features the next field takes.
    0x08 4 DriverFeatureSelect,
    /// RW.
    0x0c 4 DriverFeature,
    /// RW. Vector of changes of the configuration.
    0x10 2 ConfigMsixVector,
    /// R.
    0x12 2 NumQueues,
    /// RW. 0 resets.
    0x14 1 DeviceStatus,
    /// R. Another value when the configuration space has changed.
    0x15 1 ConfigGeneration,
    /// RW. The queue that the following fields are about.
    0x16 2 QueueSelect,
    /// RW. At first the largest; 0 for a queue that is not there.
    0x18 2 QueueSize,
    /// RW.
    0x1a 2 QueueMsixVector,
    /// RW. 1: the queue may be used.
    0x1c 2 QueueEnable,
    /// R. The queue's doorbell, in units of the multiplier.
    0x1e 2 QueueNotifyOff,
    /// RW. Descriptor table, or packed ring.
    0x20 4 QueueDescLow,
    0x24 4 QueueDescHigh,
    0x20 8 QueueDesc,
    /// RW. Available ring, or the driver's event suppression.
    0x28 4 QueueDriverLow,
    0x2c 4 QueueDriverHigh,
    0x28 8 QueueDriver,
    /// RW. Used ring, or the device's event suppression.
    0x30 4 QueueDeviceLow,
    0x34 4 QueueDeviceHigh,
    0x30 8 QueueDevice,
    /// R. What to write to the doorbell, where that is negotiated; it is not offered.
    0x38 2 QueueNotifyConfigData,
    /// RW. 1 resets the queue; reads as 0 when that is done.
    0x3a 2 QueueReset,
}

/// Bytes of the structure: up to the fields of the administration queues, which are not offered.
pub(super) const LENGTH: u32 = 0x3c;

impl PciTransport {
    /// Answers a read. What is no field reads as zeros.
    pub(super) fn read_common(&self, offset: u64, data: &mut [u8]) {
        let value = Field::at(offset, data.len()).map_or(0, |field| self.read_field(field));
        let bytes = value.to_le_bytes();
        data.iter_mut()
            .zip(bytes)
            .for_each(|(place, byte)| *place = byte);
    }

    fn read_field(&self, field: Field) -> u64 {
        let core = &self.core;
        let queue = core.selected_queue();
        let address = |choose: fn(&QueueState) -> u64| queue.map_or(0, choose);
        let descriptors = address(|queue| queue.descriptor_area);
        let driver = address(|queue| queue.driver_area);
        let device = address(|queue| queue.device_area);
        match field {
            Field::DeviceFeatureSelect => u64::from(core.device_features_select),
            Field::DeviceFeature => u64::from(core.device_features()),
            Field::DriverFeatureSelect => u64::from(core.driver_features_select),
            Field::DriverFeature => u64::from(core.driver_features()),
            Field::ConfigMsixVector => u64::from(self.interrupt().configuration_vector()),
            Field::NumQueues => u64::try_from(core.queue_count()).unwrap_or(0),
            Field::DeviceStatus => u64::from(core.status()),
            Field::ConfigGeneration => u64::from(core.config_generation() & 0xff),
            Field::QueueSelect => u64::from(core.queue_select),
            Field::QueueSize => queue.map_or(0, |queue| u64::from(queue.size)),
            Field::QueueMsixVector => u64::from(self.interrupt().queue_vector(core.queue_select)),
            Field::QueueEnable => queue.map_or(0, |queue| u64::from(queue.ready)),
            Field::QueueNotifyOff => queue.map_or(0, |_| u64::from(core.queue_select)),
            Field::QueueDescLow => descriptors & 0xffff_ffff,
            Field::QueueDescHigh => descriptors >> 32,
            Field::QueueDesc => descriptors,
            Field::QueueDriverLow => driver & 0xffff_ffff,
            Field::QueueDriverHigh => driver >> 32,
            Field::QueueDriver => driver,
            Field::QueueDeviceLow => device & 0xffff_ffff,
            Field::QueueDeviceHigh => device >> 32,
            Field::QueueDevice => device,
            // A reset is done before the write that asks for it returns.
            Field::QueueNotifyConfigData | Field::QueueReset => 0,
        }
    }

    /// Takes a write. What is no field, or cannot be written, stays as it is.
    pub(super) fn write_common(&mut self, offset: u64, data: &[u8]) {
        let Some(field) = Field::at(offset, data.len()) else {
            return;
        };
        let mut wide = [0; 8];
        wide.iter_mut()
            .zip(data)
            .for_each(|(place, byte)| *place = *byte);
        let value = u64::from_le_bytes(wide);
        let word = u16::try_from(value & 0xffff).unwrap_or(0);
        let half = u32::try_from(value & 0xffff_ffff).unwrap_or(0);
        let core = &mut self.core;
        match field {
            Field::DeviceFeatureSelect => core.device_features_select = half,
            Field::DriverFeatureSelect => core.driver_features_select = half,
            Field::DriverFeature => core.write_driver_features(half),
            Field::DeviceStatus => core.write_status(half),
            Field::QueueSelect => core.queue_select = half,
            Field::QueueSize => core.configure_queue(|queue| queue.size = word),
            // There is no way back but a reset (4.1.4.3.2).
            Field::QueueEnable if word == 1 => core.set_queue_ready(true),
            Field::QueueReset if word == 1 => core.reset_queue(),
            Field::ConfigMsixVector => self.interrupt().set_configuration_vector(word),
            Field::QueueMsixVector => {
                self.interrupt()
                    .set_queue_vector(self.core.queue_select, word);
            }
            Field::QueueDescLow => {
                core.configure_queue(|queue| set_low(&mut queue.descriptor_area, half))
            }
            Field::QueueDescHigh => {
                core.configure_queue(|queue| set_high(&mut queue.descriptor_area, half));
            }
            Field::QueueDesc => core.configure_queue(|queue| queue.descriptor_area = value),
            Field::QueueDriverLow => {
                core.configure_queue(|queue| set_low(&mut queue.driver_area, half));
            }
            Field::QueueDriverHigh => {
                core.configure_queue(|queue| set_high(&mut queue.driver_area, half));
            }
            Field::QueueDriver => core.configure_queue(|queue| queue.driver_area = value),
            Field::QueueDeviceLow => {
                core.configure_queue(|queue| set_low(&mut queue.device_area, half));
            }
            Field::QueueDeviceHigh => {
                core.configure_queue(|queue| set_high(&mut queue.device_area, half));
            }
            Field::QueueDevice => core.configure_queue(|queue| queue.device_area = value),
            Field::QueueEnable
            | Field::QueueReset
            | Field::DeviceFeature
            | Field::NumQueues
            | Field::ConfigGeneration
            | Field::QueueNotifyOff
            | Field::QueueNotifyConfigData => {}
        }
    }
}
