//! The key that leaves a machine.

use std::str::FromStr;

use vmm::config::Problem;

/// A control character, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EscapeKey(pub Option<u8>);

impl EscapeKey {
    /// What of `typed` comes before the key, and whether the key was there.
    pub fn split(self, typed: &[u8]) -> (&[u8], bool) {
        let position = self
            .0
            .and_then(|key| typed.iter().position(|&byte| byte == key));
        match position {
            Some(position) => (typed.split_at(position).0, true),
            None => (typed, false),
        }
    }
}

impl FromStr for EscapeKey {
    type Err = Problem;

    fn from_str(text: &str) -> Result<Self, Problem> {
        match text.as_bytes() {
            b"none" => Ok(Self(None)),
            [b'^', letter] if (b'@'..=b'_').contains(&letter.to_ascii_uppercase()) => {
                Ok(Self(Some(letter.to_ascii_uppercase() & 0x1f)))
            }
            _ => Err(Problem::new(
                "--escape",
                format_args!(
                    "'{text}' is not a key: use none, or ^ and a letter or one of @[\\]^_"
                ),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn keys_are_control_characters() {
        for (text, byte) in [
            ("^]", Some(0x1d)),
            ("^a", Some(1)),
            ("^A", Some(1)),
            ("^@", Some(0)),
            ("^_", Some(0x1f)),
            ("none", None),
        ] {
            assert_eq!(text.parse(), Ok(EscapeKey(byte)), "{text}");
        }
        for text in ["", "^", "a", "^1", "^]]", "None", "^é"] {
            let problem = text.parse::<EscapeKey>().unwrap_err();
            assert!(
                problem
                    .message
                    .starts_with(&format!("'{text}' is not a key"))
            );
        }
    }

    proptest! {
        #[test]
        fn all_before_the_key_is_for_the_guest(typed: Vec<u8>) {
            let (before, left) = EscapeKey(Some(0x1d)).split(&typed);
            prop_assert_eq!(left, typed.contains(&0x1d));
            prop_assert!(!before.contains(&0x1d));
            prop_assert!(typed.starts_with(before));
            prop_assert_eq!(EscapeKey(None).split(&typed), (&typed[..], false));
        }
    }
}
