//! From the text of a file to cases: every key, every bound, every name that has to exist.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde::Deserialize;
use toml::Spanned;

use crate::case::{Case, Ids, Request};
use crate::judge::Expect;
use crate::node::{Node, Table};
use crate::{CASES_MAX, CONFIG_BYTES_MAX, DECISIONS_MAX, Error, NODES_MAX, TEXT_BYTES_MAX, json};

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct File {
    config: Option<Spanned<toml::Table>>,
    #[serde(default)]
    node: Vec<Spanned<Table>>,
    #[serde(default)]
    case: Vec<Spanned<CaseTable>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct CaseTable {
    name: String,
    request: Spanned<RequestTable>,
    config: Option<Spanned<toml::Table>>,
    #[serde(default)]
    seed: u32,
    #[serde(default = "time")]
    time: u32,
    #[serde(default = "yes")]
    place: bool,
    #[serde(default)]
    node: BTreeMap<String, Spanned<Table>>,
    expect: Option<Spanned<Expect>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RequestTable {
    r#type: String,
    #[serde(default = "id")]
    id: String,
    count: Option<usize>,
    group: Option<String>,
    group_size: Option<usize>,
    requester: Option<String>,
    previous: Option<String>,
    #[serde(default)]
    require: BTreeMap<String, String>,
    #[serde(default = "one")]
    demand: u32,
    demand_max: Option<u32>,
    #[serde(default)]
    priority: i32,
    #[serde(default)]
    latencies: BTreeMap<String, u32>,
}

fn time() -> u32 {
    1_700_000_000
}

fn yes() -> bool {
    true
}

fn id() -> String {
    "p".to_owned()
}

fn one() -> u32 {
    1
}

/// Turns places in the text into lines.
struct Lines<'a>(&'a str);

impl Lines<'_> {
    fn line(&self, at: usize) -> usize {
        let before = self.0.as_bytes().iter().take(at);
        before.filter(|&&byte| byte == b'\n').count() + 1
    }

    fn error<T>(&self, at: &Spanned<T>, what: impl Into<String>) -> Error {
        Error {
            line: Some(self.line(at.span().start)),
            what: what.into(),
        }
    }
}

fn whole_file(what: String) -> Error {
    Error { line: None, what }
}

/// Reads a file.
pub(crate) fn parse(text: &str) -> Result<Vec<Case>, Error> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(whole_file(format!("over {TEXT_BYTES_MAX} bytes")));
    }
    let lines = Lines(text);
    let file: File = toml::from_str(text).map_err(|error| Error {
        line: error.span().map(|span| lines.line(span.start)),
        what: error.message().to_owned(),
    })?;
    if file.case.is_empty() || file.case.len() > CASES_MAX {
        let cases = file.case.len();
        return Err(whole_file(format!(
            "{cases} cases; it has to be 1 to {CASES_MAX}"
        )));
    }
    let config = config(file.config.as_ref(), &lines)?;
    let nodes = Nodes::new(&file.node, &lines)?;
    let mut decisions = 0;
    let mut cases = Vec::with_capacity(file.case.len());
    for table in &file.case {
        let case = case(table, &nodes, config.as_deref(), &lines)?;
        decisions += case.count() * if case.expect.moved.is_some() { 2 } else { 1 };
        if decisions > DECISIONS_MAX {
            let what = format!("more than {DECISIONS_MAX} decisions up to this case");
            return Err(lines.error(table, what));
        }
        cases.push(case);
    }
    Ok(cases)
}

/// The nodes of the file, and how they are called.
struct Nodes {
    all: Arc<[Node]>,
    /// Places by name; those of a `[[node]]` with a count under its name as well.
    places: HashMap<String, Vec<usize>>,
}

