use proptest::prelude::*;

use super::*;
use crate::header::Identity;

#[derive(Debug, Default)]
struct Sent(Mutex<Vec<Msi>>);

impl MsiSink for Sent {
    fn send(&self, message: Msi) {
        self.0.lock().unwrap().push(message);
    }
}

impl Sent {
    fn take(&self) -> Vec<u32> {
        let sent = std::mem::take(&mut *self.0.lock().unwrap());
        sent.iter().map(|message| message.data).collect()
    }
}

fn vectors(count: u16) -> (Arc<Sent>, Msix) {
    let sent = Arc::new(Sent::default());
    let msix = Msix::new(count, sent.clone());
    msix.set_bus_master(true);
    for vector in 0..u64::from(msix.vectors()) {
        msix.write_table(vector * 16, &0xfee0_1000_u64.to_le_bytes());
        let data = u32::try_from(vector).unwrap() + 100;
        msix.write_table(vector * 16 + 8, &data.to_le_bytes());
    }
    (sent, msix)
}

fn mask(msix: &Msix, vector: u64, masked: bool) {
    msix.write_table(vector * 16 + 12, &u32::from(masked).to_le_bytes());
}

fn pending(msix: &Msix, offset: u64) -> u64 {
    let mut data = [0; 8];
    msix.read_pending(offset, &mut data);
    u64::from_le_bytes(data)
}

#[test]
fn a_masked_vector_waits_as_a_pending_bit() {
    let (sent, msix) = vectors(70);
    msix.fire(65);
    assert_eq!(pending(&msix, 8), 0, "MSI-X is disabled");
    msix.set_control(control::ENABLE);
    msix.fire(65);
    msix.fire(65);
    msix.fire(70);
    assert_eq!((pending(&msix, 0), pending(&msix, 8)), (0, 2));
    mask(&msix, 65, false);
    assert_eq!((pending(&msix, 8), sent.take()), (0, vec![165]));
    msix.fire(65);
    assert_eq!(sent.take(), [165]);

    msix.set_control(control::ENABLE | control::FUNCTION_MASK);
    mask(&msix, 3, false);
    msix.fire(65);
    msix.fire(3);
    msix.fire(4);
    assert_eq!(sent.take(), []);
    msix.set_control(control::ENABLE);
    assert_eq!(sent.take(), [103, 165]);
    assert_eq!(pending(&msix, 0), 1 << 4);
    msix.reset();
    assert_eq!(pending(&msix, 0), 0);
    msix.fire(65);
    assert_eq!(sent.take(), []);
}

#[test]
fn the_table_takes_aligned_accesses_of_four_and_eight_bytes() {
    let (_, msix) = vectors(2);
    let mut data = [0xff; 8];
    msix.read_table(16, &mut data);
    assert_eq!(u64::from_le_bytes(data), 0xfee0_1000);
    msix.read_table(24, &mut data);
    assert_eq!(u64::from_le_bytes(data), 1 << 32 | 101);
    msix.write_table(24, &7_u64.to_le_bytes());
    msix.read_table(24, &mut data);
    assert_eq!(u64::from_le_bytes(data), 7);
    for (offset, length) in [
        (16, 1),
        (16, 2),
        (18, 4),
        (20, 8),
        (32, 4),
        (u64::MAX - 3, 4),
    ] {
        msix.write_table(offset, &[0xff; 8][..length]);
        let mut data = [0xff; 8];
        msix.read_table(offset, &mut data[..length]);
        assert_eq!(
            data[..length],
            [0; 8][..length],
            "{length} bytes at {offset}"
        );
    }
    msix.read_table(16, &mut data);
    assert_eq!(u64::from_le_bytes(data), 0xfee0_1000);
}

#[test]
fn the_capability_says_where_the_table_is() {
    let (_, msix) = vectors(5);
    let mut space = ConfigurationSpace::new(Identity {
        vendor_id: 1,
        device_id: 1,
        revision_id: 1,
        class: [0xff; 3],
        subsystem_vendor_id: 0,
        subsystem_id: 0,
    });
    let place = MsixPlace {
        bar: 2,
        table_offset: 0x4000,
        pending_offset: 0x5000,
    };
    let control = msix.add_capability(&mut space, place).unwrap();
    space.write(u16::from(control.offset), &[0xff; 10]);
    let mut bytes = [0; 12];
    space.read(0x40, &mut bytes);
    assert_eq!(bytes, [0x11, 0, 4, 0, 2, 0x40, 0, 0, 2, 0x50, 0, 0]);
    msix.set_control(u16::MAX);
    control.show(msix.control(), 0x40, &mut bytes);
    assert_eq!(bytes[2..4], [4, 0xc0]);
    assert_eq!((msix.table_bytes(), msix.pending_bytes()), (80, 8));
    assert_eq!(vectors(0).1.vectors(), 1);
    assert_eq!(vectors(u16::MAX).1.vectors(), 2048);
}

#[derive(Debug, Clone)]
enum Action {
    BusMaster(bool),
    Fire(u16),
    Mask(u16, bool),
    Control(u16),
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        any::<bool>().prop_map(Action::BusMaster),
        (0u16..4).prop_map(Action::Fire),
        (0u16..4, any::<bool>()).prop_map(|(vector, masked)| Action::Mask(vector, masked)),
        (0u16..4).prop_map(|bits| Action::Control(bits << 14)),
    ]
}

proptest! {
    /// No interrupt is lost while MSI-X is enabled: it is sent, or pending and masked or held back.
    #[test]
    fn what_is_fired_is_sent_or_pending(actions in prop::collection::vec(action(), 0..100)) {
        let (sent, msix) = vectors(4);
        let (mut control, mut masked, mut waiting) = (0, [true; 4], [false; 4]);
        let mut master = true;
        for action in actions {
            match action {
                Action::BusMaster(value) => {
                    msix.set_bus_master(value);
                    master = value;
                }
                Action::Fire(vector) => {
                    msix.fire(vector);
                    waiting[usize::from(vector)] = control & control::ENABLE != 0;
                }
                Action::Mask(vector, mask_it) => {
                    mask(&msix, u64::from(vector), mask_it);
                    masked[usize::from(vector)] = mask_it;
                }
                Action::Control(value) => {
                    msix.set_control(value);
                    control = value;
                }
            }
            let mut expected = Vec::new();
            for vector in 0..4 {
                if control & control::ENABLE == 0 {
                    waiting[vector] = false;
                } else if waiting[vector] && !masked[vector] && master && control & control::FUNCTION_MASK == 0 {
                    waiting[vector] = false;
                    expected.push(u32::try_from(vector).unwrap() + 100);
                }
            }
            prop_assert_eq!(sent.take(), expected);
            let bits = waiting.iter().rev().fold(0, |bits, waits| bits << 1 | u64::from(*waits));
            prop_assert_eq!(pending(&msix, 0), bits);
        }
    }
}
