//! Boots a kernel with its serial port on the terminal: `cargo run --example boot -- KERNEL [INITRD]`.

use vmm::config::{MachineConfig, SerialConfig};
use vmm::console::Console;
use vmm::{Outcome, Session};

fn main() -> Result<(), vmm::VmmError> {
    let mut arguments = std::env::args().skip(1);
    let config = MachineConfig {
        kernel: arguments.next().map(Into::into),
        initrd: arguments
            .next()
            .filter(|path| !path.is_empty())
            .map(Into::into),
        cmdline: arguments.next(),
        ..MachineConfig::default()
    };
    let console = Console::open(&SerialConfig::Stdio).expect("a terminal");
    let outcome: Outcome = Session::open(config, console)?.run()?;
    println!("the machine ended: {outcome:?}");
    Ok(())
}
