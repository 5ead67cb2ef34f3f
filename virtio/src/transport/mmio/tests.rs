use super::*;
use crate::devices::rng::Rng;
use crate::queue::Queue;
use crate::testing::{self, Driver};
use crate::transport::core::host;
use crate::transport::status;
use crate::{Activation, Interrupt as _, StartError};
use proptest::prelude::*;

#[test]
fn each_register_is_found_by_its_offset_alone() {
    let mut found = 0;
    for offset in 0..0x200 {
        if let Some(register) = Register::at(offset) {
            assert_eq!(register.offset(), offset);
            assert_eq!(offset % 4, 0);
            found += 1;
        }
    }
    assert_eq!(found, 28);
    assert_eq!(Register::QueueNotify.offset(), QUEUE_NOTIFY_OFFSET);
}

#[test]
fn a_device_that_the_host_does_not_start_says_so() {
    #[derive(Debug)]
    struct Unstartable;
    impl VirtioDevice for Unstartable {
        fn name(&self) -> &str {
            "unstartable"
        }
        fn device_type(&self) -> u32 {
            1
        }
        fn features(&self) -> u64 {
            0
        }
        fn queue_max_sizes(&self) -> &[u16] {
            &[8]
        }
        fn read_config(&self, _offset: u64, _data: &mut [u8]) {}
        fn write_config(&mut self, _offset: u64, _data: &[u8]) {}
        fn start(&mut self, _activation: Activation) -> Result<(), StartError> {
            Err(host("do anything", std::io::Error::other("no")))
        }
        fn stop(&mut self) -> Vec<Queue> {
            Vec::new()
        }
    }
    let mut driver = Driver::new(Box::new(Unstartable));
    driver.start(0, 8);
    assert_ne!(driver.status() & testing::status::NEEDS_RESET, 0);
    assert_eq!(driver.wait_interrupt(), 2);
    assert!(driver.doorbells.registered.lock().unwrap().is_empty());
}

#[test]
fn a_configuration_change_moves_the_generation_on() {
    let mut driver = Driver::new(Box::new(Rng::new()));
    let before = driver.read(testing::register::CONFIG_GENERATION);
    driver.transport.mmio().core.link.signal_config_change();
    assert_ne!(driver.read(testing::register::CONFIG_GENERATION), before);
    assert_eq!(driver.wait_interrupt(), 2);
    assert_eq!(driver.read(testing::register::INTERRUPT_STATUS), 0);
    assert_eq!(driver.config(0, 8), [0; 8]);
}

/// Registers that matter more than their share of the offsets.
fn offset() -> impl Strategy<Value = u64> {
    prop_oneof![
        8 => (0_u64..0x40).prop_map(|index| index * 4),
        1 => 0_u64..0x200,
        2 => Just(0x70),
    ]
}

fn value() -> impl Strategy<Value = u32> {
    prop_oneof![
        Just(0),
        Just(1),
        Just(3),
        Just(0xb),
        Just(0xf),
        0_u32..0x20,
        (0_u32..0x20).prop_map(|page| page * 0x1000),
        any::<u32>(),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_order_of_accesses_confuses_the_transport(
        accesses in prop::collection::vec((any::<bool>(), offset(), value()), 0..200)
    ) {
        let mut driver = Driver::new(Box::new(Rng::new()));
        for (is_write, offset, value) in accesses {
            if is_write {
                driver.write(offset, value);
            } else {
                driver.read(offset);
            }
            let status = driver.status();
            prop_assert!(status & status::FEATURES_OK == 0 || status & status::DRIVER != 0);
            prop_assert!(status & status::DRIVER_OK == 0 || status & status::FEATURES_OK != 0);
            prop_assert!(!driver.transport.mmio().core.has_doorbells() || status & status::DRIVER_OK != 0);
        }
        driver.reset();
        driver.start(0, 8);
        prop_assert_eq!(driver.status(), 0xf);
    }
}
