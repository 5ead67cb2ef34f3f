//! What is wrong with a `key=value` text.

use std::fmt::Display;

use serde::de;

/// What is wrong, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyValueError {
    /// An item without `=`.
    #[error(
        "'{0}' has no value: write key=value, with commas between, and a comma in a value twice"
    )]
    NoValue(String),
    /// A key that comes a second time.
    #[error("key '{0}' is given twice: keep one")]
    Twice(String),
    /// A key that is not known.
    #[error("unknown key '{key}': use {}", alternatives(.known))]
    Unknown {
        /// The key.
        key: String,
        /// The keys that there are.
        known: &'static [&'static str],
    },
    /// A key that has to be there.
    #[error("key '{0}' is missing: add {0}=…")]
    Missing(&'static str),
    /// A value that does not fit.
    #[error("{}{message}", .key.as_ref().map(|key| format!("{key}: ")).unwrap_or_default())]
    Value {
        /// Its key, where there is one.
        key: Option<String>,
        /// What is wrong with it.
        message: String,
    },
}

impl KeyValueError {
    pub(super) fn value(message: impl Display) -> Self {
        Self::Value {
            key: None,
            message: message.to_string(),
        }
    }

    /// Says that the value is that of `name`.
    pub(super) fn of_key(self, name: String) -> Self {
        match self {
            Self::Value { key: None, message } => Self::Value {
                key: Some(name),
                message,
            },
            other => other,
        }
    }
}

impl de::Error for KeyValueError {
    fn custom<T: Display>(message: T) -> Self {
        Self::value(message)
    }

    fn unknown_field(key: &str, known: &'static [&'static str]) -> Self {
        Self::Unknown {
            key: key.to_owned(),
            known,
        }
    }

    fn missing_field(key: &'static str) -> Self {
        Self::Missing(key)
    }

    fn duplicate_field(key: &'static str) -> Self {
        Self::Twice(key.to_owned())
    }

    fn unknown_variant(variant: &str, known: &'static [&'static str]) -> Self {
        Self::value(format_args!(
            "'{variant}' is not a choice: use {}",
            alternatives(known)
        ))
    }
}

/// `a, b or c`.
fn alternatives(names: &[&str]) -> String {
    match names {
        [] => "none".to_owned(),
        [only] => (*only).to_owned(),
        [most @ .., last] => format!("{} or {last}", most.join(", ")),
    }
}
