use super::*;

fn said(args: &[&str]) -> (String, u8) {
    let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
    match start("/usr/local/bin/kube-router", &args) {
        Start::Say(text, code) => (text, code),
        Start::Run(..) => panic!("{args:?} would run"),
    }
}

#[test]
fn a_flag_that_does_not_parse_prints_usage_then_the_message_and_ends_with_2() {
    for (args, message) in [
        (&["--nope"][..], "unknown flag: --nope"),
        (&["--help", "--nope"], "unknown flag: --nope"),
        (&["--version", "--fast-path=maybe"], "parsing \"maybe\": invalid syntax"),
    ] {
        let (text, code) = said(args);
        assert_eq!(code, 2, "{args:?}");
        assert!(text.starts_with("Usage of kube-router:\n"), "{text}");
        assert!(text.lines().last().unwrap().ends_with(message), "{text}");
    }
}

#[test]
fn positional_arguments_are_named_and_end_with_1() {
    let (text, code) = said(&["--fast-path", "false", "--help"]);
    assert_eq!(code, 1);
    assert!(text.trim_end().ends_with(": false"), "{text}");
}

#[test]
fn a_level_that_is_no_integer_ends_with_1_before_anything_else() {
    assert_eq!(said(&["-v", "much", "--help", "positional"]), ("--v: \"much\" is no integer\n".into(), 1));
}

#[test]
fn help_and_version_end_with_0() {
    let (help, code) = said(&["-hV"]);
    assert_eq!(code, 0);
    assert!(help.starts_with(&Flags::usage()) && help.ends_with(&ask::usage()), "{help}");
    let (version, code) = said(&["-V"]);
    assert_eq!(code, 0);
    let facts = version.strip_prefix("Running /usr/local/bin/kube-router version ").unwrap();
    let [number, date, toolchain] = facts.splitn(3, ", ").collect::<Vec<_>>().try_into().unwrap();
    assert!(!number.is_empty(), "{version}");
    date.strip_prefix("built on ").unwrap().parse::<jiff::Timestamp>().unwrap();
    assert!(toolchain.starts_with("rustc ") && toolchain.ends_with('\n'), "{version}");
}

#[test]
fn a_run_gets_its_level_and_flags() {
    let args = ["-v2".to_owned(), "--fast-path=false".to_owned()];
    let flags = Flags { verbosity: "2".into(), fast_path: false, ..Flags::default() };
    assert_eq!(start("kube-router", &args), Start::Run(2, Box::new(flags)));
}
