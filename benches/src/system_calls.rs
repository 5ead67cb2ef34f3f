//! System calls until the guest's first byte is written, counted by strace.

use std::fs;
use std::process::Command;

use crate::Failure;
use crate::contenders::Contender;
use crate::programs::Programs;

pub(crate) fn measure(programs: &Programs) -> Result<(), Failure> {
    println!("\nsystem calls until the guest's first byte, all threads\n");
    if Command::new("strace").arg("--version").output().is_err() {
        println!("strace is not installed");
        return Ok(());
    }
    println!("| | |\n|---|---|");
    let folder = tempfile::tempdir()?;
    let log = folder.path().join("log");
    for contender in Contender::ALL
        .into_iter()
        .filter(|contender| contender.ends())
    {
        let Ok(traced) = contender.command(programs, &programs.first, "") else {
            continue;
        };
        let mut command = Command::new("strace");
        command
            .args(["-f", "-qq", "-e", "signal=none", "-o"])
            .arg(&log);
        command.arg(traced.get_program()).args(traced.get_args());
        for (name, value) in traced.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command.stdin(std::process::Stdio::null()).output()?;
        let count = count(&fs::read_to_string(&log)?)
            .map_or_else(|| "no byte".to_owned(), |count| count.to_string());
        println!("| {} | {count} |", contender.name());
    }
    Ok(())
}

/// Calls in a log of strace before the one that writes `!`.
fn count(log: &str) -> Option<usize> {
    let calls = log.lines().filter(|line| !line.contains(" resumed>"));
    let is_byte = |line: &str| line.contains(" write") && line.contains("\"!\"");
    calls
        .enumerate()
        .find(|(_, line)| is_byte(line))
        .map(|(index, _)| index)
}

#[cfg(test)]
mod tests {
    use super::count;

    #[test]
    fn a_call_that_is_interrupted_counts_once() {
        let log = "1 open(\"/dev/kvm\") = 3\n1 poll( <unfinished ...>\n2 ioctl(4, KVM_RUN) = 0\n\
                   1 <... poll resumed>) = 1\n2 write(5, \"!\", 1) = 1\n2 exit(0) = ?\n";
        assert_eq!(count(log), Some(3));
        assert_eq!(count("1 write(1, \"?\", 1) = 1\n"), None);
    }
}
