//! The grammar of Go's `pflag`, which upstream's command line has: a table of flags in, assignments out.
//!
//! Compatible down to the messages, since wrappers look for them: repeats, bundled shorthands, `--name=value` as
//! the only way to say false, base-prefixed numbers aside. Written here because no parser in reach leaves usage
//! text, messages and exit codes to its user.
//!
//! Deliberately absent: negations, abbreviations, one dash before a long name.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::Duration;

/// How the value of a flag is written, and where it goes.
pub(crate) enum Store<T> {
    Bool(fn(&mut T, bool)),
    Text(fn(&mut T, String)),
    /// Negative durations are durations of their grammar.
    Duration(fn(&mut T, Signed)),
    /// The width in bits is checked.
    Unsigned(u32, fn(&mut T, u64)),
    /// The items of one occurrence; whether it is the first, and replaces the default.
    List(fn(&mut T, Vec<String>, bool)),
    /// Of numbers of 32 bits.
    Numbers(fn(&mut T, Vec<u32>, bool)),
    Addresses(fn(&mut T, Vec<IpAddr>, bool)),
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
            Store::Unsigned(..) => " uint",
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
            Store::Unsigned(bits, store) => parse_unsigned(value, bits).map(|value| store(target, value)),
            Store::List(store) => parse_record(value).map(|items| store(target, items, first)),
            Store::Numbers(store) => parse_numbers(value).map(|items| store(target, items, first)),
            Store::Addresses(store) => parse_addresses(value).map(|items| store(target, items, first)),
        };
        parsed.map_err(|reason| {
            let short = self.short.map_or(String::new(), |short| format!("-{short}, "));
            format!("invalid argument {value:?} for \"{short}--{}\" flag: {reason}", self.name)
        })
    }
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

/// Go's words for true and false.
pub(crate) fn parse_bool(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
        _ => Err(format!("strconv.ParseBool: parsing {text:?}: invalid syntax")),
    }
}

/// Go's unsigned integers with a base prefix; `_` may separate digits where there is one.
pub(crate) fn parse_unsigned(text: &str, bits: u32) -> Result<u64, String> {
    let failed = |why| format!("strconv.ParseUint: parsing {text:?}: {why}");
    let lower = text.to_ascii_lowercase();
    let (digits, radix) = match lower.get(..2) {
        Some("0x") => (&lower[2..], 16),
        Some("0o") => (&lower[2..], 8),
        Some("0b") => (&lower[2..], 2),
        _ if lower.len() > 1 && lower.starts_with('0') => (&lower[1..], 8),
        _ => (lower.as_str(), 10),
    };
    let clean = digits.replace('_', "");
    let misplaced =
        digits.contains("__") || digits.ends_with('_') || (radix == 10 && digits.starts_with('_'));
    if misplaced || clean.is_empty() || !clean.chars().all(|digit| digit.is_digit(radix)) {
        return Err(failed("invalid syntax"));
    }
    let value = u64::from_str_radix(&clean, radix).ok().filter(|value| bits >= 64 || value >> bits == 0);
    value.ok_or_else(|| failed("value out of range"))
}

/// Numbers of base ten, without spaces.
fn parse_numbers(text: &str) -> Result<Vec<u32>, String> {
    let parse = |item: &str| {
        let why = match item.parse::<u64>() {
            _ if item.is_empty() || !item.bytes().all(|digit| digit.is_ascii_digit()) => "invalid syntax",
            Ok(value) => match u32::try_from(value) {
                Ok(value) => return Ok(value),
                Err(_) => "value out of range",
            },
            Err(_) => "value out of range",
        };
        Err(format!("strconv.ParseUint: parsing {item:?}: {why}"))
    };
    text.split(',').map(parse).collect()
}

