//! `cuddy image`.

use std::fs;
use std::os::unix::fs::FileExt;
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
fn an_image_is_checked_mended_and_has_snapshots() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk.qcow2");
    let status = |arguments: &str| {
        let words: Vec<_> = arguments
            .split(' ')
            .map(|word| word.replace('@', &format!("{}/", folder.path().display())))
            .collect();
        let words: Vec<_> = words.iter().map(String::as_str).collect();
        let output = run(&words);
        let text = String::from_utf8(output.stdout).unwrap();
        (output.status.code().unwrap(), text)
    };
    cuddy(folder.path(), "image create @disk.raw 1M");
    fs::write(folder.path().join("disk.raw"), vec![0x33; 1 << 20]).unwrap();
    let arguments = "image convert @disk.raw @disk.qcow2 --to qcow2 --cluster-size 4K";
    assert!(cuddy(folder.path(), arguments).0);
    let (code, text) = status("image check @disk.qcow2");
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("sound: "), "{text}");
    assert_eq!(status("image snapshot create @disk.qcow2 first").0, 0);
    assert_eq!(status("image snapshot create @disk.qcow2 first").0, 1);
    let (_, text) = status("image snapshot list @disk.qcow2");
    assert!(
        text.starts_with("1  first  20") && text.contains("1M"),
        "{text}"
    );
    let (_, text) = status("image snapshot list @disk.qcow2 --json");
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(json[0]["disk-bytes"], 1 << 20);
    assert_eq!(status("image snapshot apply @disk.qcow2 first").0, 0);
    let (code, _) = status("image convert @disk.qcow2 @copy.raw --to raw --snapshot first");
    assert_eq!(code, 0);
    assert!(fs::read(folder.path().join("copy.raw")).unwrap() == vec![0x33; 1 << 20]);
    assert_eq!(status("image snapshot delete @disk.qcow2 1").0, 0);
    assert_eq!(status("image snapshot delete @disk.qcow2 1").0, 1);
    // A cluster that nobody has, and a count that is too low.
    let file = fs::File::options()
        .read(true)
        .write(true)
        .open(&path)
        .unwrap();
    let number = |at| {
        let mut bytes = [0; 8];
        file.read_exact_at(&mut bytes, at).unwrap();
        u64::from_be_bytes(bytes)
    };
    let clusters = file.metadata().unwrap().len().div_ceil(4096);
    file.set_len((clusters + 1) * 4096).unwrap();
    let block = number(number(48));
    file.write_all_at(&[0, 1], block + clusters * 2).unwrap();
    let (code, text) = status("image check @disk.qcow2");
    assert!(code == 3 && text.contains("1 cluster (4K) lost"), "{text}");
    let (code, text) = status("image check @disk.qcow2 --repair leaks");
    assert!(
        code == 0 && text.contains("given back: 1 cluster (4K)"),
        "{text}"
    );
    file.write_all_at(&[0, 0], block).unwrap();
    let (code, text) = status("image check @disk.qcow2 --json");
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert!(code == 2 && json["damaged"] == true, "{text}");
    let (code, text) = status("image check @disk.qcow2 --repair leaks");
    assert!(
        code == 2 && text.contains("--repair all mends it"),
        "{text}"
    );
    let (code, text) = status("image check @disk.qcow2 --repair all");
    assert!(code == 0 && text.contains("mended"), "{text}");
    assert_eq!(status("image check @disk.raw").0, 1);
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
