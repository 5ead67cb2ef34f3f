//! CPU features by name, and what a user says of them: `host`, `host,-avx512f`, `host,+invtsc,-xsave`.
//!
//! Names are those of Linux's /proc/cpuinfo; QEMU's are taken too, and upper case, `-`, `_` and `.` make no
//! difference. A feature that is taken away takes those with it that cannot be used without it.

mod table;

use std::fmt;
use std::str::FromStr;

pub(crate) use table::AMD_REPEATED;
use table::{ALIASES, REQUIREMENTS, WORDS};

/// A register of CPUID's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the architecture's own names")]
pub enum Register {
    Eax,
    Ebx,
    Ecx,
    Edx,
}

/// A feature and where CPUID tells of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Feature {
    /// Its name in /proc/cpuinfo.
    pub name: &'static str,
    /// EAX of the question.
    pub leaf: u32,
    /// ECX of the question; 0 where it does not matter.
    pub index: u32,
    /// The register of the answer.
    pub register: Register,
    /// The feature's bits in it: one, or all that say the same (kvmclock has two).
    pub mask: u32,
}

/// Why a text does not say what processor is wanted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CpuModelError {
    /// The text does not begin with `host`.
    #[error("unknown CPU model '{name}': the one there is is 'host', as in host,-avx2")]
    UnknownModel {
        /// What stands where the model should.
        name: String,
    },
    /// A feature without sign, or a sign without feature.
    #[error("'{item}' is neither +feature nor -feature")]
    NotSigned {
        /// The item.
        item: String,
    },
    /// There is no feature with this name.
    #[error("unknown CPU feature '{name}'{}", .nearest.map(|nearest| format!(": did you mean '{nearest}'?")).unwrap_or_default())]
    UnknownFeature {
        /// The name as it was written.
        name: String,
        /// The most similar name, if one is similar.
        nearest: Option<&'static str>,
    },
    /// A feature is named more than once.
    #[error("the CPU feature '{name}' is named twice")]
    NamedTwice {
        /// Its name.
        name: &'static str,
    },
    /// A feature is wanted and one that it needs is not.
    #[error("+{added} cannot be had with -{removed}")]
    Conflict {
        /// The feature that was asked for.
        added: &'static str,
        /// The one that it needs.
        removed: &'static str,
    },
}

/// The processor that a user wants: the host's, with or without some features.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CpuModel {
    added: Vec<Feature>,
    /// As they were named.
    removed: Vec<Feature>,
    /// What goes with them.
    dependants: Vec<Feature>,
}

impl CpuModel {
    /// Features that the host must have.
    pub fn added(&self) -> impl Iterator<Item = &Feature> {
        self.added.iter()
    }

    /// Features that the guest must not see: those that were named and those that need them.
    pub fn removed(&self) -> impl Iterator<Item = &Feature> {
        self.removed.iter().chain(&self.dependants)
    }
}

impl FromStr for CpuModel {
    type Err = CpuModelError;

    fn from_str(text: &str) -> Result<Self, CpuModelError> {
        let mut items = text.split(',');
        let name = items.next().unwrap_or_default();
        if name != "host" {
            return Err(CpuModelError::UnknownModel {
                name: name.to_owned(),
            });
        }
        let mut model = Self::default();
        for item in items {
            let (list, name) = match (item.strip_prefix('+'), item.strip_prefix('-')) {
                (Some(name), _) if !name.is_empty() => (&mut model.added, name),
                (_, Some(name)) if !name.is_empty() => (&mut model.removed, name),
                _ => {
                    return Err(CpuModelError::NotSigned {
                        item: item.to_owned(),
                    });
                }
            };
            let feature = find(name).ok_or_else(|| CpuModelError::UnknownFeature {
                name: name.to_owned(),
                nearest: nearest(name),
            })?;
            list.push(feature);
            let named = model.added.iter().chain(&model.removed);
            if named.filter(|other| **other == feature).count() > 1 {
                return Err(CpuModelError::NamedTwice { name: feature.name });
            }
        }
        for &removed in &model.removed {
            for dependant in dependants(removed.name) {
                if model.added.contains(&dependant) {
                    return Err(CpuModelError::Conflict {
                        added: dependant.name,
                        removed: removed.name,
                    });
                }
                if !model.removed.contains(&dependant) && !model.dependants.contains(&dependant) {
                    model.dependants.push(dependant);
                }
            }
        }
        Ok(model)
    }
}

impl fmt::Display for CpuModel {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("host")?;
        for feature in &self.added {
            write!(formatter, ",+{}", feature.name)?;
        }
        for feature in &self.removed {
            write!(formatter, ",-{}", feature.name)?;
        }
        Ok(())
    }
}

/// All features, in the order of their leaves and bits.
pub fn all() -> impl Iterator<Item = Feature> {
    WORDS.iter().flat_map(|word| {
        let mut names: Vec<&str> = word.bits.iter().map(|&(_, name)| name).collect();
        names.sort_unstable();
        names.dedup();
        names.into_iter().map(|name| word.feature(name))
    })
}

/// The feature with this name, as /proc/cpuinfo or QEMU write it.
pub fn find(name: &str) -> Option<Feature> {
    let wanted = letters(name);
    let name = ALIASES
        .iter()
        .find(|(alias, _)| letters(alias) == wanted)
        .map_or(wanted, |(_, name)| letters(name));
    WORDS.iter().find_map(|word| {
        word.bits
            .iter()
            .find(|(_, other)| letters(other) == name)
            .map(|&(_, name)| word.feature(name))
    })
}

/// What is compared of a name.
fn letters(name: &str) -> String {
    name.chars()
        .filter(|letter| !matches!(letter, '-' | '_' | '.'))
        .map(|letter| letter.to_ascii_lowercase())
        .collect()
}

/// The name that is most similar to one that does not exist.
fn nearest(name: &str) -> Option<&'static str> {
    let wanted = letters(name);
    // A name that has less than two thirds right was not meant.
    let furthest = (wanted.chars().count() / 3).max(1);
    let names = WORDS
        .iter()
        .flat_map(|word| word.bits.iter().map(|&(_, name)| name));
    names
        .chain(ALIASES.iter().map(|&(alias, _)| alias))
        .map(|name| (strsim::damerau_levenshtein(&wanted, &letters(name)), name))
        .min_by_key(|&(distance, _)| distance)
        .filter(|&(distance, _)| distance <= furthest)
        .map(|(_, name)| name)
}

/// All features that cannot be used without `name`.
fn dependants(name: &'static str) -> Vec<Feature> {
    let mut gone = vec![name];
    let mut next = 0;
    while let Some(&required) = gone.get(next) {
        for (dependant, _) in REQUIREMENTS.iter().filter(|(_, other)| *other == required) {
            if !gone.contains(dependant) {
                gone.push(dependant);
            }
        }
        next += 1;
    }
    gone.into_iter().skip(1).filter_map(find).collect()
}

#[cfg(test)]
mod tests;