/// Addresses; quotes are dropped, and spaces around items.
fn parse_addresses(text: &str) -> Result<Vec<IpAddr>, String> {
    let clean = text.replace(['"', '\'', '`'], "");
    if clean.trim().is_empty() {
        return Ok(Vec::new());
    }
    let parse = |item: &str| {
        let item = item.trim();
        item.parse().map_err(|_| format!("invalid string being converted to IP address: {item}"))
    };
    clean.split(',').map(parse).collect()
}

/// Go's durations: signed decimals with a unit, one after the other; `0` needs none.
pub(crate) fn parse_duration(text: &str) -> Result<Signed, String> {
    let invalid = || format!("time: invalid duration {text:?}");
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let negative = text.starts_with('-');
    if unsigned == "0" {
        return Ok(Signed { negative: false, length: Duration::ZERO });
    }
    if unsigned.is_empty() {
        return Err(invalid());
    }
    let mut nanoseconds: u128 = 0;
    let mut rest = unsigned;
    while !rest.is_empty() {
        let (whole, after) = digits(rest);
        let (fraction, after) = after.strip_prefix('.').map_or(("", after), digits);
        if whole.is_empty() && fraction.is_empty() {
            return Err(invalid());
        }
        let end = after.find(|letter: char| letter == '.' || letter.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        if unit.is_empty() {
            return Err(format!("time: missing unit in duration {text:?}"));
        }
        let scale = scale(unit).ok_or_else(|| format!("time: unknown unit {unit:?} in duration {text:?}"))?;
        let number = amount(whole, fraction, scale).ok_or_else(invalid)?;
        nanoseconds = nanoseconds.checked_add(number).ok_or_else(invalid)?;
        rest = after;
    }
    let within = u64::try_from(nanoseconds).ok().filter(|length| i64::try_from(*length).is_ok());
    Ok(Signed { negative, length: Duration::from_nanos(within.ok_or_else(invalid)?) })
}

fn digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len()))
}

/// Nanoseconds of `whole`.`fraction` units of `scale` nanoseconds; digits below one nanosecond do not count.
fn amount(whole: &str, fraction: &str, scale: u128) -> Option<u128> {
    let number = |digits: &str| if digits.is_empty() { Some(0) } else { digits.parse::<u128>().ok() };
    let fraction = fraction.get(..fraction.len().min(15))?;
    let power = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
    let part = number(fraction)?.checked_mul(scale)?.checked_div(power)?;
    number(whole)?.checked_mul(scale)?.checked_add(part)
}

