//! A tree against the schema: unknown keys, wrong types, values out of range. Knows the part of JSON Schema that
//! [`crate::schema`] makes.

use serde_json::{Map, Value};

use crate::problem::{Origin, Problem, Step};
use crate::scalar;
use crate::yaml::{Content, Node};

/// How alike a name must be to be proposed (0 to 1, Jaro-Winkler).
const LIKENESS: f64 = 0.75;

/// Reports every mistake of the tree.
pub(crate) fn check(tree: &Node, schema: &Value, problems: &mut Vec<Problem>) {
    Checker { problems, path: Vec::new() }.node(tree, schema);
}

struct Checker<'a> {
    problems: &'a mut Vec<Problem>,
    path: Vec<Step>,
}

impl Checker<'_> {
    fn report(&mut self, origin: &Origin, reason: String) {
        self.problems.push(Problem { origin: origin.clone(), path: self.path.clone(), reason });
    }

    fn node(&mut self, node: &Node, schema: &Value) {
        if let Some(choices) = choices(schema) {
            self.choice(node, &choices);
            return;
        }
        match (schema.get("type").and_then(Value::as_str), &node.content) {
            // An item of a list cannot be left to a default.
            (_, Content::Nothing) => {
                if matches!(self.path.last(), Some(Step::Item(_))) {
                    self.report(&node.origin, "it is empty".to_owned());
                }
            }
            (Some("object"), Content::Map(_)) => self.map(node, schema),
            (Some("array"), Content::List(items)) => {
                let of_items = schema.get("items").unwrap_or(&Value::Null);
                for (index, item) in items.iter().enumerate() {
                    self.path.push(Step::Item(index));
                    self.node(item, of_items);
                    self.path.pop();
                }
            }
            (Some("boolean"), Content::Scalar(Value::Bool(_))) => {}
            (Some("integer"), Content::Scalar(Value::Number(number))) if !number.is_f64() => {
                self.range(node, number.as_i64(), schema);
            }
            (Some("number"), Content::Scalar(Value::Number(number))) => {
                self.number(node, number.as_f64(), schema);
            }
            (Some("string"), Content::Scalar(Value::String(text))) => {
                let format = schema.get("format").and_then(Value::as_str).unwrap_or_default();
                if let Some(reason) = scalar::reason(format, text) {
                    self.report(&node.origin, format!("{text:?}: {reason}"));
                }
            }
            (Some("string"), Content::Scalar(other)) => {
                self.report(&node.origin, format!("text is wanted; write {other} in quotes"));
            }
            (Some(wanted), _) => {
                let wanted = match wanted {
                    "object" => "settings (KEY: VALUE) are",
                    "array" => "a list (lines that begin with -) is",
                    "boolean" => "true or false is",
                    "integer" => "a whole number is",
                    "number" => "a number is",
                    _ => "text is",
                };
                self.report(&node.origin, format!("{wanted} wanted"));
            }
            (None, _) => {}
        }
    }

    fn map(&mut self, node: &Node, schema: &Value) {
        let Content::Map(entries) = &node.content else { return };
        let none = Map::new();
        let known = schema.get("properties").and_then(Value::as_object).unwrap_or(&none);
        let others = schema.get("additionalProperties").filter(|others| others.is_object());
        for (key, value) in entries {
            self.path.push(Step::Key(key.name.clone()));
            match known.get(&key.name).or(others) {
                Some(schema) => self.node(value, schema),
                None => {
                    let nearest = nearest(&key.name, known.keys().map(String::as_str));
                    let hint = match nearest {
                        Some(name) => format!("did you mean {name:?}?"),
                        None => format!("known are {}", known.keys().cloned().collect::<Vec<_>>().join(", ")),
                    };
                    self.report(&key.origin, format!("there is no such setting; {hint}"));
                }
            }
            self.path.pop();
        }
        let required = schema.get("required").and_then(Value::as_array).into_iter().flatten();
        for name in required.filter_map(Value::as_str) {
            if node.get(name).is_none_or(|value| matches!(value.content, Content::Nothing)) {
                self.report(&node.origin, format!("{name:?} is missing"));
            }
        }
    }

    fn range(&mut self, node: &Node, number: Option<i64>, schema: &Value) {
        let bound = |name| schema.get(name).and_then(Value::as_i64);
        let (least, most) = (bound("minimum"), bound("maximum"));
        let is_within = number.is_some_and(|number| {
            least.is_none_or(|least| number >= least) && most.is_none_or(|most| number <= most)
        });
        if !is_within {
            let reason = match (least, most) {
                (Some(least), Some(most)) => format!("it must be from {least} to {most}"),
                (Some(least), None) => format!("it must be {least} or more"),
                _ => "it is out of range".to_owned(),
            };
            self.report(&node.origin, reason);
        }
    }

    fn number(&mut self, node: &Node, number: Option<f64>, schema: &Value) {
        let bound = |name| schema.get(name).and_then(Value::as_f64);
        let (least, most) = (bound("minimum"), bound("maximum"));
        let is_within = number.is_some_and(|number| {
            least.is_none_or(|least| number >= least) && most.is_none_or(|most| number <= most)
        });
        if let (false, Some(least), Some(most)) = (is_within, least, most) {
            self.report(&node.origin, format!("it must be from {least} to {most}"));
        }
    }

    fn choice(&mut self, node: &Node, choices: &[&str]) {
        match &node.content {
            Content::Nothing => {}
            Content::Scalar(Value::String(text)) if choices.contains(&text.as_str()) => {}
            _ => self.report(&node.origin, format!("it must be one of {}", choices.join(", "))),
        }
    }
}

/// The words that a schema allows, if it is a list of them.
fn choices(schema: &Value) -> Option<Vec<&str>> {
    if let Some(words) = schema.get("enum").and_then(Value::as_array) {
        return Some(words.iter().filter_map(Value::as_str).collect());
    }
    let words = schema.get("oneOf").and_then(Value::as_array)?;
    Some(words.iter().filter_map(|word| word.get("const")?.as_str()).collect())
}

/// The name that looks most like what was written.
fn nearest<'a>(written: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let scored = names.map(|name| (strsim::jaro_winkler(written, name), name));
    let best = scored.max_by(|left, right| left.0.total_cmp(&right.0));
    best.filter(|(likeness, _)| *likeness >= LIKENESS).map(|(_, name)| name)
}
