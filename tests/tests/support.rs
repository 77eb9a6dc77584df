//! The support library itself: a program's end, its words and its waiting are seen.

use fairlead_tests::{Environment, Program};

#[test]
fn a_program_that_is_told_nonsense_says_so_and_fails() {
    let environment = Environment::new();
    for program in [Program::Proxy, Program::Watcher, Program::Certs, Program::Cli] {
        let finished = environment.run(program, &["--no-such-option"]);
        assert!(!finished.status.success(), "{program:?}");
        assert!(
            finished.stderr.contains("--no-such-option"),
            "{program:?}: {}",
            finished.stderr
        );
    }
}
