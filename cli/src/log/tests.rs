use super::*;

#[test]
fn levels_are_for_all_and_for_modules() {
    assert_eq!(
        Levels::parse("info,virtio=debug,vmm::console=off"),
        Ok(Levels {
            default: LevelFilter::INFO,
            modules: vec![
                ("virtio".to_owned(), LevelFilter::DEBUG),
                ("vmm::console".to_owned(), LevelFilter::OFF),
            ],
        })
    );
    let only_module = Levels::parse("block=trace").unwrap();
    assert_eq!(only_module.default, LevelFilter::WARN);
    let targets = only_module.into_targets();
    assert!(targets.would_enable("block::disk", &tracing::Level::TRACE));
    assert!(!targets.would_enable("virtio", &tracing::Level::INFO));
}

#[test]
fn mistakes_are_told_apart() {
    for (text, message) in [
        ("verbose", "--log: 'verbose' is not a level: use off"),
        ("", "--log: '' is not a level: use off"),
        ("3", "--log: '3' is not a level: use off"),
        ("info,", "--log: '' is not a level: use off"),
        (
            "vritio=debug",
            "--log: 'vritio' is not a module: use one of arch",
        ),
        ("virtio=loud", "--log: 'loud' is not a level: use off"),
        ("info,warn", "--log: 'warn' comes twice: keep one"),
        (
            "vmm=info,vmm=info",
            "--log: 'vmm=info' comes twice: keep one",
        ),
    ] {
        let problem = Levels::parse(text).unwrap_err().to_string();
        assert!(problem.starts_with(message), "{problem}");
    }
}
