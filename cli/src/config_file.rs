//! A machine's configuration from a file, TOML or JSON.
//!
//! What is wrong is said with the file, its line and the key.

use std::fs;
use std::path::Path;

use vmm::config::{MachineConfig, Problem};

/// Nobody writes more than this by hand: a file beyond it is some other file.
const SIZE_MAX_BYTES: u64 = 1 << 20;

/// Reads `path`, as JSON if its name ends in `.json` and as TOML otherwise.
///
/// # Errors
///
/// One problem: the first one in the file, or why it could not be read.
pub fn read(path: &Path) -> Result<MachineConfig, Problem> {
    let unreadable = |what: &dyn std::fmt::Display| {
        Problem::new(
            format!("--config {}", path.display()),
            format_args!("{what}: name a TOML or JSON file that may be read"),
        )
    };
    let metadata = fs::metadata(path).map_err(|error| unreadable(&error))?;
    if !metadata.is_dir() && metadata.len() > SIZE_MAX_BYTES {
        return Err(unreadable(&"is larger than 1M"));
    }
    let text = fs::read_to_string(path).map_err(|error| unreadable(&error))?;
    let parsed = if path
        .extension()
        .is_some_and(|extension| extension == "json")
    {
        from_json(&text)
    } else {
        from_toml(&text)
    };
    parsed.map_err(|Mistake { line, message }| {
        let place = match line {
            Some(line) => format!("{}:{line}", path.display()),
            None => path.display().to_string(),
        };
        Problem::new(place, message)
    })
}

/// What is wrong with a text.
#[derive(Debug, PartialEq, Eq)]
struct Mistake {
    /// Where: counted from 1.
    line: Option<usize>,
    message: String,
}

fn from_toml(text: &str) -> Result<MachineConfig, Mistake> {
    toml::from_str(text).map_err(|error| {
        let line = error.span().map(|span| {
            let before = text.get(..span.start).unwrap_or(text);
            1 + before.matches('\n').count()
        });
        let source = line.and_then(|line| text.lines().nth(line.saturating_sub(1)));
        Mistake {
            message: in_our_words(error.message(), source.and_then(key_of_toml_line)),
            line,
        }
    })
}

fn from_json(text: &str) -> Result<MachineConfig, Mistake> {
    serde_json::from_str(text).map_err(|error| {
        let line = (error.line() > 0).then_some(error.line());
        let full = error.to_string();
        let message = full
            .rsplit_once(" at line ")
            .map_or(full.as_str(), |(message, _)| message);
        let source = line.and_then(|line| text.lines().nth(line.saturating_sub(1)));
        Mistake {
            line,
            message: in_our_words(message, source.and_then(key_of_json_line)),
        }
    })
}

/// The key before the first `=`, or the table in brackets.
fn key_of_toml_line(line: &str) -> Option<&str> {
    let line = line.trim();
    if let Some(table) = line.strip_prefix('[') {
        return Some(table.trim_matches(['[', ']', ' ']));
    }
    let (key, _) = line.split_once('=')?;
    Some(key.trim().trim_matches('"'))
}

/// The first text that a colon follows.
fn key_of_json_line(line: &str) -> Option<&str> {
    let (before, _) = line.split_once(':')?;
    let key = before.trim_end().strip_suffix('"')?;
    Some(key.rsplit_once('"')?.1)
}

/// serde's words in ours: keys rather than fields, plain quotes, and a remedy where it has none.
fn in_our_words(message: &str, key: Option<&str>) -> String {
    let message = message
        .replace('`', "'")
        .replace(", expected one of ", ": use one of ")
        .replace(", expected ", ": use ")
        .replace("unknown field", "unknown key")
        .replace("missing field", "missing key")
        .replace("duplicate field", "duplicate key")
        .replace("unknown variant", "unknown value")
        .lines()
        .collect::<Vec<_>>()
        .join(" ");
    let message = match key {
        Some(key) if !message.contains(&format!("'{key}'")) => format!("{key}: {message}"),
        _ => message,
    };
    if message.contains(": use ") {
        message
    } else if message.contains("missing key") {
        format!("{message}: add it")
    } else if message.contains("duplicate key") {
        format!("{message}: keep one")
    } else {
        format!("{message}: put it right")
    }
}

#[cfg(test)]
mod tests;
