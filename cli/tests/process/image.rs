//! `cuddy image`.

use std::fs;
use std::path::Path;

use rustix::process::Signal;

use super::command::{self, run, send, until};

fn cuddy(folder: &Path, arguments: &str) -> (bool, String, String) {
    let arguments: Vec<String> = arguments
        .split(' ')
        .map(|word| match word.strip_prefix('@') {
            Some(name) => folder.join(name).to_str().unwrap().to_owned(),
            None => word.to_owned(),
        })
        .collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let output = run(&arguments);
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        output.status.success(),
        text(output.stdout),
        text(output.stderr),
    )
}

#[test]
fn images_go_from_creation_to_conversion() {
    let folder = tempfile::tempdir().unwrap();
    let done = |arguments: &str| {
        let (success, output, errors) = cuddy(folder.path(), arguments);
        assert!(success && errors.is_empty(), "{arguments}: {errors}");
        output
    };
    done("image create @disk.raw 1M");
    fs::write(folder.path().join("disk.raw"), vec![0x33; 1 << 20]).unwrap();
    done("image convert @disk.raw @disk.qcow2 --to qcow2 --cluster-size 4K");
    done("image create @top.qcow2 --format qcow2 --backing disk.qcow2 --backing-format qcow2");
    done("image resize @top.qcow2 2M --format qcow2");
    let described = done("image info @top.qcow2");
    for line in [
        "format              qcow2",
        "2M (2097152 bytes)",
        "disk.qcow2 (qcow2)",
    ] {
        assert!(described.contains(line), "{described}");
    }
    let json: serde_json::Value =
        serde_json::from_str(&done("image info @disk.qcow2 --json")).unwrap();
    assert_eq!(json["size-bytes"], 1 << 20);
    assert_eq!(json["qcow2"]["cluster-bytes"], 4096);
    done("image convert @top.qcow2 @again.raw --from qcow2 --to raw");
    let mut expected = vec![0x33; 1 << 20];
    expected.resize(2 << 20, 0);
    assert!(fs::read(folder.path().join("again.raw")).unwrap() == expected);
}

#[test]
fn what_cannot_be_done_is_said_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    for (arguments, words) in [
        ("image create @new.raw", "how large?"),
        (
            "image create @new.raw 1M --cluster-size 4K",
            "use --format qcow2",
        ),
        ("image info @nothing", "cannot open it"),
        ("image resize @nothing 1M", "no such file"),
        ("image convert @nothing @new --to raw", "no such file"),
    ] {
        let (success, output, errors) = cuddy(folder.path(), arguments);
        assert!(!success && output.is_empty(), "{arguments}");
        assert_eq!(errors.lines().count(), 1, "{errors}");
        assert!(
            errors.starts_with("cuddy: ") && errors.contains(words),
            "{errors}"
        );
    }
    // A raw disk with the head of another is a raw one, and somebody is told.
    cuddy(folder.path(), "image create @disk.qcow2 1M --format qcow2");
    let (success, _, errors) = cuddy(folder.path(), "image convert @disk.qcow2 @copy --to raw");
    let bytes = |name| fs::metadata(folder.path().join(name)).unwrap().len();
    if bytes("disk.qcow2") % 512 == 0 {
        assert!(success && bytes("copy") == bytes("disk.qcow2"), "{errors}");
    }
    assert!(errors.contains("format=qcow2"), "{errors}");
}

#[test]
fn nothing_is_left_of_a_conversion_that_is_interrupted() {
    for signal in [Signal::INT, Signal::KILL] {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("disk.raw");
        // Zeros for a long time.
        let file = fs::File::create(&source).unwrap();
        file.set_len(1 << 40).unwrap();
        let target = folder.path().join("copy.qcow2");
        let arguments = ["image", "convert"].into_iter().chain([
            source.to_str().unwrap(),
            target.to_str().unwrap(),
            "--to",
            "qcow2",
        ]);
        let arguments: Vec<_> = arguments.collect();
        let mut child = command::cuddy(&arguments).spawn().unwrap();
        let open_files = format!("/proc/{}/fd", child.id());
        until("the copy is there", || {
            fs::read_dir(&open_files).is_ok_and(|files| {
                let opened = files
                    .flatten()
                    .filter_map(|file| fs::read_link(file.path()).ok());
                let mut copies =
                    opened.filter(|path| path.starts_with(folder.path()) && *path != source);
                copies.next().is_some()
            })
        });
        send(&child, signal);
        assert!(!command::wait(&mut child).success());
        let left: Vec<_> = fs::read_dir(folder.path()).unwrap().flatten().collect();
        assert_eq!(left.len(), 1, "{left:?}");
    }
}
