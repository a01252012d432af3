//! The grammar of Go's `pflag`, which upstream's command line has: a table of flags in, assignments out.
//!
//! Compatible down to the messages, since wrappers look for them: repeats, bundled shorthands, `--name=value` as
//! the only way to say false, base-prefixed numbers aside. Written here because no parser in reach leaves usage
//! text, messages and exit codes to its user.
//!
//! Deliberately absent: negations, abbreviations, one dash before a long name.

mod value;

use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::Duration;

use self::value::{parse_addresses, parse_bool, parse_duration, parse_numbers, parse_record, parse_unsigned};

/// How the value of a flag is written, and where it goes.
pub(crate) enum Store<T> {
    Bool(fn(&mut T, bool)),
    Text(fn(&mut T, String)),
    /// Negative durations are durations of their grammar.
    Duration(fn(&mut T, Signed)),
    U16(fn(&mut T, u16)),
    U32(fn(&mut T, u32)),
    /// Where the items are: those of the first occurrence replace the default, those of later ones are added.
    List(fn(&mut T) -> &mut Vec<String>),
    Numbers(fn(&mut T) -> &mut Vec<u32>),
    Addresses(fn(&mut T) -> &mut Vec<IpAddr>),
}

/// A duration with a sign, as Go has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Signed {
    pub(crate) negative: bool,
    pub(crate) length: Duration,
}

/// One flag.
pub(crate) struct Flag<T> {
    pub(crate) name: &'static str,
    pub(crate) short: Option<char>,
    /// As usage shows it; empty where the default is the type's zero.
    pub(crate) default: &'static str,
    pub(crate) help: &'static str,
    pub(crate) store: Store<T>,
}

/// Parses `args` into `target`; returns the positional arguments, or the message for the first mistake.
pub(crate) fn parse<T>(flags: &[Flag<T>], target: &mut T, args: &[String]) -> Result<Vec<String>, String> {
    let mut parser = Parser { flags, target, seen: Vec::new(), rest: args.iter() };
    let mut positional = Vec::new();
    while let Some(arg) = parser.rest.next() {
        if arg == "--" {
            positional.extend(parser.rest.cloned());
            break;
        } else if let Some(long) = arg.strip_prefix("--") {
            parser.long(arg, long)?;
        } else if let Some(shorts) = arg.strip_prefix('-').filter(|shorts| !shorts.is_empty()) {
            parser.shorts(shorts)?;
        } else {
            positional.push(arg.clone());
        }
    }
    Ok(positional)
}

/// The table, as `--help` shows it.
pub(crate) fn usage<T>(program: &str, flags: &[Flag<T>]) -> String {
    let mut flags: Vec<&Flag<T>> = flags.iter().collect();
    flags.sort_by_key(|flag| flag.name);
    let lines: Vec<(String, &Flag<T>)> = flags.into_iter().map(|flag| (flag.synopsis(), flag)).collect();
    let width = lines.iter().map(|(line, _)| line.len()).max().unwrap_or(0);
    let mut text = format!("Usage of {program}:\n");
    for (line, flag) in lines {
        let default =
            if flag.default.is_empty() { String::new() } else { format!(" (default {})", flag.default) };
        // A String takes whatever is written to it.
        let _ = writeln!(text, "{line:width$}   {}{default}", flag.help);
    }
    text
}

impl<T> Flag<T> {
    fn synopsis(&self) -> String {
        let short = self.short.map_or("    ".to_owned(), |short| format!("-{short}, "));
        let kind = match self.store {
            Store::Bool(_) => "",
            Store::Text(_) => " string",
            Store::Duration(_) => " duration",
            Store::U16(_) | Store::U32(_) => " uint",
            Store::List(_) => " strings",
            Store::Numbers(_) => " uints",
            Store::Addresses(_) => " ipSlice",
        };
        format!("  {short}--{}{kind}", self.name)
    }

    fn takes_argument(&self) -> bool {
        !matches!(self.store, Store::Bool(_))
    }

