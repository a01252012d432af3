//! The command line of the verbs for people.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail, ensure};

/// How a lab is to be brought up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UpOptions {
    pub once: bool,
    pub json: bool,
    /// What is applied, instead of our own application.
    pub manifests: Option<PathBuf>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verb {
    Help,
    Up(UpOptions),
    Exec { id: Option<String>, host: String, command: Vec<String> },
    Logs { id: Option<String>, node: String },
    Env { id: Option<String> },
    Down { id: Option<String> },
    Packets,
}

pub(super) fn parse(arguments: Vec<String>) -> Result<Verb> {
    let mut words = arguments.into_iter().peekable();
    let verb = words.next_if(|word| !word.starts_with('-')).unwrap_or_else(|| "up".to_owned());
    if words.peek().is_some_and(|word| word == "--help" || word == "-h") {
        return Ok(Verb::Help);
    }
    match verb.as_str() {
        "help" => Ok(Verb::Help),
        "up" => up(words).map(Verb::Up),
        "exec" => exec(words.collect()),
        "logs" => logs(words.collect()),
        "env" => only_id(words.collect()).map(|id| Verb::Env { id }),
        "down" => only_id(words.collect()).map(|id| Verb::Down { id }),
        "packets" => nothing(words.next()).map(|()| Verb::Packets),
        other => bail!("lab knows no {other}; `lab --help` says what it knows"),
    }
}

fn up(mut words: impl Iterator<Item = String>) -> Result<UpOptions> {
    let mut options = UpOptions::default();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--once" => options.once = true,
            "-o" => {
                ensure!(words.next().is_some_and(|format| format == "json"), "-o knows json");
                options.json = true;
            }
            "--manifests" => {
                options.manifests = Some(words.next().context("--manifests needs a DIR")?.into());
            }
            _ => nothing(Some(word))?,
        }
    }
    Ok(options)
}

fn exec(words: Vec<String>) -> Result<Verb> {
    let (id, words) = id(words)?;
    let mut words = words.into_iter();
    let host = words.next().context("exec needs a HOST: node1, node2, node3, router, outside or pod/NAME")?;
    let mut command: Vec<String> = words.collect();
    if command.first().is_some_and(|word| word == "--") {
        command.remove(0);
    }
    ensure!(!command.is_empty(), "exec needs a command: lab exec {host} -- COMMAND…");
    Ok(Verb::Exec { id, host, command })
}

fn logs(words: Vec<String>) -> Result<Verb> {
    let (id, words) = id(words)?;
    let mut words = words.into_iter();
    let node = words.next().context("logs needs a NODE: node1, node2 or node3")?;
    nothing(words.next())?;
    Ok(Verb::Logs { id, node })
}

fn only_id(words: Vec<String>) -> Result<Option<String>> {
    let (id, words) = id(words)?;
    nothing(words.into_iter().next())?;
    Ok(id)
}

/// Takes `--id ID` off the front.
fn id(mut words: Vec<String>) -> Result<(Option<String>, Vec<String>)> {
    if words.first().is_none_or(|word| word != "--id") {
        return Ok((None, words));
    }
    ensure!(words.len() > 1, "--id needs an ID");
    let rest = words.split_off(2);
    Ok((words.pop(), rest))
}

fn nothing(word: Option<String>) -> Result<()> {
    match word {
        None => Ok(()),
        Some(word) => bail!("{word} is too much; see `lab --help`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Verb> {
        parse(line.split_whitespace().map(str::to_owned).collect())
    }

    #[test]
    fn up_is_the_verb_of_none() {
        assert_eq!(parsed("").unwrap(), Verb::Up(UpOptions::default()));
        let options = UpOptions { once: true, json: true, manifests: Some("m".into()) };
        assert_eq!(parsed("--once -o json --manifests m").unwrap(), Verb::Up(options));
        assert!(parsed("up -o yaml").is_err());
        assert!(parsed("up --twice").is_err());
    }

    #[test]
    fn what_is_executed_may_have_options_of_its_own() {
        let command = vec!["ls".to_owned(), "--id".to_owned()];
        let expected = Verb::Exec { id: Some("7".to_owned()), host: "node1".to_owned(), command };
        assert_eq!(parsed("exec --id 7 node1 -- ls --id").unwrap(), expected);
        assert_eq!(parsed("exec --id 7 node1 ls --id").unwrap(), expected);
        assert!(parsed("exec node1 --").is_err());
        assert_eq!(parsed("logs node2").unwrap(), Verb::Logs { id: None, node: "node2".to_owned() });
        assert!(parsed("logs").is_err());
    }
}
