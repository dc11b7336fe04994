//! What callers of runc write and clap's parser does not take: why the program has a parser of its own. When a release
//! of clap passes where these say it fails, it can be tried again.

#![forbid(unsafe_code)]

use clap::{Arg, ArgAction, Command};

fn parses(words: &[&str]) -> bool {
    let command = Command::new("offshoot")
        .arg(Arg::new("bundle").long("bundle").short('b'))
        .arg(Arg::new("detach").long("detach").short('d').action(ArgAction::SetTrue))
        .arg(Arg::new("id"));
    command.try_get_matches_from(std::iter::once(&"offshoot").chain(words)).is_ok()
}

#[test]
fn clap_takes_no_long_option_with_one_dash() {
    assert!(parses(&["--bundle", "/b", "id"]));
    // go-runc writes `-no-subreaper`; to clap that is -n, -o and so on.
    assert!(!parses(&["-bundle=/b", "-detach", "id"]));
}

#[test]
fn clap_takes_no_value_for_a_switch() {
    assert!(parses(&["--detach", "id"]));
    assert!(!parses(&["--detach=false", "id"]));
}

#[test]
fn clap_s_usage_errors_exit_with_2() {
    let error = Command::new("offshoot").try_get_matches_from(["offshoot", "--nope"]).unwrap_err();
    assert_eq!(error.exit_code(), 2);
}
