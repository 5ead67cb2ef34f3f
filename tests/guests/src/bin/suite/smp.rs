//! The other processors: started, counted, interrupted.

use core::hint::black_box;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use runtime::acpi::InterruptStructure;
use runtime::interrupts::{self, EOI_LAPIC, count};
use runtime::report::Test;
use runtime::time::{MILLISECONDS, SECONDS, cycles, wait_until};
use runtime::{Machine, lapic, println, privileged, smp};

pub const TESTS: &[(&str, Test)] = &[("smp", start_all), ("smp-ipi", ipi), ("smp-exits", exits)];

const IPI_VECTOR: u8 = 0x70;

static STARTED: AtomicU64 = AtomicU64::new(0);
static IDENTIFIERS: [AtomicBool; 256] = [const { AtomicBool::new(false) }; 256];
static WORK_DONE: AtomicU64 = AtomicU64::new(0);
static WRONG: AtomicU64 = AtomicU64::new(0);
static RELEASED: AtomicBool = AtomicBool::new(false);
static EXITS: AtomicU64 = AtomicU64::new(0);

/// Runs on each further processor, at ring 3.
extern "C" fn processor_main(identifier: u64) -> ! {
    lapic::enable();
    if u64::from(lapic::identifier()) != identifier
        || u64::from(privileged::cpuid(1, 0)[1] >> 24) != identifier
        || u64::from(privileged::cpuid(0xb, 0)[3]) != identifier
    {
        WRONG.fetch_add(1, Ordering::SeqCst);
    }
    IDENTIFIERS[identifier as usize & 0xff].store(true, Ordering::SeqCst);
    // Floating point: state of one processor does not leak into another.
    let mut sum = 0.0f64;
    for index in 0..100_000u32 {
        sum = black_box(sum + f64::from(index) * identifier as f64);
    }
    if sum != 4_999_950_000.0 * identifier as f64 {
        WRONG.fetch_add(1, Ordering::SeqCst);
    }
    STARTED.fetch_add(1, Ordering::SeqCst);
    for _ in 0..10_000 {
        WORK_DONE.fetch_add(1, Ordering::SeqCst);
    }
    while EXITS.load(Ordering::Acquire) > 0 {
        EXITS.fetch_sub(1, Ordering::SeqCst);
        runtime::port::write_u8(0x80, identifier as u8);
    }
    // Asleep until interrupted, for ever.
    loop {
        privileged::halt();
        RELEASED.store(true, Ordering::Release);
    }
}

/// Starts all processors of the MADT but this one; how many.
fn start_others(machine: &Machine) -> u64 {
    lapic::enable();
    interrupts::acknowledge(IPI_VECTOR, EOI_LAPIC);
    smp::prepare(processor_main);
    // An earlier test's processors are reset and started again.
    STARTED.store(0, Ordering::SeqCst);
    WORK_DONE.store(0, Ordering::SeqCst);
    for identifier in &IDENTIFIERS {
        identifier.store(false, Ordering::SeqCst);
    }
    let mut others = 0;
    let begin = cycles();
    for structure in machine.acpi().interrupt_structures() {
        let InterruptStructure::LocalApic { apic_id, enabled } = structure else {
            continue;
        };
        if !enabled || apic_id == lapic::identifier() {
            continue;
        }
        smp::start(apic_id);
        others += 1;
        let mut second = false;
        assert!(
            wait_until(20 * SECONDS, || {
                if !second && cycles().wrapping_sub(begin) > SECONDS {
                    smp::start_again(apic_id);
                    second = true;
                }
                IDENTIFIERS[usize::from(apic_id)].load(Ordering::SeqCst)
            }),
            "processor {apic_id} does not start"
        );
    }
    assert_eq!(others + 1, machine.number("cpus", 1), "processors");
    assert!(
        wait_until(20 * SECONDS, || STARTED.load(Ordering::SeqCst) == others),
        "{} of {others} processors got through",
        STARTED.load(Ordering::SeqCst)
    );
    assert_eq!(WRONG.load(Ordering::SeqCst), 0, "wrong identifiers or sums");
    others
}

/// Every processor of the MADT runs Rust code of ours.
fn start_all(machine: &Machine) {
    let others = start_others(machine);
    assert!(
        wait_until(20 * SECONDS, || WORK_DONE.load(Ordering::SeqCst)
            == others * 10_000),
        "{} units of work",
        WORK_DONE.load(Ordering::SeqCst)
    );
    println!("{} processors", others + 1);
}

/// Interrupts to one processor, and to all others at once, wake them.
fn ipi(machine: &Machine) {
    let others = start_others(machine);
    assert!(others > 0, "one processor only");
    let mut expected = count(IPI_VECTOR);
    for identifier in 0..=254u8 {
        if !IDENTIFIERS[usize::from(identifier)].load(Ordering::SeqCst) {
            continue;
        }
        for _ in 0..10 {
            RELEASED.store(false, Ordering::Release);
            lapic::send(identifier, 0x4000 | u32::from(IPI_VECTOR));
            expected += 1;
            assert!(
                wait_until(10 * SECONDS, || count(IPI_VECTOR) == expected
                    && RELEASED.load(Ordering::Acquire)),
                "processor {identifier}: {} interrupts of {expected}",
                count(IPI_VECTOR)
            );
        }
    }
    for _ in 0..10 {
        lapic::send(0, 0xc_4000 | u32::from(IPI_VECTOR));
        expected += others;
        assert!(
            wait_until(10 * SECONDS, || count(IPI_VECTOR) == expected),
            "{} interrupts of {expected} after a broadcast",
            count(IPI_VECTOR)
        );
        runtime::time::spin(MILLISECONDS);
    }
}

/// All processors leave the guest at the same time, again and again: `count` exits together.
fn exits(machine: &Machine) {
    EXITS.store(machine.number("count", 2000), Ordering::SeqCst);
    start_others(machine);
    assert!(
        wait_until(20 * SECONDS, || EXITS.load(Ordering::SeqCst) as i64 <= 0),
        "{} exits left",
        EXITS.load(Ordering::SeqCst)
    );
}
