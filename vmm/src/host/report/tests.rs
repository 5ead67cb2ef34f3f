use super::*;

#[test]
fn whatever_is_wrong_has_a_remedy_and_every_line_is_one() {
    let report = report();
    assert!(report.findings.len() >= 3);
    for finding in &report.findings {
        assert_eq!(
            finding.remedy.is_some(),
            finding.level != Level::Ok,
            "{finding:?}"
        );
        for text in [&finding.subject, &finding.found] {
            assert!(!text.is_empty() && !text.contains('\n'), "{finding:?}");
        }
    }
    assert_eq!(
        report.kvm == KvmAccess::Open,
        report.vcpus_max.is_some(),
        "what is open is looked at"
    );
}

#[test]
fn the_check_at_start_agrees_with_the_report() {
    let Ok(kvm) = open_kvm() else {
        eprintln!("no /dev/kvm on this host: nothing compared");
        return;
    };
    let missing = report()
        .findings
        .into_iter()
        .find(|finding| finding.level == Level::Failure && finding.subject.starts_with("KVM_CAP_"));
    assert_eq!(capabilities::check(&kvm).is_ok(), missing.is_none());
}
