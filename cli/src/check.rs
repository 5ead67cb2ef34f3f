//! `cuddy check`: what this host offers to virtual machines.

use std::io::{self, Write};
use std::process::ExitCode;

use vmm::host::{Level, Report, report};

use crate::arguments::Check;
use crate::exit_status;

/// Looks at the host and prints what was found.
pub fn check(options: &Check) -> ExitCode {
    let report = report();
    let text = if options.json {
        match json(&report) {
            Ok(text) => text,
            Err(error) => return exit_status::fail(error, exit_status::HOST),
        }
    } else {
        table(&report)
    };
    // Whoever closed the pipe has read enough.
    let _ = io::stdout().write_all(text.as_bytes());
    if report.can_start() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(exit_status::HOST)
    }
}

fn json(report: &Report) -> serde_json::Result<String> {
    let mut value = serde_json::to_value(report)?;
    if let Some(object) = value.as_object_mut() {
        object.insert("can-start".to_owned(), report.can_start().into());
    }
    serde_json::to_string_pretty(&value).map(|text| text + "\n")
}

/// A line for each finding, its remedy below it, and the verdict.
fn table(report: &Report) -> String {
    let width = report
        .findings
        .iter()
        .map(|finding| finding.subject.len())
        .max()
        .unwrap_or(0);
    let mut text = String::new();
    for finding in &report.findings {
        let level = match finding.level {
            Level::Ok => "ok",
            Level::Warning => "warning",
            Level::Failure => "FAILURE",
        };
        let (subject, found) = (&finding.subject, &finding.found);
        text += &format!("{subject:width$}  {level:7}  {found}\n");
        if let Some(remedy) = &finding.remedy {
            text += &format!("{:width$}  {:7}  -> {remedy}\n", "", "");
        }
    }
    text += if report.can_start() {
        "A machine can start on this host.\n"
    } else {
        "No machine can start on this host.\n"
    };
    text
}

#[cfg(test)]
mod tests {
    use vmm::host::{Finding, KvmAccess, Virtualization};

    use super::*;

    fn failed() -> Report {
        Report {
            findings: vec![
                Finding {
                    subject: "/dev/kvm".to_owned(),
                    level: Level::Failure,
                    found: "Permission denied".to_owned(),
                    remedy: Some("join the group".to_owned()),
                },
                Finding {
                    subject: "TSC".to_owned(),
                    level: Level::Ok,
                    found: "ticks".to_owned(),
                    remedy: None,
                },
            ],
            kvm: KvmAccess::Denied,
            virtualization: Virtualization::Vmx,
            ring0_speed: None,
            vcpus_max: None,
            huge_pages: Vec::new(),
        }
    }

    #[test]
    fn the_table_has_a_line_for_each_finding_and_its_remedy() {
        assert_eq!(
            table(&failed()),
            "/dev/kvm  FAILURE  Permission denied\n                   -> join the group\n\
             TSC       ok       ticks\nNo machine can start on this host.\n"
        );
    }

    #[test]
    fn json_has_the_verdict() {
        let value: serde_json::Value = serde_json::from_str(&json(&failed()).unwrap()).unwrap();
        assert_eq!(value["can-start"], false);
        assert_eq!(value["kvm"], "denied");
        assert_eq!(value["findings"][0]["level"], "failure");
    }
}