    fn set(&self, target: &mut T, value: &str, first: bool) -> Result<(), String> {
        let parsed = match self.store {
            Store::Bool(store) => parse_bool(value).map(|value| store(target, value)),
            Store::Text(store) => {
                store(target, value.to_owned());
                Ok(())
            }
            Store::Duration(store) => parse_duration(value).map(|value| store(target, value)),
            Store::U16(store) => parse_unsigned(value).map(|value| store(target, value)),
            Store::U32(store) => parse_unsigned(value).map(|value| store(target, value)),
            Store::List(place) => parse_record(value).map(|items| add(place(target), items, first)),
            Store::Numbers(place) => parse_numbers(value).map(|items| add(place(target), items, first)),
            Store::Addresses(place) => parse_addresses(value).map(|items| add(place(target), items, first)),
        };
        parsed.map_err(|reason| {
            let short = self.short.map_or(String::new(), |short| format!("-{short}, "));
            format!("invalid argument {value:?} for \"{short}--{}\" flag: {reason}", self.name)
        })
    }
}

fn add<I>(list: &mut Vec<I>, items: Vec<I>, first: bool) {
    if first {
        list.clear();
    }
    list.extend(items);
}

struct Parser<'a, T> {
    flags: &'a [Flag<T>],
    target: &'a mut T,
    /// Names that have occurred.
    seen: Vec<&'static str>,
    rest: std::slice::Iter<'a, String>,
}

