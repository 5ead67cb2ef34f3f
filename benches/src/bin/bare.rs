//! `bare GUEST`: runs a bare guest with the ioctls that cannot be left out and nothing else. What the
//! guest writes to COM1 goes to standard output; a write to the keyboard controller ends the process.

use std::io::{self, Write};

use cuddy_benches::bare_machine::BareMachine;
use kvm_ioctls::VcpuExit;

/// As much as the other programs are given.
const MEMORY_BYTES: usize = 128 << 20;

fn main() -> io::Result<()> {
    let path = std::env::args_os()
        .nth(1)
        .ok_or_else(|| io::Error::other("which guest?"))?;
    let guest = std::fs::read(path)?;
    let mut machine = BareMachine::new(&guest, "", MEMORY_BYTES)?;
    loop {
        match machine.vcpu.run()? {
            VcpuExit::IoOut(0x80, _) => {}
            VcpuExit::IoOut(0x3f8, bytes) => io::stdout()
                .write_all(bytes)
                .and_then(|()| io::stdout().flush())?,
            VcpuExit::IoOut(0x64, _) => return Ok(()),
            exit => return Err(io::Error::other(format!("unexpected exit: {exit:?}"))),
        }
    }
}
