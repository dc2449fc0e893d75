//! YAML to a tree that knows its places. Only what JSON can say: no anchors, aliases, tags or second document.

use saphyr_parser::{Event, Parser, ScalarStyle, Span};
use serde_json::Value;

use crate::MAX_BYTES;
use crate::problem::{Origin, Problem, Step};

/// Levels at most.
const MAX_DEPTH: usize = 32;
/// Keys of one map at most; each is compared with those before it.
const MAX_KEYS: usize = 4096;
/// Mistakes reported at most.
const MAX_PROBLEMS: usize = 100;

/// A value and where it was written.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub content: Content,
    pub origin: Origin,
}

/// A value.
#[derive(Clone, Debug)]
pub(crate) enum Content {
    /// Nothing, which means the default.
    Nothing,
    Scalar(Value),
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

/// A key and where it was written.
#[derive(Clone, Debug)]
pub(crate) struct Key {
    pub name: String,
    pub origin: Origin,
}

impl Node {
    /// The value of a key.
    pub fn get(&self, name: &str) -> Option<&Self> {
        let Content::Map(entries) = &self.content else { return None };
        entries.iter().find(|(key, _)| key.name == name).map(|(_, node)| node)
    }

    /// The node at the path, or the last one on the way that is there.
    pub fn nearest(&self, path: &[Step]) -> &Self {
        let mut node = self;
        for step in path {
            let next = match (step, &node.content) {
                (Step::Key(name), _) => node.get(name),
                (Step::Item(index), Content::List(items)) => items.get(*index),
                (Step::Item(_), _) => None,
            };
            let Some(next) = next else { break };
            node = next;
        }
        node
    }

