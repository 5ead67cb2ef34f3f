//! Metrics as Prometheus' text exposition format, version 0.0.4
//! (prometheus.io/docs/instrumenting/exposition_formats).

use std::fmt::Write;

use virtio::devices::vsock::VsockCounts;

use super::Metrics;

/// All of `metrics`, each family with its help and type.
pub fn render(metrics: &Metrics) -> String {
    let machine = escaped(&metrics.machine);
    let mut text = String::new();
    family(
        &mut text,
        "cuddy_vcpu_exits_total",
        "counter",
        "Returns of KVM_RUN by reason.",
    );
    for (number, vcpu) in metrics.vcpus.iter().enumerate() {
        for (reason, count) in vcpu.exits {
            let reason = reason.name();
            // Writing to a string cannot fail.
            let _ = writeln!(
                text,
                "cuddy_vcpu_exits_total{{machine=\"{machine}\",vcpu=\"{number}\",reason=\"{reason}\"}} {count}"
            );
        }
    }
    family(
        &mut text,
        "cuddy_vcpu_interpreted_instructions_total",
        "counter",
        "Instructions carried out ahead of a software KVM.",
    );
    for (number, vcpu) in metrics.vcpus.iter().enumerate() {
        let count = vcpu.interpreted;
        let _ = writeln!(
            text,
            "cuddy_vcpu_interpreted_instructions_total{{machine=\"{machine}\",vcpu=\"{number}\"}} {count}"
        );
    }
    family(
        &mut text,
        "cuddy_vcpu_completions_total",
        "counter",
        "Instructions completed outside KVM by mnemonic.",
    );
    for (number, vcpu) in metrics.vcpus.iter().enumerate() {
        for (mnemonic, count) in &vcpu.completions {
            let _ = writeln!(
                text,
                "cuddy_vcpu_completions_total{{machine=\"{machine}\",vcpu=\"{number}\",mnemonic=\"{mnemonic}\"}} {count}"
            );
        }
    }
    if let Some(vsock) = &metrics.vsock {
        render_vsock(&mut text, &machine, vsock);
    }
    text
}

/// A sample's further labels, and its value.
type Sample = (&'static str, u64);

fn render_vsock(text: &mut String, machine: &str, counts: &VsockCounts) {
    let mut whole = |name: &str, kind: &str, help: &str, samples: &[Sample]| {
        family(text, name, kind, help);
        for (labels, value) in samples {
            let _ = writeln!(text, "{name}{{machine=\"{machine}\"{labels}}} {value}");
        }
    };
    whole(
        "cuddy_vsock_connections_total",
        "counter",
        "Connections of the socket device by what became of them.",
        &[
            (",outcome=\"opened\"", counts.opened),
            (",outcome=\"refused\"", counts.refused),
        ],
    );
    whole(
        "cuddy_vsock_open_connections",
        "gauge",
        "Connections of the socket device that there are.",
        &[("", counts.open)],
    );
    whole(
        "cuddy_vsock_bytes_total",
        "counter",
        "Bytes through the socket device by direction.",
        &[
            (",direction=\"to_guest\"", counts.to_guest_bytes),
            (",direction=\"from_guest\"", counts.from_guest_bytes),
        ],
    );
    whole(
        "cuddy_vsock_dropped_packets_total",
        "counter",
        "Packets of the guest that were none of its own.",
        &[("", counts.dropped)],
    );
}

fn family(text: &mut String, name: &str, kind: &str, help: &str) {
    // Writing to a string cannot fail.
    let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
}

/// A label's value: backslash, quote and newline are escaped.
fn escaped(value: &str) -> String {
    value
        .replace('\\', r"\\")
        .replace('"', "\\\"")
        .replace('\n', r"\n")
}
