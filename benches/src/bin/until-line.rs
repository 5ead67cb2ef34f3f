//! `until-line TEXT COMMAND…`: the milliseconds from the start of the command until a line of its output
//! contains the text. Ends the command then.

use std::io::{BufRead, BufReader, Error, Result};
use std::process::{Command, Stdio};
use std::time::Instant;

fn main() -> Result<()> {
    let words: Vec<_> = std::env::args().skip(1).collect();
    let [text, program, arguments @ ..] = words.as_slice() else {
        return Err(Error::other("use until-line TEXT COMMAND…"));
    };
    let start = Instant::now();
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let output = child.stdout.take().ok_or_else(|| Error::other("no pipe"))?;
    let mut seen = String::new();
    let mut output = BufReader::new(output);
    let mut line = Vec::new();
    while output.read_until(b'\n', &mut line)? > 0 {
        let found = String::from_utf8_lossy(&line);
        if found.contains(text) {
            println!("{}", start.elapsed().as_secs_f64() * 1e3);
            child.kill()?;
            child.wait()?;
            return Ok(());
        }
        seen.push_str(&found);
        line.clear();
    }
    let status = child.wait()?;
    Err(Error::other(format!(
        "it ended ({status}) without a line with {text:?}: {seen}"
    )))
}
