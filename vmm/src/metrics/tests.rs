use super::*;

fn counted() -> Counters {
    let counters = Counters::new("a \"box\"\\\n", 2);
    let vcpu = counters.vcpu(1);
    for _ in 0..3 {
        vcpu.count_exit(ExitReason::PortWrite);
    }
    vcpu.count_exit(ExitReason::InternalError);
    assert_eq!(vcpu.count_completion(Mnemonic::Popcnt), 0);
    assert_eq!(vcpu.count_completion(Mnemonic::Popcnt), 1);
    assert_eq!(vcpu.count_completion(Mnemonic::Int3), 0);
    vcpu.count_interpreted(40);
    vcpu.count_interpreted(2);
    counters
}

#[test]
fn each_reason_has_its_place_and_name() {
    for (number, reason) in ExitReason::ALL.into_iter().enumerate() {
        assert_eq!(reason as usize, number);
    }
    let mut names = ExitReason::ALL.map(ExitReason::name).to_vec();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), ExitReason::ALL.len());
}

#[test]
fn a_snapshot_has_what_was_counted_where() {
    let metrics = counted().snapshot();
    assert!(metrics.vcpus[0].exits.iter().all(|(_, count)| *count == 0));
    assert_eq!(metrics.vcpus[0].completions, []);
    assert!(metrics.vcpus[1].exits.contains(&(ExitReason::PortWrite, 3)));
    assert_eq!(
        metrics.vcpus[1].completions,
        [("int3".to_owned(), 1), ("popcnt".to_owned(), 2)]
    );
}

#[test]
fn a_summary_begins_with_what_came_most() {
    let metrics = counted().snapshot();
    assert_eq!(metrics.vcpus[0].summary(), "0 exits");
    assert_eq!(
        metrics.vcpus[1].summary(),
        "4 exits (port_write 3, internal_error 1), 42 instructions ahead of KVM, 3 instructions completed outside KVM \
         (popcnt 2, int3 1)"
    );
}

#[test]
fn prometheus_gets_each_family_once_and_labels_that_it_can_read() {
    let text = counted().snapshot().to_prometheus();
    for name in ["cuddy_vcpu_exits_total", "cuddy_vcpu_completions_total"] {
        assert_eq!(text.matches(&format!("# HELP {name} ")).count(), 1);
        assert_eq!(text.matches(&format!("# TYPE {name} counter\n")).count(), 1);
    }
    let label = r#"machine="a \"box\"\\\n",vcpu="1""#;
    for line in [
        format!("cuddy_vcpu_exits_total{{{label},reason=\"port_write\"}} 3"),
        format!("cuddy_vcpu_interpreted_instructions_total{{{label}}} 42"),
        format!("cuddy_vcpu_completions_total{{{label},mnemonic=\"popcnt\"}} 2"),
    ] {
        assert!(text.lines().any(|other| other == line), "{line}\n{text}");
    }
    assert!(text.ends_with('\n'));
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    for sample in samples {
        let (_, value) = sample.rsplit_once(' ').unwrap();
        value.parse::<u64>().unwrap();
    }
}

#[test]
fn a_socket_device_is_in_it_where_there_is_one() {
    let mut metrics = counted().snapshot();
    assert!(!metrics.to_prometheus().contains("vsock"));
    metrics.vsock = Some(VsockCounts {
        opened: 4,
        refused: 3,
        open: 2,
        to_guest_bytes: 1000,
        from_guest_bytes: 2000,
        dropped: 1,
    });
    let text = metrics.to_prometheus();
    let label = r#"machine="a \"box\"\\\n""#;
    for line in [
        "# TYPE cuddy_vsock_open_connections gauge".to_owned(),
        format!("cuddy_vsock_connections_total{{{label},outcome=\"opened\"}} 4"),
        format!("cuddy_vsock_connections_total{{{label},outcome=\"refused\"}} 3"),
        format!("cuddy_vsock_open_connections{{{label}}} 2"),
        format!("cuddy_vsock_bytes_total{{{label},direction=\"to_guest\"}} 1000"),
        format!("cuddy_vsock_bytes_total{{{label},direction=\"from_guest\"}} 2000"),
        format!("cuddy_vsock_dropped_packets_total{{{label}}} 1"),
    ] {
        assert!(text.lines().any(|other| other == line), "{line}\n{text}");
    }
}