    /// Without places, and without the keys of which nothing is said.
    pub fn to_json(&self) -> Value {
        match &self.content {
            Content::Nothing => Value::Null,
            Content::Scalar(value) => value.clone(),
            Content::List(items) => items.iter().map(Self::to_json).collect(),
            Content::Map(entries) => {
                let said = entries.iter().filter(|(_, node)| !matches!(node.content, Content::Nothing));
                Value::Object(said.map(|(key, node)| (key.name.clone(), node.to_json())).collect())
            }
        }
    }
}

/// A list or map that is not complete.
enum Open {
    List(Node),
    /// With the key whose value comes next.
    Map(Node, Option<Key>),
}

/// Reads a document; `None`: it cannot be read any further than to its first mistake.
pub(crate) fn parse(text: &str, problems: &mut Vec<Problem>) -> Option<Node> {
    let start = Origin::File { line: 1, column: 1 };
    if text.len() > MAX_BYTES {
        problems.push(problem(start, format!("the file is larger than {MAX_BYTES} bytes")));
        return None;
    }
    let mut root: Option<Node> = None;
    let mut open: Vec<Open> = Vec::new();
    for event in Parser::new_from_str(text) {
        if problems.len() >= MAX_PROBLEMS {
            return None;
        }
        let (event, span) = match event {
            Ok(event) => event,
            Err(error) => {
                let place = Origin::File { line: error.marker().line(), column: error.marker().col() + 1 };
                problems.push(problem(place, format!("it is not YAML: {}", error.info())));
                return None;
            }
        };
        let origin = origin(span);
        let content = match event {
            Event::DocumentStart(_) if root.is_some() => {
                problems.push(problem(origin, "there is a second document; write one".to_owned()));
                return None;
            }
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd => continue,
            Event::Alias(_) => {
                problems
                    .push(problem(origin.clone(), "aliases are not supported; write the value".to_owned()));
                Content::Nothing
            }
            Event::Scalar(value, style, anchor, tag) => {
                refuse_extras(anchor != 0, tag.is_some(), &origin, problems);
                scalar(&value, style)
            }
            Event::SequenceStart(anchor, tag) => {
                refuse_extras(anchor != 0, tag.is_some(), &origin, problems);
                open.push(Open::List(Node { content: Content::List(Vec::new()), origin }));
                if open.len() > MAX_DEPTH {
                    return too_deep(span, problems);
                }
                continue;
            }
            Event::MappingStart(anchor, tag) => {
                refuse_extras(anchor != 0, tag.is_some(), &origin, problems);
                open.push(Open::Map(Node { content: Content::Map(Vec::new()), origin }, None));
                if open.len() > MAX_DEPTH {
                    return too_deep(span, problems);
                }
                continue;
            }
            Event::SequenceEnd | Event::MappingEnd => match open.pop() {
                Some(Open::List(node) | Open::Map(node, _)) => {
                    put(node, &mut open, &mut root, problems);
                    continue;
                }
                None => continue,
            },
        };
        put(Node { content, origin }, &mut open, &mut root, problems);
    }
    // A file without anything, or with comments only.
    let empty = Node { content: Content::Nothing, origin: start.clone() };
    let mut root = root.unwrap_or(empty);
    if matches!(root.content, Content::Nothing) {
        root = Node { content: Content::Map(Vec::new()), origin: start };
    }
    Some(root)
}

/// Puts a complete node into what it is part of.
fn put(node: Node, open: &mut [Open], root: &mut Option<Node>, problems: &mut Vec<Problem>) {
    match open.last_mut() {
        None => *root = Some(node),
        Some(Open::List(list)) => {
            if let Content::List(items) = &mut list.content {
                items.push(node);
            }
        }
        Some(Open::Map(map, key)) => match key.take() {
            None => *key = Some(as_key(&node, problems)),
            Some(key) => {
                if let Some(first) = map.get(&key.name) {
                    let before = match &first.origin {
                        Origin::File { line, .. } => format!(" in line {line}"),
                        Origin::Variable(_) => String::new(),
                    };
                    problems.push(problem(key.origin, format!("{:?} was set before{before}", key.name)));
                } else if let Content::Map(entries) = &mut map.content {
                    if entries.len() < MAX_KEYS {
                        entries.push((key, node));
                    } else {
                        problems.push(problem(key.origin, format!("there are more than {MAX_KEYS} keys")));
                    }
                }
            }
        },
    }
}

fn as_key(node: &Node, problems: &mut Vec<Problem>) -> Key {
    let name = match &node.content {
        Content::Scalar(Value::String(name)) => name.clone(),
        Content::Scalar(other) => other.to_string(),
        _ => {
            problems.push(problem(node.origin.clone(), "a key must be a word".to_owned()));
            String::new()
        }
    };
    Key { name, origin: node.origin.clone() }
}

/// What a word means (YAML 1.2.2, section 10.3.2, core schema); quoted it is always text.
fn scalar(text: &str, style: ScalarStyle) -> Content {
    if style != ScalarStyle::Plain {
        return Content::Scalar(Value::String(text.to_owned()));
    }
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Content::Nothing,
        _ => Content::Scalar(plain(text)),
    }
}

/// A word without quotes that is not null.
pub(crate) fn plain(text: &str) -> Value {
    match text {
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        _ => {}
    }
    if let Ok(number) = text.parse::<i64>() {
        return number.into();
    }
    let looks_like_number = text.starts_with(|first: char| first.is_ascii_digit() || "+-.".contains(first));
    let number = text.parse::<f64>().ok().filter(|number| looks_like_number && number.is_finite());
    number.map_or_else(|| Value::String(text.to_owned()), Value::from)
}

fn refuse_extras(anchor: bool, tag: bool, origin: &Origin, problems: &mut Vec<Problem>) {
    if anchor {
        problems.push(problem(origin.clone(), "anchors are not supported; leave it out".to_owned()));
    }
    if tag {
        problems.push(problem(origin.clone(), "tags are not supported; leave it out".to_owned()));
    }
}

fn too_deep(span: Span, problems: &mut Vec<Problem>) -> Option<Node> {
    problems.push(problem(origin(span), format!("there are more than {MAX_DEPTH} levels")));
    None
}

fn origin(span: Span) -> Origin {
    // The parser counts columns from 0.
    Origin::File { line: span.start.line(), column: span.start.col() + 1 }
}

fn problem(origin: Origin, reason: String) -> Problem {
    Problem { origin, path: Vec::new(), reason }
}
