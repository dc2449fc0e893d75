//! Variables of the environment over settings of the file: `DESCRY_` and the setting's path, in capitals, joined by `_`.
//! Lists, and what is inside of them, have none.

use serde_json::Value;

use crate::problem::{Origin, Problem};
use crate::yaml::{self, Content, Key, Node};

const PREFIX: &str = "DESCRY";

/// Every variable and the path of its setting.
pub(crate) fn variables(schema: &Value) -> Vec<(String, Vec<String>)> {
    let mut found = Vec::new();
    collect(schema, &mut Vec::new(), &mut |path, _| {
        let words: Vec<String> = path.iter().map(|key| key.to_uppercase()).collect();
        found.push((format!("{PREFIX}_{}", words.join("_")), path.to_vec()));
    });
    found
}

/// Puts the values of the variables that are set in the place of what the file says; an empty one counts as not set.
pub(crate) fn apply(
    tree: &mut Node,
    schema: &Value,
    variable: &impl Fn(&str) -> Option<String>,
    problems: &mut Vec<Problem>,
) {
    let mut is_text = Vec::new();
    collect(schema, &mut Vec::new(), &mut |_, schema| {
        is_text.push(schema.get("type").and_then(Value::as_str) == Some("string"));
    });
    for ((name, path), is_text) in variables(schema).into_iter().zip(is_text) {
        let Some(text) = variable(&name).filter(|text| !text.trim().is_empty()) else { continue };
        let value = if is_text { Value::String(text) } else { yaml::plain(text.trim()) };
        let origin = Origin::Variable(name);
        if !set(tree, &path, Node { content: Content::Scalar(value), origin: origin.clone() }) {
            let reason = "the file has something else than settings there".to_owned();
            problems.push(Problem { origin, path: Vec::new(), reason });
        }
    }
}

/// Visits the settings that are single values.
fn collect(schema: &Value, path: &mut Vec<String>, visit: &mut impl FnMut(&[String], &Value)) {
    match (schema.get("type").and_then(Value::as_str), schema.get("properties").and_then(Value::as_object)) {
        (Some("object"), Some(properties)) => {
            for (key, schema) in properties {
                path.push(key.clone());
                collect(schema, path, visit);
                path.pop();
            }
        }
        (Some("object" | "array"), _) => {}
        _ => visit(path, schema),
    }
}

/// Sets a value, and makes the maps on the way to it; false: something else is in the way.
fn set(node: &mut Node, path: &[String], value: Node) -> bool {
    let Some((first, rest)) = path.split_first() else {
        *node = value;
        return true;
    };
    if matches!(node.content, Content::Nothing) {
        node.content = Content::Map(Vec::new());
    }
    let Content::Map(entries) = &mut node.content else { return false };
    if let Some((_, known)) = entries.iter_mut().find(|(key, _)| key.name == *first) {
        return set(known, rest, value);
    }
    let key = Key { name: first.clone(), origin: value.origin.clone() };
    let mut made = Node { content: Content::Nothing, origin: value.origin.clone() };
    let is_set = set(&mut made, rest, value);
    entries.push((key, made));
    is_set
}