impl Nodes {
    fn new(tables: &[Spanned<Table>], lines: &Lines<'_>) -> Result<Self, Error> {
        let mut all = Vec::new();
        let mut places: HashMap<String, Vec<usize>> = HashMap::new();
        for spanned in tables {
            let table = spanned.get_ref();
            let wrong = |what: String| lines.error(spanned, what);
            let name = table.name.as_ref();
            let name = name.ok_or_else(|| wrong("a node needs a `name`".to_owned()))?;
            if table.absent {
                return Err(wrong("`absent` is for the nodes of a case".to_owned()));
            }
            if all.len() + table.count.unwrap_or(1) > NODES_MAX || table.count == Some(0) {
                return Err(wrong(format!("it has to be 1 to {NODES_MAX} nodes in all")));
            }
            let mut add = |name: String| {
                bounded("a node's name", &name, NAME_BYTES_MAX)?;
                let letter = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
                if !name.chars().all(letter) {
                    return Err(format!(
                        "`{name}` has other than letters, digits, '.', '_' and '-'"
                    ));
                }
                if places.insert(name.clone(), vec![all.len()]).is_some() {
                    return Err(format!("a second node `{name}`"));
                }
                all.push(table.node(name)?);
                Ok(all.len() - 1)
            };
            match table.count {
                None => drop(add(name.clone()).map_err(wrong)?),
                Some(count) => {
                    let names = (0..count).map(|at| format!("{name}-{at}"));
                    let made: Vec<_> = names.map(add).collect::<Result<_, _>>().map_err(wrong)?;
                    if places.insert(name.clone(), made).is_some() {
                        return Err(wrong(format!("a second node `{name}`")));
                    }
                }
            }
        }
        Ok(Self {
            all: all.into(),
            places,
        })
    }

    /// The place of the one node that is called so.
    fn one(&self, name: &str) -> Result<usize, String> {
        match self.places.get(name).map(Vec::as_slice) {
            Some([place]) => Ok(*place),
            Some(_) => Err(format!("`{name}` is more than one node")),
            None => Err(format!("no node `{name}`")),
        }
    }
}

const NAME_BYTES_MAX: usize = 64;
const TEXT_MAX: usize = 256;
const LABELS_MAX: usize = 32;
const CAPACITY_MAX: u32 = 1_000_000;
const PRIORITY_MAX: i32 = 1_000;

fn bounded(what: &str, text: &str, bytes_max: usize) -> Result<(), String> {
    if (1..=bytes_max).contains(&text.len()) {
        Ok(())
    } else {
        Err(format!("{what} has to be 1 to {bytes_max} bytes"))
    }
}

fn case(
    spanned: &Spanned<CaseTable>,
    nodes: &Nodes,
    usual: Option<&str>,
    lines: &Lines<'_>,
) -> Result<Case, Error> {
    let table = spanned.get_ref();
    let own = config(table.config.as_ref(), lines)?;
    let different = different(table, nodes, lines)?;
    let (request, ids) = request(&table.request, table.seed, nodes, lines)?;
    let expect = table.expect.as_ref();
    let case = Case {
        name: table.name.clone(),
        line: lines.line(spanned.span().start),
        config: own.or(usual.map(str::to_owned)).unwrap_or("{}".to_owned()),
        request,
        time: table.time,
        place: table.place,
        base: Arc::clone(&nodes.all),
        different,
        ids,
        expect: expect.map_or_else(Expect::default, |expect| expect.get_ref().clone()),
    };
    if let Some(expect) = expect {
        let found = case.nodes();
        let known = |name: &str| found.iter().any(|node| node.name == name);
        expect
            .get_ref()
            .check(&known, &found)
            .map_err(|what| lines.error(expect, what))?;
    }
    Ok(case)
}

