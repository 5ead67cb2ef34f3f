//! The console against a shell that stands in for a guest.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::{Console, ConsoleError};

const LIMIT: Duration = Duration::from_secs(20);

/// A shell whose lines end as those of a terminal do, and which echoes as one does.
fn shell() -> (Child, Console) {
    let script = r#"
        while read -r line; do
            printf '%s\r\n' "$line"
            eval "$line" 2>&1 | sed 's/$/\r/'
        done
    "#;
    let mut child = Command::new("bash")
        .args(["-o", "pipefail", "-c", script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let console = Console::new(child.stdin.take().unwrap(), child.stdout.take().unwrap());
    (child, console)
}

#[test]
fn commands_give_their_output_and_status() {
    let (mut child, mut console) = shell();
    assert_eq!(
        console.run("echo one; echo two", LIMIT).unwrap(),
        "one\ntwo"
    );
    assert_eq!(console.run("true", LIMIT).unwrap(), "");
    match console.run("echo why; (exit 3)", LIMIT).unwrap_err() {
        ConsoleError::Status { status, output, .. } => {
            assert_eq!((status.as_str(), output.as_str()), ("3", "why"));
        }
        other => panic!("{other}"),
    }
    assert!(console.transcript().contains("echo one"));
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_missing_text_is_an_error_with_what_came() {
    let (mut child, mut console) = shell();
    console.send("echo hello\n").unwrap();
    console.expect("hello\r\n", LIMIT).unwrap();
    let error = console
        .expect("bye", Duration::from_millis(100))
        .unwrap_err();
    assert!(matches!(error, ConsoleError::Timeout { .. }), "{error}");
    child.kill().unwrap();
    let error = console.expect("bye", LIMIT).unwrap_err();
    assert!(matches!(error, ConsoleError::Ended { .. }), "{error}");
    assert!(error.to_string().contains("hello"), "{error}");
    child.wait().unwrap();
}
