use proptest::prelude::*;

use super::*;
use crate::test_line::TestLine;

struct Machine {
    line: Arc<TestLine>,
    data: I8042Data,
    command: I8042Command,
    port_a: SystemControlA,
}

impl Machine {
    fn new() -> Self {
        let line = Arc::new(TestLine::default());
        let controller = I8042::new(line.clone());
        Self {
            line,
            data: controller.data(),
            command: controller.command(),
            port_a: controller.system_control_a(),
        }
    }

    fn read(&mut self, port: u16) -> u8 {
        let mut data = [0xff];
        match port {
            0x60 => self.data.read(0, &mut data),
            0x64 => self.command.read(0, &mut data),
            _ => self.port_a.read(0, &mut data),
        }
        data[0]
    }

    fn write(&mut self, port: u16, value: u8) -> Effect {
        match port {
            0x60 => self.data.write(0, &[value]),
            0x64 => self.command.write(0, &[value]),
            _ => self.port_a.write(0, &[value]),
        }
    }

    /// A command as a driver sends it: parameters in, then the answer, which has to be there.
    fn ask(&mut self, command: u8, parameters: &[u8]) -> u8 {
        assert_eq!(self.write(0x64, command), Effect::None);
        for parameter in parameters {
            assert_eq!(self.write(0x60, *parameter), Effect::None);
        }
        assert_eq!(self.read(0x64) & 0b10_0011, STATUS_OUTPUT_FULL);
        let answer = self.read(0x60);
        assert_eq!(self.read(0x64) & STATUS_OUTPUT_FULL, 0);
        answer
    }
}

#[test]
fn a_probe_finds_a_controller_without_devices() {
    let mut machine = Machine::new();
    assert_eq!(machine.read(0x64), 0x1c, "nothing to flush");
    let byte = machine.ask(0x20, &[]);
    assert_eq!(byte, COMMAND_BYTE_RESET);
    assert_eq!(machine.ask(0xaa, &[]), 0x55);
    assert_eq!(machine.ask(0xab, &[]), 0);
    assert_eq!(
        machine.ask(0xd3, &[0x5a]),
        0x5a,
        "but not marked as the mouse's"
    );
    assert_eq!(machine.ask(0xa9, &[]), 1);
    assert_eq!(machine.write(0x64, 0x60), Effect::None);
    assert_eq!(machine.write(0x60, 0x45), Effect::None);
    assert_eq!(machine.ask(0x20, &[]), 0x45);
    assert_eq!(machine.ask(0xd2, &[0x99]), 0x99);
    assert_eq!(machine.ask(0xc0, &[]), 0x80);
}

#[test]
fn a_keyboard_that_is_not_there_times_out() {
    let mut machine = Machine::new();
    assert_eq!(machine.write(0x64, 0x60), Effect::None);
    assert_eq!(machine.write(0x60, 0x01), Effect::None);
    assert_eq!(machine.write(0x60, 0xf2), Effect::None);
    assert!(machine.line.is_asserted());
    assert_eq!(machine.read(0x64) & 0x41, 0x41);
    assert_eq!(machine.read(0x60), 0xfe);
    assert!(!machine.line.is_asserted());
    assert_eq!(machine.write(0x60, 0xff), Effect::None);
    assert_eq!(machine.write(0x60, 0xff), Effect::None);
    assert_eq!(machine.line.rising_edges(), 3);
    assert_eq!(machine.write(0x64, 0x60), Effect::None);
    assert_eq!(machine.write(0x60, 0x00), Effect::None);
    assert!(!machine.line.is_asserted(), "interrupts are off");
}

#[test]
fn resets_in_four_ways() {
    let mut machine = Machine::new();
    assert_eq!(machine.write(0x64, 0xfe), Effect::Reset);
    assert_eq!(machine.write(0x64, 0xff), Effect::None);
    assert_eq!(machine.write(0x64, 0xf0), Effect::Reset);
    assert_eq!(machine.write(0x64, 0xd1), Effect::None);
    assert_eq!(machine.write(0x60, 0xfe), Effect::Reset);
    assert_eq!(machine.write(0x92, 0x01), Effect::Reset);
    assert_eq!(machine.write(0x92, 0x03), Effect::None, "only the edge");
    assert_eq!(machine.read(0x92), 0x03);
}

#[test]
fn the_a20_gate_is_one() {
    let mut machine = Machine::new();
    assert_eq!(machine.read(0x92), 2);
    assert_eq!(machine.ask(0xd0, &[]) & 3, 3);
    assert_eq!(machine.write(0x64, 0xdd), Effect::None);
    assert_eq!(machine.read(0x92), 0);
    assert_eq!(machine.write(0x92, 2), Effect::None);
    assert_eq!(machine.ask(0xd0, &[]) & 2, 2);
    assert_eq!(machine.write(0x64, 0xd1), Effect::None);
    assert_eq!(machine.write(0x60, 0xdd), Effect::None);
    assert_eq!(machine.ask(0xd0, &[]) & 2, 0);
    assert_eq!(machine.write(0x64, 0xdf), Effect::None);
    assert_eq!(machine.ask(0xd0, &[]) & 2, 2);
}

proptest! {
    /// Any accesses: the interrupt is up exactly when there is a byte and the guest wants to hear of it.
    #[test]
    fn holds_its_invariants(accesses in prop::collection::vec((prop::sample::select(vec![0x60, 0x64, 0x92]), prop::option::of(any::<u8>())), 0..200)) {
        let mut machine = Machine::new();
        for (port, value) in accesses {
            match value {
                Some(value) => {
                    let effect = machine.write(port, value);
                    prop_assert!(matches!(effect, Effect::None | Effect::Reset));
                }
                None => { machine.read(port); }
            }
            let is_full = machine.read(0x64) & STATUS_OUTPUT_FULL != 0;
            let is_enabled = lock(&machine.data.controller).command_byte() & 1 != 0;
            prop_assert_eq!(machine.line.is_asserted(), is_full && is_enabled);
        }
    }
}
