//! `cuddy image`: disk images, made, described, copied, enlarged and looked after.

mod check;
mod snapshot;

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

use vmm::ImageFormat;
use vmm::config::ByteSize;
use vmm::image::{self, CreateOptions, ImageError, ImageInfo};

use crate::arguments::{ImageCommand, LogFormat, LogOptions};
use crate::{exit_status, log};

/// Does what is asked for.
pub fn image(command: ImageCommand) -> ExitCode {
    // A raw disk that looks like another is worth a warning.
    let log = LogOptions {
        levels: "warn".to_owned(),
        format: LogFormat::Text,
    };
    if let Err(problem) = log::start(&log) {
        return exit_status::misconfigured(&[problem]);
    }
    match carry_out(command) {
        Ok((text, status)) => {
            // Whoever closed the pipe has read enough.
            let _ = io::stdout().write_all(text.as_bytes());
            ExitCode::from(status)
        }
        Err(error) => exit_status::fail(error, exit_status::HOST),
    }
}

/// Returns what is to be printed, and the exit status.
fn carry_out(command: ImageCommand) -> Result<(String, u8), ImageError> {
    let text = match command {
        ImageCommand::Create {
            path,
            size,
            format,
            cluster_size,
            backing,
            backing_format,
        } => {
            let options = CreateOptions {
                format: format.into(),
                size_bytes: size.map(|size| size.0),
                cluster_bytes: cluster_size.map(|size| size.0),
                backing: backing.zip(backing_format.map(ImageFormat::from)),
            };
            image::create(&path, &options)?;
            String::new()
        }
        ImageCommand::Info { path, format, json } => {
            let info = image::info(&path, format.into())?;
            if json {
                describe_as_json(&info)
            } else {
                describe(&path, &info)
            }
        }
        ImageCommand::Convert {
            source,
            target,
            from,
            to,
            snapshot,
            cluster_size,
        } => {
            let options = CreateOptions {
                format: to.into(),
                cluster_bytes: cluster_size.map(|size| size.0),
                ..CreateOptions::default()
            };
            match snapshot {
                Some(name) => image::convert_snapshot(&source, &name, &target, &options)?,
                None => image::convert(&source, from.into(), &target, &options)?,
            };
            String::new()
        }
        ImageCommand::Check { path, repair, json } => return check::check(&path, repair, json),
        ImageCommand::Snapshot { command } => snapshot::carry_out(command)?,
        ImageCommand::Resize { path, size, format } => {
            image::resize(&path, format.into(), size.0)?;
            String::new()
        }
    };
    Ok((text, 0))
}

fn format_name(format: ImageFormat) -> &'static str {
    match format {
        ImageFormat::Qcow2 => "qcow2",
        ImageFormat::Raw | ImageFormat::Auto => "raw",
    }
}

/// A line for each thing that can be said.
fn describe(path: &Path, info: &ImageInfo) -> String {
    let mut lines = vec![
        ("image", path.display().to_string()),
        ("format", format_name(info.format).to_owned()),
        ("size", size(info.size_bytes)),
        ("on the host's disk", size(info.allocated_bytes)),
    ];
    if let Some(head) = &info.qcow2 {
        lines.push(("version", head.version.to_string()));
        lines.push(("clusters", size(head.cluster_bytes)));
        lines.push(("compression", head.compression.to_owned()));
        if let Some(backing) = &head.backing {
            let format = head.backing_format.as_deref().unwrap_or("format not said");
            lines.push(("backing file", format!("{backing} ({format})")));
        }
        lines.push(("snapshots", head.snapshots.to_string()));
        for (holds, what) in [
            (head.lazy_refcounts, "lazy reference counts"),
            (
                head.dirty,
                "in use, or not closed: reference counts may be wrong",
            ),
            (head.corrupt, "damaged"),
        ] {
            if holds {
                lines.push(("note", what.to_owned()));
            }
        }
    }
    let mut text = String::new();
    for (what, value) in lines {
        // What an image says of itself may have anything in it.
        let value: String = value.chars().flat_map(printable).collect();
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{what:18}  {value}");
    }
    text
}

fn printable(character: char) -> Vec<char> {
    if character.is_control() {
        character.escape_default().collect()
    } else {
        vec![character]
    }
}

fn size(bytes: u64) -> String {
    let short = ByteSize(bytes).to_string();
    match short == bytes.to_string() {
        true => format!("{bytes} bytes"),
        false => format!("{short} ({bytes} bytes)"),
    }
}

fn describe_as_json(info: &ImageInfo) -> String {
    let mut value = serde_json::json!({
        "format": format_name(info.format),
        "size-bytes": info.size_bytes,
        "allocated-bytes": info.allocated_bytes,
    });
    if let (Some(head), Some(object)) = (&info.qcow2, value.as_object_mut()) {
        let more = serde_json::json!({
            "version": head.version,
            "cluster-bytes": head.cluster_bytes,
            "compression": head.compression,
            "backing": head.backing,
            "backing-format": head.backing_format,
            "snapshots": head.snapshots,
            "lazy-refcounts": head.lazy_refcounts,
            "dirty": head.dirty,
            "corrupt": head.corrupt,
        });
        object.insert("qcow2".to_owned(), more);
    }
    format!("{value:#}\n")
}
