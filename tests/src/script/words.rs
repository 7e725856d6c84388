//! A command's words: positional ones, and `name=value`.

use std::collections::BTreeMap;
use std::str::FromStr;

use maitred_protocol::{Incarnation, ProcessKey};

/// The words of one command. What is not asked for is an error in the end.
pub(super) struct Words<'a> {
    line: &'a str,
    plain: std::vec::IntoIter<&'a str>,
    named: BTreeMap<&'a str, &'a str>,
}

impl<'a> Words<'a> {
    pub(super) fn new(line: &'a str) -> Self {
        let (mut plain, mut named) = (Vec::new(), BTreeMap::new());
        for word in line.split_whitespace() {
            match word.split_once('=') {
                Some((name, value)) => {
                    named.insert(name, value);
                }
                None => plain.push(word),
            }
        }
        Self {
            line,
            plain: plain.into_iter(),
            named,
        }
    }

    /// The next positional word.
    pub(super) fn next(&mut self) -> Result<&'a str, String> {
        let line = self.line;
        self.plain
            .next()
            .ok_or_else(|| format!("`{line}` lacks a word"))
    }

    pub(super) fn next_as<T: FromStr>(&mut self) -> Result<T, String>
    where
        T::Err: std::fmt::Display,
    {
        parse(self.next()?)
    }

    /// All positional words that are left, as one text.
    pub(super) fn rest(&mut self) -> String {
        let words: Vec<&str> = self.plain.by_ref().collect();
        words.join(" ")
    }

    /// The value of a name.
    pub(super) fn take<T: FromStr>(&mut self, name: &str) -> Result<Option<T>, String>
    where
        T::Err: std::fmt::Display,
    {
        self.named.remove(name).map(parse).transpose()
    }

    /// The parts of a value, which commas separate.
    pub(super) fn list<T: FromStr>(&mut self, name: &str) -> Result<Vec<T>, String>
    where
        T::Err: std::fmt::Display,
    {
        let value = self.named.remove(name).unwrap_or_default();
        let parts = value.split(',').filter(|part| !part.is_empty());
        parts.map(parse).collect()
    }

    /// Pairs `key:value`, which commas separate.
    pub(super) fn pairs(&mut self, name: &str) -> Result<Vec<(String, String)>, String> {
        let pair = |part: String| match part.split_once(':') {
            Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
            None => Err(format!("{part} is not key:value")),
        };
        self.list(name)?.into_iter().map(pair).collect()
    }

    /// Lives `key@incarnation`, which commas separate.
    pub(super) fn lives(&mut self, name: &str) -> Result<Vec<(ProcessKey, Incarnation)>, String> {
        let life = |part: String| {
            let (text, number) = part
                .rsplit_once('@')
                .ok_or_else(|| format!("{part} is not key@incarnation"))?;
            Ok((key(text)?, Incarnation(parse(number)?)))
        };
        self.list(name)?.into_iter().map(life).collect()
    }

    /// Everything has been asked for.
    pub(super) fn end(mut self) -> Result<(), String> {
        let named = self.named.first_key_value().map(|(name, _)| *name);
        match self.plain.next().or(named) {
            None => Ok(()),
            Some(word) => Err(format!("`{}`: what is {word}?", self.line)),
        }
    }
}

/// `type/id`, or an id of the type `player`.
pub(super) fn key(text: &str) -> Result<ProcessKey, String> {
    let key = match text.contains('/') {
        true => text.parse(),
        false => ProcessKey::new("player", text),
    };
    key.map_err(|error| error.to_string())
}

fn parse<T: FromStr>(text: &str) -> Result<T, String>
where
    T::Err: std::fmt::Display,
{
    text.parse().map_err(|error| format!("{text}: {error}"))
}
