//! A machine in a program of your own: `cargo run -p vmm --example boot -- KERNEL [COMMAND LINE]`.

use std::error::Error;
use std::io::Write;

use vmm::config::{ByteSize, MachineConfig, MemoryConfig};
use vmm::console::Console;
use vmm::{Outcome, Session};

/// Boots `kernel` with its serial port on `output`, and returns how its guest ended.
pub fn boot(
    kernel: &str,
    cmdline: Option<String>,
    output: Box<dyn Write + Send>,
) -> Result<Outcome, Box<dyn Error>> {
    // What the machine is: plain data. Everything has a default but the kernel.
    let config = MachineConfig {
        kernel: Some(kernel.into()),
        cmdline,
        cpus: 2,
        memory: MemoryConfig::with_size(ByteSize(256 << 20)),
        ..MachineConfig::default()
    };
    // Where its serial port goes: no input, and any output that can be written to.
    let console = Console::from_parts(None, output)?;
    // Opens what the configuration names; all problems come at once. Then runs to the end.
    let session = Session::open(config, console)?;
    Ok(session.run()?)
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let kernel = arguments.next().ok_or("which kernel?")?;
    let outcome = boot(&kernel, arguments.next(), Box::new(std::io::stdout()))?;
    println!("the machine ended: {outcome}");
    Ok(())
}
