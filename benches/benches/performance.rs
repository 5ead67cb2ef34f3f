//! `cargo bench -p cuddy-benches`: all measurements, see the library.

use clap::Parser;
use cuddy_benches::{Arguments, Failure, OwnPrograms};

fn main() -> Result<(), Failure> {
    let own = OwnPrograms {
        bare: env!("CARGO_BIN_EXE_bare").into(),
        until_line: env!("CARGO_BIN_EXE_until-line").into(),
    };
    cuddy_benches::run(&Arguments::parse(), &own)
}