impl<T> Parser<'_, T> {
    fn long(&mut self, arg: &str, long: &str) -> Result<(), String> {
        if long.starts_with(['-', '=']) {
            return Err(format!("bad flag syntax: {arg}"));
        }
        let (name, value) = long.split_once('=').map_or((long, None), |(name, value)| (name, Some(value)));
        let flag = self.flags.iter().find(|flag| flag.name == name);
        let flag = flag.ok_or_else(|| format!("unknown flag: --{name}"))?;
        let value = match value {
            Some(value) => value.to_owned(),
            None if !flag.takes_argument() => "true".to_owned(),
            None => self.rest.next().cloned().ok_or_else(|| format!("flag needs an argument: --{name}"))?,
        };
        self.set(flag, &value)
    }

    fn shorts(&mut self, shorts: &str) -> Result<(), String> {
        let mut left = shorts;
        while let Some(short) = left.chars().next() {
            let after = left.split_at(short.len_utf8()).1;
            let flag = self.flags.iter().find(|flag| flag.short == Some(short));
            let flag = flag.ok_or_else(|| format!("unknown shorthand flag: {short:?} in -{left}"))?;
            let (value, next) = match after.strip_prefix('=') {
                Some(value) if !value.is_empty() => (value.to_owned(), ""),
                _ if !flag.takes_argument() => ("true".to_owned(), after),
                _ if !after.is_empty() => (after.to_owned(), ""),
                _ => {
                    let next = self.rest.next().cloned();
                    (next.ok_or_else(|| format!("flag needs an argument: {short:?} in -{left}"))?, "")
                }
            };
            self.set(flag, &value)?;
            left = next;
        }
        Ok(())
    }

    fn set(&mut self, flag: &Flag<T>, value: &str) -> Result<(), String> {
        let first = !self.seen.contains(&flag.name);
        flag.set(self.target, value, first)?;
        self.seen.push(flag.name);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default, PartialEq)]
    struct Target {
        on: bool,
        hot: bool,
        text: String,
        level: String,
        time: Option<Signed>,
        list: Vec<String>,
    }

    const FLAGS: &[Flag<Target>] = &[
        Flag {
            name: "on",
            short: Some('o'),
            default: "",
            help: "Be on.",
            store: Store::Bool(|t, v| t.on = v),
        },
        Flag {
            name: "hot",
            short: Some('H'),
            default: "true",
            help: "Be hot.",
            store: Store::Bool(|t, v| t.hot = v),
        },
        Flag {
            name: "text",
            short: None,
            default: "\"x\"",
            help: "Say it.",
            store: Store::Text(|t, v| t.text = v),
        },
        Flag {
            name: "level",
            short: Some('v'),
            default: "",
            help: "Loudness.",
            store: Store::Text(|t, v| t.level = v),
        },
        Flag {
            name: "time",
            short: None,
            default: "1m0s",
            help: "Wait.",
            store: Store::Duration(|t, v| t.time = Some(v)),
        },
        Flag {
            name: "list",
            short: None,
            default: "[d]",
            help: "Names.",
            store: Store::List(|t| &mut t.list),
        },
    ];

    fn run(args: &[&str]) -> Result<(Target, Vec<String>), String> {
        let mut target = Target { list: vec!["d".into()], ..Target::default() };
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        parse(FLAGS, &mut target, &args).map(|positional| (target, positional))
    }

    fn mistake(args: &[&str]) -> String {
        run(args).unwrap_err()
    }

    #[test]
    fn booleans_are_bare_or_have_one_of_twelve_words() {
        for word in ["1", "t", "T", "TRUE", "true", "True"] {
            assert!(run(&[&format!("--on={word}")]).unwrap().0.on, "{word}");
        }
        for word in ["0", "f", "F", "FALSE", "false", "False"] {
            assert!(!run(&["--on", &format!("--on={word}")]).unwrap().0.on, "{word}");
        }
        for word in ["", "yes", "tRUE", "2"] {
            let expected = format!(
                "invalid argument {word:?} for \"-o, --on\" flag: strconv.ParseBool: parsing {word:?}: invalid syntax"
            );
            assert_eq!(mistake(&[&format!("--on={word}")]), expected);
        }
    }

    #[test]
    fn a_word_after_a_boolean_is_positional() {
        let (target, positional) = run(&["--on", "false"]).unwrap();
        assert!(target.on);
        assert_eq!(positional, ["false"]);
    }

    #[test]
    fn a_shorthand_takes_its_value_in_three_ways() {
        for args in [&["-v3"][..], &["-v=3"], &["-v", "3"], &["--level=3"], &["--level", "3"]] {
            assert_eq!(run(args).unwrap().0.level, "3", "{args:?}");
        }
    }

    #[test]
    fn boolean_shorthands_are_bundled() {
        let (target, _) = run(&["-oHv7"]).unwrap();
        assert_eq!((target.on, target.hot, target.level.as_str()), (true, true, "7"));
        assert!(!run(&["-o=false"]).unwrap().0.on);
    }

    #[test]
    fn the_last_scalar_wins_and_lists_grow() {
        assert_eq!(run(&["--text=a", "--text", "--b"]).unwrap().0.text, "--b");
        assert_eq!(run(&[]).unwrap().0.list, ["d"]);
        assert_eq!(run(&["--list=a,b", "--list", "c"]).unwrap().0.list, ["a", "b", "c"]);
        assert_eq!(run(&["--list="]).unwrap().0.list, Vec::<String>::new());
    }

    #[test]
    fn flags_end_at_two_dashes_and_mix_with_arguments() {
        let (target, positional) = run(&["a", "--on", "-", "--", "--hot"]).unwrap();
        assert!(target.on && !target.hot);
        assert_eq!(positional, ["a", "-", "--hot"]);
    }

    #[test]
    fn mistakes_have_their_known_texts() {
        let rows: [(&[&str], &str); 9] = [
            (&["--nope"], "unknown flag: --nope"),
            (&["--ON"], "unknown flag: --ON"),
            (&["--nope=1", "--on=x"], "unknown flag: --nope"),
            (&["-text"], "unknown shorthand flag: 't' in -text"),
            (&["-ox"], "unknown shorthand flag: 'x' in -x"),
            (&["--text"], "flag needs an argument: --text"),
            (&["-v"], "flag needs an argument: 'v' in -v"),
            (&["--=x"], "bad flag syntax: --=x"),
            (&["---on"], "bad flag syntax: ---on"),
        ];
        for (args, expected) in rows {
            assert_eq!(mistake(args), expected);
        }
    }

    #[test]
    fn usage_is_sorted_aligned_and_names_defaults() {
        let expected = "\
Usage of it:
  -H, --hot             Be hot. (default true)
  -v, --level string    Loudness.
      --list strings    Names. (default [d])
  -o, --on              Be on.
      --text string     Say it. (default \"x\")
      --time duration   Wait. (default 1m0s)
";
        assert_eq!(usage("it", FLAGS), expected);
    }
}
