use super::*;

/// Remembers the last write and reads back its offset.
#[derive(Debug, Default)]
struct Probe {
    written: Option<(u64, Vec<u8>)>,
}

impl MmioDevice for Probe {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        if let Some(first) = data.first_mut() {
            *first = u8::try_from(offset).unwrap();
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Effect {
        self.written = Some((offset, data.to_vec()));
        Effect::Reset
    }
}

impl PioDevice for Probe {
    fn read(&mut self, offset: u16, data: &mut [u8]) {
        MmioDevice::read(self, u64::from(offset), data);
    }

    fn write(&mut self, offset: u16, data: &[u8]) -> Effect {
        MmioDevice::write(self, u64::from(offset), data)
    }
}

#[test]
fn an_access_reaches_its_device_with_the_offset() {
    let probe = Arc::new(Mutex::new(Probe::default()));
    let mut bus = MmioBus::default();
    bus.insert(0x1000, 0x100, probe.clone()).unwrap();
    assert_eq!(bus.write(0x1010, &[1, 2]), Effect::Reset);
    assert_eq!(probe.lock().unwrap().written, Some((0x10, vec![1, 2])));
    let mut data = [0; 2];
    bus.read(0x1020, &mut data);
    assert_eq!(data, [0x20, 0xff]);
}

#[test]
fn a_window_is_called_without_a_lock_of_the_bus() {
    /// Reads another window through the bus while it answers.
    #[derive(Debug)]
    struct Window(Option<MmioBus>);

    impl MmioWindow for Window {
        fn read(&self, offset: u64, data: &mut [u8]) {
            match &self.0 {
                Some(bus) => bus.read(offset, data),
                None => data.fill(u8::try_from(offset).unwrap()),
            }
        }

        fn write(&self, _offset: u64, _data: &[u8]) -> Effect {
            Effect::Crash
        }
    }

    let mut inner = MmioBus::default();
    inner
        .insert_window(0x40, 0x40, Arc::new(Window(None)))
        .unwrap();
    let mut bus = MmioBus::default();
    bus.insert_window(0x1000, 0x100, Arc::new(Window(Some(inner))))
        .unwrap();
    let mut data = [0; 2];
    bus.read(0x1042, &mut data);
    assert_eq!(data, [2, 2]);
    assert_eq!(bus.write(0x1000, &[0]), Effect::Crash);
    let probe = Arc::new(Mutex::new(Probe::default()));
    assert!(bus.insert(0x10ff, 1, probe).is_err());
}

#[test]
fn nobody_answers_with_ones() {
    let mut bus = PioBus::default();
    bus.insert(0x60, 1, Arc::new(Mutex::new(Probe::default())))
        .unwrap();
    let mut data = [0; 4];
    bus.read(0x100, &mut data);
    assert_eq!(data, [0xff; 4]);
    bus.read(0x60, &mut data);
    assert_eq!(
        data, [0xff; 4],
        "an access wider than the range is nobody's"
    );
    assert_eq!(bus.write(0x61, &[0]), Effect::None);
}

#[test]
fn ports_end_at_16_bits() {
    let mut bus = PioBus::default();
    let probe = || Arc::new(Mutex::new(Probe::default()));
    assert!(bus.insert(0xffff, 2, probe()).is_err());
    bus.insert(0xffff, 1, probe()).unwrap();
    assert!(bus.insert(0xffff, 1, probe()).is_err());
}