/// The nodes that are different in a case.
fn different(
    table: &CaseTable,
    nodes: &Nodes,
    lines: &Lines<'_>,
) -> Result<BTreeMap<usize, Option<Node>>, Error> {
    let mut different = BTreeMap::new();
    // Groups before single nodes: what is said of one node stands.
    let mut tables: Vec<_> = table.node.iter().collect();
    tables.sort_by_key(|(name, _)| nodes.places.get(*name).is_some_and(|all| all.len() == 1));
    for (name, spanned) in tables {
        let table = spanned.get_ref();
        let wrong = |what: String| lines.error(spanned, what);
        if table.name.is_some() || table.count.is_some() {
            return Err(wrong("a case changes nodes, it makes none".to_owned()));
        }
        let places = nodes.places.get(name);
        for &place in places.ok_or_else(|| wrong(format!("no node `{name}`")))? {
            let node = match different.get(&place) {
                Some(Some(node)) => node,
                _ => &nodes.all[place],
            };
            let node = (!table.absent).then(|| table.over(node));
            let node = node.transpose().map_err(wrong)?;
            different.insert(place, node);
        }
    }
    Ok(different)
}

fn request(
    spanned: &Spanned<RequestTable>,
    seed: u32,
    nodes: &Nodes,
    lines: &Lines<'_>,
) -> Result<(Request, Ids), Error> {
    let table = spanned.get_ref();
    check_request(table, nodes).map_err(|what| lines.error(spanned, what))?;
    let request = Request {
        process_type: table.r#type.clone(),
        requester: table.requester.clone(),
        previous: table.previous.clone(),
        require: table.require.clone(),
        priority: table.priority,
        latencies: table.latencies.clone(),
    };
    let ids = Ids {
        id: table.id.clone(),
        count: table.count,
        group: table.group.clone(),
        group_size: table.group_size,
        demand: (table.demand, table.demand_max.unwrap_or(table.demand)),
        seed,
    };
    Ok((request, ids))
}

fn check_request(table: &RequestTable, nodes: &Nodes) -> Result<(), String> {
    bounded("`type`", &table.r#type, NAME_BYTES_MAX)?;
    let name = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-');
    if !table.r#type.bytes().all(name) {
        return Err("`type` has to be of a-z, 0-9, _ and -".to_owned());
    }
    // Room for the number that follows.
    bounded("`id`", &table.id, TEXT_MAX - 8)?;
    if table.id.chars().any(char::is_control) {
        return Err("`id` has control characters".to_owned());
    }
    if let Some(group) = &table.group {
        bounded("`group`", group, TEXT_MAX - 8)?;
    } else if table.group_size.is_some() {
        return Err("`group-size` needs a `group`".to_owned());
    }
    if table.group_size == Some(0) {
        return Err("`group-size` has to be at least 1".to_owned());
    }
    if table
        .count
        .is_some_and(|count| !(1..=DECISIONS_MAX).contains(&count))
    {
        return Err(format!("`count` has to be 1 to {DECISIONS_MAX}"));
    }
    for name in [&table.requester, &table.previous].into_iter().flatten() {
        nodes.one(name)?;
    }
    if table.require.len().max(table.latencies.len()) > LABELS_MAX {
        return Err(format!(
            "`require` and `latencies` take {LABELS_MAX} at most"
        ));
    }
    let most = table.demand_max.unwrap_or(table.demand);
    if table.demand == 0 || most < table.demand || most > CAPACITY_MAX {
        return Err(format!(
            "`demand` and `demand-max` have to be 1 to {CAPACITY_MAX}, in that order"
        ));
    }
    if table.priority.unsigned_abs() > PRIORITY_MAX.unsigned_abs() {
        return Err(format!(
            "`priority` has to be -{PRIORITY_MAX} to {PRIORITY_MAX}"
        ));
    }
    Ok(())
}

fn config(
    table: Option<&Spanned<toml::Table>>,
    lines: &Lines<'_>,
) -> Result<Option<String>, Error> {
    let Some(table) = table else { return Ok(None) };
    let value = toml::Value::Table(table.get_ref().clone());
    let text = json::text(&value).map_err(|what| lines.error(table, what))?;
    if text.len() > CONFIG_BYTES_MAX {
        let what = format!(
            "a configuration of {} bytes; {CONFIG_BYTES_MAX} at most",
            text.len()
        );
        return Err(lines.error(table, what));
    }
    Ok(Some(text))
}
