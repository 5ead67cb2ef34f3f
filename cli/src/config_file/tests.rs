use std::fs::File;

use vmm::config::{ByteSize, CacheMode, SerialConfig};

use super::*;

#[test]
fn a_machine_is_read_from_toml_and_from_json() {
    let toml = r#"
        kernel = "vmlinux"
        cpus = 4
        memory = "1G"
        serial = "socket=/run/serial"
        on-reboot = "restart"

        [[disk]]
        path = "root.img"
        cache = "none"
    "#;
    let json = r#"{
        "kernel": "vmlinux", "cpus": 4, "memory": {"size": 1073741824},
        "serial": "socket=/run/serial", "on-reboot": "restart",
        "disk": [{"path": "root.img", "cache": "none"}]
    }"#;
    let config = from_toml(toml).unwrap();
    assert_eq!(config, from_json(json).unwrap());
    assert_eq!(config.cpus, 4);
    assert_eq!(config.memory.size, ByteSize(1 << 30));
    assert_eq!(config.serial, SerialConfig::Socket("/run/serial".into()));
    assert_eq!(config.disk[0].cache, CacheMode::None);
}

fn mistake(text: &str) -> (Option<usize>, String) {
    let mistake = if text.starts_with('{') {
        from_json(text).unwrap_err()
    } else {
        from_toml(text).unwrap_err()
    };
    assert!(!mistake.message.contains('\n'), "{mistake:?}");
    (mistake.line, mistake.message)
}

#[test]
fn mistakes_are_told_with_their_line_and_key() {
    for (text, line, beginning) in [
        (
            "cpus = 1\ncpu-count = 2\n",
            2,
            "unknown key 'cpu-count': use one of 'name', 'kernel'",
        ),
        ("cpus = 1\ncpus = 2\n", 2, "cpus: duplicate key: keep one"),
        ("\n\ncpus = \"many\"\n", 3, "cpus: invalid type: string"),
        ("cpus = 70000\n", 1, "cpus: invalid value: integer '70000'"),
        (
            "[[disk]]\nreadonly = true\n",
            1,
            "disk: missing key 'path': add it",
        ),
        (
            "[[disk]]\npath = \"a\"\nspeed = 1\n",
            3,
            "unknown key 'speed': use one of 'path'",
        ),
        (
            "irqchip = \"none\"\n",
            1,
            "irqchip: unknown value 'none': use 'split' or 'kernel'",
        ),
        ("cpus 1\n", 1, ""),
        (
            "{\n\"cpus\": 1,\n\"cpu-count\": 2}",
            3,
            "unknown key 'cpu-count': use one of 'name'",
        ),
        (
            "{\n\"cpus\": 1,\n\"cpus\": 2}",
            3,
            "duplicate key 'cpus': keep one",
        ),
        ("{\n\"cpus\": \"x\"}", 2, "cpus: invalid type: string"),
    ] {
        let (found, message) = mistake(text);
        assert_eq!(found, Some(line), "{text:?}: {message}");
        assert!(message.starts_with(beginning), "{text:?}: {message}");
        assert!(message.contains(": "), "{text:?}: {message}");
    }
}

#[test]
fn files_that_cannot_be_read_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let large = directory.path().join("large.toml");
    File::create(&large).unwrap().set_len(1 << 30).unwrap();
    for path in [
        Path::new("/nonexistent.toml"),
        directory.path(),
        large.as_path(),
    ] {
        let problem = read(path).unwrap_err();
        assert_eq!(problem.key, format!("--config {}", path.display()));
        assert!(
            problem.message.ends_with("that may be read"),
            "{}",
            problem.message
        );
    }
}
