//! The log, on standard error: `--log` and `--log-format`.
//!
//! Levels are set by module, with the library's filter of targets. Its own parser is not used: it takes
//! a mistyped level for the name of a module.

use std::io;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{fmt, registry};
use vmm::config::Problem;

use crate::arguments::{LogFormat, LogOptions};

/// Whose log there is.
const MODULES: [&str; 7] = ["arch", "block", "boot", "cuddy", "devices", "virtio", "vmm"];

/// How much to log, by module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Levels {
    default: LevelFilter,
    modules: Vec<(String, LevelFilter)>,
}

impl Levels {
    /// Reads levels such as `info,virtio=debug`.
    ///
    /// # Errors
    ///
    /// What is wrong with `text`.
    pub fn parse(text: &str) -> Result<Self, Problem> {
        let problem = |message: String| Problem::new("--log", message);
        let level = |text: &str| {
            text.parse::<LevelFilter>()
                .ok()
                .filter(|_| !text.is_empty() && !text.bytes().any(|byte| byte.is_ascii_digit()))
                .ok_or_else(|| {
                    problem(format!(
                        "'{text}' is not a level: use off, error, warn, info, debug or trace"
                    ))
                })
        };
        let mut default = None;
        let mut modules: Vec<(String, LevelFilter)> = Vec::new();
        for item in text.split(',') {
            let twice = match item.split_once('=') {
                None => default.replace(level(item)?).is_some(),
                Some((module, text)) => {
                    let name = module.split("::").next().unwrap_or_default();
                    if !MODULES.contains(&name) {
                        return Err(problem(format!(
                            "'{name}' is not a module: use one of {}",
                            MODULES.join(", ")
                        )));
                    }
                    let level = level(text)?;
                    let twice = modules.iter().any(|(earlier, _)| earlier == module);
                    modules.push((module.to_owned(), level));
                    twice
                }
            };
            if twice {
                return Err(problem(format!("'{item}' comes twice: keep one")));
            }
        }
        Ok(Self {
            default: default.unwrap_or(LevelFilter::WARN),
            modules,
        })
    }

    fn into_targets(self) -> Targets {
        Targets::new()
            .with_default(self.default)
            .with_targets(self.modules)
    }
}

/// Starts the log of this process.
///
/// # Errors
///
/// What is wrong with the levels.
pub fn start(options: &LogOptions) -> Result<(), Problem> {
    let levels = Levels::parse(&options.levels)?;
    let registry = registry().with(levels.into_targets());
    let layer = fmt::layer().with_writer(io::stderr).with_ansi(false);
    let started = match options.format {
        LogFormat::Text => registry.with(layer).try_init(),
        LogFormat::Json => registry.with(layer.json()).try_init(),
    };
    started.map_err(|error| Problem::new("--log", error))
}

#[cfg(test)]
mod tests;
