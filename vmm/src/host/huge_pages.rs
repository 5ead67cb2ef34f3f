//! Huge pages that the host has reserved (Documentation/admin-guide/mm/hugetlbpage.rst) and transparent
//! ones (transhuge.rst), read from /sys/kernel/mm.

use std::fs;
use std::path::Path;

use serde::Serialize;

/// One size of reserved huge pages.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct HugePagePool {
    /// Size of a page in KiB.
    pub page_kib: u64,
    /// How many are reserved.
    pub reserved: u64,
    /// How many of those nobody uses.
    pub free: u64,
}

/// The pools under `directory`, the smallest pages first.
pub(super) fn pools(directory: &Path) -> Vec<HugePagePool> {
    let mut pools: Vec<_> = fs::read_dir(directory)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name();
            let size = name.to_str()?.strip_prefix("hugepages-")?;
            let number = |file| {
                let text = fs::read_to_string(entry.path().join(file)).ok()?;
                text.trim().parse().ok()
            };
            Some(HugePagePool {
                page_kib: size.strip_suffix("kB")?.parse().ok()?,
                reserved: number("nr_hugepages")?,
                free: number("free_hugepages")?,
            })
        })
        .collect();
    pools.sort();
    pools
}

/// The mode of transparent huge pages: the word in brackets of `setting`.
pub(super) fn transparent_mode(setting: &str) -> Option<&str> {
    let (_, rest) = setting.split_once('[')?;
    Some(rest.split_once(']')?.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pools_are_read_in_order_and_strangers_left_out() {
        let directory = tempfile::tempdir().unwrap();
        for (name, reserved) in [("hugepages-1048576kB", 1), ("hugepages-2048kB", 512)] {
            let pool = directory.path().join(name);
            fs::create_dir(&pool).unwrap();
            fs::write(pool.join("nr_hugepages"), format!("{reserved}\n")).unwrap();
            fs::write(pool.join("free_hugepages"), "0\n").unwrap();
        }
        fs::create_dir(directory.path().join("hugepages-oddkB")).unwrap();
        let pools: Vec<_> = pools(directory.path())
            .into_iter()
            .map(|pool| (pool.page_kib, pool.reserved, pool.free))
            .collect();
        assert_eq!(pools, [(2048, 512, 0), (1_048_576, 1, 0)]);
    }

    #[test]
    fn a_host_without_huge_pages_has_no_pools() {
        assert_eq!(pools(Path::new("/nonexistent")), []);
    }

    #[test]
    fn the_mode_is_the_word_in_brackets() {
        assert_eq!(
            transparent_mode("always [madvise] never\n"),
            Some("madvise")
        );
        assert_eq!(transparent_mode("nothing"), None);
    }
}
