//! How a guest says what it found: lines `PASS name` and `FAIL name: why` on the console, then `DONE`.

use core::panic::PanicInfo;
use core::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

use crate::{Machine, console, println, privileged, stop};

/// A test: panics when the machine does not do what it should.
pub type Test = fn(&Machine);

/// The name of the running test, for the panic handler.
static NAME: AtomicPtr<u8> = AtomicPtr::new(core::ptr::null_mut());
static NAME_LENGTH: AtomicUsize = AtomicUsize::new(0);

/// Runs the tests that the command line's `test=` names, in its order.
///
/// # Panics
///
/// When a name is unknown or a test fails; the machine is then turned off by the panic handler.
pub fn run(machine: &Machine, tests: &[&[(&str, Test)]]) {
    let names = machine.option("test").unwrap_or("");
    for name in names.split(',').filter(|name| !name.is_empty()) {
        let Some((name, test)) = tests
            .iter()
            .copied()
            .flatten()
            .find(|(known, _)| *known == name)
        else {
            panic!("unknown test {name}");
        };
        NAME.store(name.as_ptr().cast_mut(), Ordering::Release);
        NAME_LENGTH.store(name.len(), Ordering::Release);
        test(machine);
        NAME_LENGTH.store(0, Ordering::Release);
        println!("PASS {name}");
    }
    println!("DONE");
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    privileged::interrupts_off();
    console::initialise();
    let (name, length) = (
        NAME.load(Ordering::Acquire),
        NAME_LENGTH.load(Ordering::Acquire),
    );
    let name = if name.is_null() || length == 0 {
        "guest"
    } else {
        // SAFETY: both were stored from one string that lives as long as the program.
        unsafe { core::str::from_utf8_unchecked(core::slice::from_raw_parts(name, length)) }
    };
    match info.location() {
        Some(place) => println!(
            "\nFAIL {name}: {} ({}:{})",
            info.message(),
            place.file(),
            place.line()
        ),
        None => println!("\nFAIL {name}: {}", info.message()),
    }
    stop::power_off()
}
