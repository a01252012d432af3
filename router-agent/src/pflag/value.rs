//! How values are written, and what is said of one that is not: as Go's `strconv`, `time` and `csv` have it.

use std::net::IpAddr;
use std::time::Duration;

use super::Signed;

/// Go's words for true and false.
pub(super) fn parse_bool(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
        _ => Err(format!("strconv.ParseBool: parsing {text:?}: invalid syntax")),
    }
}

/// Go's unsigned integers with a base prefix; `_` may separate digits where there is one.
pub(super) fn parse_unsigned<N: TryFrom<u64>>(text: &str) -> Result<N, String> {
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
    let value = u64::from_str_radix(&clean, radix).ok().and_then(|value| N::try_from(value).ok());
    value.ok_or_else(|| failed("value out of range"))
}

/// Numbers of base ten, without spaces.
pub(super) fn parse_numbers(text: &str) -> Result<Vec<u32>, String> {
    let parse = |item: &str| {
        let failed = |why| format!("strconv.ParseUint: parsing {item:?}: {why}");
        if item.is_empty() || !item.bytes().all(|digit| digit.is_ascii_digit()) {
            return Err(failed("invalid syntax"));
        }
        item.parse().map_err(|_| failed("value out of range"))
    };
    text.split(',').map(parse).collect()
}

/// Addresses; quotes are dropped, and spaces around items.
pub(super) fn parse_addresses(text: &str) -> Result<Vec<IpAddr>, String> {
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
pub(super) fn parse_duration(text: &str) -> Result<Signed, String> {
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
pub(super) fn parse_record(text: &str) -> Result<Vec<String>, String> {
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

    #[test]
    fn unsigned_numbers_have_bases_and_widths() {
        let rows = [("179", 179), ("0x1f", 31), ("010", 8), ("0o17", 15), ("0b1", 1), ("0x1_000", 4096)];
        for (text, value) in rows {
            assert_eq!(parse_unsigned::<u32>(text), Ok(value), "{text}");
        }
        for text in ["", "-1", "1 ", "0x", "09", "a", "1__0", "_1"] {
            let message = format!("strconv.ParseUint: parsing {text:?}: invalid syntax");
            assert_eq!(parse_unsigned::<u32>(text), Err(message), "{text}");
        }
        assert_eq!(parse_unsigned::<u16>("65535"), Ok(65_535));
        assert!(parse_unsigned::<u16>("65536").unwrap_err().ends_with("value out of range"));
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
}
