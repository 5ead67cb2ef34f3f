//! Interrupt controllers and timers, those of the kernel and ours.

use cuddy_tests::MachineBuilder;

/// Runs each test in a machine of its own, since they program the same chips.
fn each(irqchip: &str, names: &[&str]) {
    for name in names {
        MachineBuilder::suite(name)
            .argument("--irqchip", irqchip)
            .pass();
    }
}

#[test]
fn split_pic() {
    each("split", &["pic", "pic-registers", "pic-secondary"]);
}

#[test]
fn split_pit() {
    each("split", &["pit", "pit-one-shot"]);
}

#[test]
fn split_ioapic() {
    each("split", &["ioapic", "ioapic-registers", "ioapic-level"]);
}

#[test]
fn split_local_apic() {
    each("split", &["lapic", "halt"]);
}

#[test]
fn kernel_pic() {
    each("kernel", &["pic", "pic-registers", "pic-secondary"]);
}

#[test]
fn kernel_pit() {
    each("kernel", &["pit", "pit-one-shot"]);
}

#[test]
fn kernel_ioapic() {
    each("kernel", &["ioapic", "ioapic-registers", "ioapic-level"]);
}

#[test]
fn kernel_local_apic() {
    each("kernel", &["lapic", "halt"]);
}

#[test]
fn one_machine_takes_all_in_turn() {
    each(
        "split",
        &["pic-registers,pic,pit,pit-one-shot,ioapic,ioapic-level,lapic,halt,rtc"],
    );
}
