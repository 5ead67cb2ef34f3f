//! `cuddy image snapshot`: the internal snapshots of an image.

use std::fmt::Write as _;

use vmm::image::{self, ImageError, Snapshot};

use super::{printable, size};
use crate::arguments::{OneSnapshot, SnapshotCommand};

/// Does what is asked for, and returns what is to be printed.
pub fn carry_out(command: SnapshotCommand) -> Result<String, ImageError> {
    let (change, OneSnapshot { path, name }): (fn(&_, &str) -> _, _) = match command {
        SnapshotCommand::List { path, json } => {
            let snapshots = image::snapshots(&path)?;
            return Ok(match json {
                true => as_json(&snapshots),
                false => as_text(&snapshots),
            });
        }
        SnapshotCommand::Create(one) => (image::create_snapshot, one),
        SnapshotCommand::Apply(one) => (image::apply_snapshot, one),
        SnapshotCommand::Delete(one) => (image::delete_snapshot, one),
    };
    change(&path, &name)?;
    Ok(String::new())
}

/// A line for each, of what an image says of itself.
fn as_text(snapshots: &[Snapshot]) -> String {
    let mut text = String::new();
    for snapshot in snapshots {
        let Snapshot { id, name, .. } = snapshot;
        let machine = match snapshot.machine_bytes {
            0 => String::new(),
            bytes => format!(", with a machine of {}", size(bytes)),
        };
        let when = date(snapshot.seconds);
        let disk = size(snapshot.disk_bytes);
        let line: String = format!("{id}  {name}  {when}  {disk}{machine}")
            .chars()
            .flat_map(printable)
            .collect();
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{line}");
    }
    text
}

fn as_json(snapshots: &[Snapshot]) -> String {
    let snapshots: Vec<_> = snapshots
        .iter()
        .map(|snapshot| {
            serde_json::json!({
                "id": snapshot.id,
                "name": snapshot.name,
                "seconds": snapshot.seconds,
                "disk-bytes": snapshot.disk_bytes,
                "machine-bytes": snapshot.machine_bytes,
            })
        })
        .collect();
    format!("{:#}\n", serde_json::Value::Array(snapshots))
}

/// A time since 1970 in UTC, as ISO 8601 writes it.
fn date(seconds: u32) -> String {
    let (mut days, time) = (seconds / 86400, seconds % 86400);
    let leap = |year: u32| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    let mut year = 1970;
    while days >= 365 + u32::from(leap(year)) {
        days -= 365 + u32::from(leap(year));
        year += 1;
    }
    let lengths = [
        31,
        28 + u32::from(leap(year)),
        31,
        30,
        31,
        30,
        31,
        31,
        30,
        31,
        30,
        31,
    ];
    let mut month = 1;
    for length in lengths {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    let (hour, minute, second) = (time / 3600, time / 60 % 60, time % 60);
    format!(
        "{year}-{month:02}-{:02}T{hour:02}:{minute:02}:{second:02}Z",
        days + 1
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_799, "2000-02-29T23:59:59Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_735_689_599, "2024-12-31T23:59:59Z"),
            (u32::MAX, "2106-02-07T06:28:15Z"),
        ] {
            assert_eq!(date(seconds), expected);
        }
    }
}