fn scale(unit: &str) -> Option<u128> {
    Some(match unit {
        "ns" => 1,
        "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    })
}

/// The items of one CSV record (RFC 4180): commas between them, quotes around what holds one. Nothing is no item.
pub(crate) fn parse_record(text: &str) -> Result<Vec<String>, String> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let mut items = Vec::new();
    let mut rest = Some(text);
    while let Some(text) = rest {
        let (item, after) = match text.strip_prefix('"') {
            Some(quoted) => quoted_item(quoted)?,
            None => text
                .split_once(',')
                .map_or((text.to_owned(), None), |(item, after)| (item.to_owned(), Some(after))),
        };
        if !text.starts_with('"') && item.contains('"') {
            return Err("parse error: bare \" in non-quoted field".to_owned());
        }
        items.push(item);
        rest = after;
    }
    Ok(items)
}

/// An item up to its closing quote, where two quotes are one; then what follows the comma.
fn quoted_item(text: &str) -> Result<(String, Option<&str>), String> {
    let mut item = String::new();
    let mut rest = text;
    loop {
        let (part, after) =
            rest.split_once('"').ok_or("parse error: extraneous or missing \" in quoted field")?;
        item.push_str(part);
        if let Some(after) = after.strip_prefix('"') {
            item.push('"');
            rest = after;
        } else if after.is_empty() {
            return Ok((item, None));
        } else {
            let after =
                after.strip_prefix(',').ok_or("parse error: extraneous or missing \" in quoted field")?;
            return Ok((item, Some(after)));
        }
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
            store: Store::List(|t, v, first| {
                if first {
                    t.list.clear();
                }
                t.list.extend(v);
            }),
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
    fn durations_are_gos() {
        let rows: [(&str, i128); 13] = [
            ("0", 0),
            ("-0", 0),
            ("90s", 90_000_000_000),
            ("1h30m", 5_400_000_000_000),
            ("1.5h", 5_400_000_000_000),
            (".5s", 500_000_000),
            ("1.s", 1_000_000_000),
            ("-2ms", -2_000_000),
            ("+3us", 3_000),
            ("1\u{b5}s", 1_000),
            ("1\u{3bc}s", 1_000),
            ("1m1m", 120_000_000_000),
            ("0.0000000001s", 0),
        ];
        for (text, expected) in rows {
            let parsed = parse_duration(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            let length = i128::try_from(parsed.length.as_nanos()).unwrap();
            assert_eq!(if parsed.negative { -length } else { length }, expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_says_why() {
        let rows = [
            ("", "time: invalid duration \"\""),
            ("90", "time: missing unit in duration \"90\""),
            ("s", "time: invalid duration \"s\""),
            (".s", "time: invalid duration \".s\""),
            ("-", "time: invalid duration \"-\""),
            ("1d", "time: unknown unit \"d\" in duration \"1d\""),
            ("1 s", "time: unknown unit \" s\" in duration \"1 s\""),
            ("293y", "time: unknown unit \"y\" in duration \"293y\""),
            ("2562048h", "time: invalid duration \"2562048h\""),
            (
                "99999999999999999999999999999999999999999s",
                "time: invalid duration \"99999999999999999999999999999999999999999s\"",
            ),
        ];
        for (text, expected) in rows {
            assert_eq!(parse_duration(text), Err(expected.to_owned()));
        }
    }

    #[test]
    fn a_list_is_one_csv_record() {
        assert_eq!(parse_record("a, b").unwrap(), ["a", " b"]);
        assert_eq!(parse_record("\"a,b\",\"say \"\"x\"\"\",").unwrap(), ["a,b", "say \"x\"", ""]);
        assert_eq!(parse_record("a\"b"), Err("parse error: bare \" in non-quoted field".to_owned()));
        assert!(parse_record("\"a").is_err());
        assert!(parse_record("\"a\"b").is_err());
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

    #[test]
    fn unsigned_numbers_have_bases_and_widths() {
        let rows = [("179", 179), ("0x1f", 31), ("010", 8), ("0o17", 15), ("0b1", 1), ("0x1_000", 4096)];
        for (text, value) in rows {
            assert_eq!(parse_unsigned(text, 32), Ok(value), "{text}");
        }
        for text in ["", "-1", "1 ", "0x", "09", "a", "1__0", "_1"] {
            let message = format!("strconv.ParseUint: parsing {text:?}: invalid syntax");
            assert_eq!(parse_unsigned(text, 32), Err(message), "{text}");
        }
        assert_eq!(parse_unsigned("65535", 16), Ok(65_535));
        assert!(parse_unsigned("65536", 16).unwrap_err().ends_with("value out of range"));
    }

    #[test]
    fn lists_of_numbers_and_addresses_name_the_item_that_is_wrong() {
        assert_eq!(parse_numbers("64512,65000"), Ok(vec![64_512, 65_000]));
        for text in ["", "1,,2", "1, 2", "0x1", "4294967296"] {
            assert!(parse_numbers(text).is_err(), "{text}");
        }
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        assert_eq!(parse_addresses("192.0.2.1, '::1'"), Ok(vec![address("192.0.2.1"), address("::1")]));
        assert_eq!(parse_addresses(""), Ok(vec![]));
        assert_eq!(
            parse_addresses("192.0.2.1,x"),
            Err("invalid string being converted to IP address: x".to_owned())
        );
    }
}
