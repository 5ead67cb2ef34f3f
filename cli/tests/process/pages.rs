//! Completions and manual pages.

use super::command::run;

#[test]
fn there_are_completions_for_three_shells() {
    for (shell, mark) in [
        ("bash", "complete -F _cuddy"),
        ("zsh", "#compdef cuddy"),
        ("fish", "complete -c cuddy"),
    ] {
        let output = run(&["completions", shell]);
        assert!(output.status.success());
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains(mark), "{shell}");
        assert!(text.contains("on-reboot"), "{shell}");
        assert!(text.contains("preserve"), "{shell}");
    }
}

#[test]
fn there_are_manual_pages() {
    for (arguments, title, content) in [
        (&["man"][..], ".TH cuddy 1", "cuddy\\-run(1)"),
        (&["man", "run"], ".TH cuddy-run 1", "\\-\\-on\\-reboot"),
        (&["man", "check"], ".TH cuddy-check 1", "\\-\\-json"),
    ] {
        let output = run(arguments);
        assert!(output.status.success());
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains(title), "{text}");
        assert!(text.contains(content), "{text}");
        assert!(text.contains("EXIT STATUS"), "{text}");
        assert!(text.contains("the guest crashed"), "{text}");
    }
}

#[test]
fn help_names_the_exit_status() {
    for arguments in [&["--help"][..], &["run", "--help"]] {
        let output = run(arguments);
        assert!(output.status.success());
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains("128+N"), "{text}");
    }
}
