//! `cuddy image check`: what is wrong with an image, in a line for each kind of flaw and one of summary.

use std::fmt::Write as _;
use std::path::Path;

use vmm::config::ByteSize;
use vmm::image::{self, CheckReport, ImageError, Repair};

use crate::arguments::RepairName;

/// The exit status, as that of `qemu-img check`.
const DAMAGED: u8 = 2;
const LEAKS: u8 = 3;

/// Checks an image, and returns what is to be printed and the exit status.
pub fn check(
    path: &Path,
    repair: Option<RepairName>,
    json: bool,
) -> Result<(String, u8), ImageError> {
    let repair = match repair {
        None => Repair::Nothing,
        Some(RepairName::Leaks) => Repair::Leaks,
        Some(RepairName::All) => Repair::All,
    };
    let report = image::check(path, repair)?;
    let status = match (report.is_damaged(), report.leaked_clusters) {
        (true, _) => DAMAGED,
        (false, 0) => 0,
        (false, _) => LEAKS,
    };
    let text = match json {
        true => as_json(&report),
        false => as_text(path, &report),
    };
    Ok((text, status))
}

fn as_text(path: &Path, report: &CheckReport) -> String {
    let name = path.display();
    let mut text = String::new();
    let mut line = |what: &str| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{name}: {what}");
    };
    for flaw in &report.flaws {
        let often = match flaw.count {
            1 => "once",
            _ => &format!("{} times, first", flaw.count),
        };
        let remedy = match flaw.is_mended {
            true => "--repair all mends it",
            false => "this cannot be mended without a guess",
        };
        line(&format!(
            "{} ({often} at {:#x} of the file); {remedy}",
            flaw.what, flaw.first_offset
        ));
    }
    if report.is_corrupt {
        line("it is marked as damaged; --repair all takes the mark away if nothing is wrong");
    }
    if report.is_dirty {
        line("it was not closed; it is mended when it is next written to");
    }
    let clusters = |count| {
        let bytes = about(report.cluster_bytes.saturating_mul(count));
        match count {
            1 => format!("1 cluster ({bytes})"),
            _ => format!("{count} clusters ({bytes})"),
        }
    };
    if report.mended_errors > 0 {
        line(&format!("{} flaws were mended", report.mended_errors));
    }
    if report.mended_leaks > 0 {
        line(&format!("given back: {}", clusters(report.mended_leaks)));
    }
    let used = clusters(report.used_clusters);
    let snapshots = match report.snapshots {
        0 => String::new(),
        1 => ", with 1 snapshot".to_owned(),
        number => format!(", with {number} snapshots"),
    };
    let leaks = clusters(report.leaked_clusters);
    line(&match (report.is_damaged(), report.leaked_clusters) {
        (false, 0) => format!("sound: {used} in use{snapshots}"),
        (false, _) => format!(
            "no damage, {leaks} lost: --repair leaks gives them back; {used} in use{snapshots}"
        ),
        (true, 0) => format!("damaged; {used} in use{snapshots}"),
        (true, _) => format!("damaged, and {leaks} lost; {used} in use{snapshots}"),
    });
    text
}

/// A size to be read rather than to be given again.
fn about(bytes: u64) -> String {
    let unit = (1..=4).rev().find(|unit| bytes >= 1024 << (10 * unit));
    match unit {
        None => ByteSize(bytes).to_string(),
        Some(unit) => {
            let tenths = bytes.saturating_mul(10) >> (10 * (unit + 1));
            let letter = ["", "K", "M", "G", "T", "P"][unit + 1];
            format!("{}.{}{letter}", tenths / 10, tenths % 10)
        }
    }
}

fn as_json(report: &CheckReport) -> String {
    let flaws: Vec<_> = report
        .flaws
        .iter()
        .map(|flaw| {
            serde_json::json!({
                "what": flaw.what,
                "count": flaw.count,
                "first-offset": flaw.first_offset,
                "mendable": flaw.is_mended,
            })
        })
        .collect();
    let value = serde_json::json!({
        "damaged": report.is_damaged(),
        "flaws": flaws,
        "leaked-clusters": report.leaked_clusters,
        "mended-errors": report.mended_errors,
        "mended-leaks": report.mended_leaks,
        "cluster-bytes": report.cluster_bytes,
        "used-clusters": report.used_clusters,
        "snapshots": report.snapshots,
        "dirty": report.is_dirty,
        "corrupt": report.is_corrupt,
    });
    format!("{value:#}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_a_digit_behind_the_point() {
        for (bytes, expected) in [
            (512, "512"),
            (4096, "4K"),
            (1 << 20, "1.0M"),
            (10_487_616 << 10, "10.0G"),
            (3 << 39, "1.5T"),
        ] {
            assert_eq!(about(bytes), expected);
        }
    }
}
