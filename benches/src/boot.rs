//! A stock Debian kernel to its init: as ELF, as bzImage unpacked by the host, as bzImage unpacked by
//! the guest. Where the host's KVM cannot run it, in the lab, with a fresh one for each measurement: a
//! lab in which a machine ran before is slower.

use std::process::Command;

use cuddy_lab::{Assets, Job, Lab, MachineOptions, Place, run_in_lab};

use crate::Failure;
use crate::programs::Programs;
use crate::report::Comparison;
use crate::statistics::Samples;

/// Target: bzImage to ELF.
const BZIMAGE_TO_ELF: f64 = 1.1;
/// The init runs this and so writes the guest's name.
const COMMAND_LINE: &str = "console=ttyS0 quiet CUDDY_COMMAND=hostname";
const LINE: &str = "cuddy-guest";
/// Where `until-line` is in the lab.
const UNTIL_LINE: &str = "/lab/until-line";

const ELF: &str = "ELF";
const UNPACKED_BY_HOST: &str = "bzImage, unpack=auto";
const UNPACKED_BY_GUEST: &str = "bzImage, unpack=guest";

pub(crate) fn measure(programs: &Programs, rounds: usize) -> Result<(), Failure> {
    let place = Place::detect()?;
    // SAFETY: this process has one thread; the lab looks up which program is to be run.
    unsafe { std::env::set_var("CUDDY_BIN", &programs.cuddy) };
    let mut rows =
        [ELF, UNPACKED_BY_HOST, UNPACKED_BY_GUEST].map(|name| (name, Samples::default()));
    let runner = match place {
        Place::Host => Runner::Host(Assets::prepare(&programs.cache)?),
        Place::Lab => Runner::Lab(Lab::prepare(&programs.cache, &programs.cuddy, &[])?),
    };
    for _ in 0..rounds {
        for (name, samples) in &mut rows {
            samples.push(runner.milliseconds(programs, name)?);
        }
    }
    let comparison = Comparison {
        title: match place {
            Place::Host => "exec to the init of a stock kernel",
            Place::Lab => "exec to the init of a stock kernel, in the lab",
        },
        unit: "ms",
        rows: rows.to_vec(),
    };
    comparison.print();
    comparison.judge_ratio(UNPACKED_BY_HOST, ELF, BZIMAGE_TO_ELF);
    Ok(())
}

/// Where machines run.
#[derive(Debug)]
enum Runner {
    Host(Assets),
    Lab(Lab),
}

impl Runner {
    fn milliseconds(&self, programs: &Programs, name: &str) -> Result<f64, Failure> {
        let output = match self {
            Self::Host(assets) => {
                let machine = machine(assets, name).command();
                let mut command = Command::new(&programs.until_line);
                command
                    .arg(LINE)
                    .arg(machine.get_program())
                    .args(machine.get_args());
                String::from_utf8_lossy(&command.output()?.stdout).into_owned()
            }
            Self::Lab(lab) => {
                let machine = machine(&Lab::assets_inside(), name).command();
                let words = [
                    UNTIL_LINE.into(),
                    LINE.into(),
                    machine.get_program().to_owned(),
                ];
                let words = words.into_iter().chain(machine.get_args().map(Into::into));
                let quoted: Vec<_> = words.map(|word| quote(&word.to_string_lossy())).collect();
                let job = Job {
                    programs: vec![(programs.until_line.clone(), UNTIL_LINE.to_owned())],
                    script: format!("exec {}\n", quoted.join(" ")),
                    processors: 1,
                };
                let mut output = Vec::new();
                run_in_lab(lab, &job, &mut output)?;
                String::from_utf8_lossy(&output).into_owned()
            }
        };
        let number = output.lines().find_map(|line| line.trim().parse().ok());
        number.ok_or_else(|| format!("{name}: the guest's init was not reached: {output}").into())
    }
}

fn machine(assets: &Assets, name: &str) -> MachineOptions {
    let kernel = if name == ELF {
        &assets.vmlinux
    } else {
        &assets.vmlinuz
    };
    let mut options = MachineOptions::new(&assets.cuddy, kernel, &assets.initrd);
    COMMAND_LINE.clone_into(&mut options.cmdline);
    if name == UNPACKED_BY_GUEST {
        options.more = vec!["--unpack", "guest"];
    }
    options
}

/// A word of a shell's script.
fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}
