//! Any text as the agent's configuration: settings within their limits, or mistakes that each have a place and a line.
//!
//! Lines at the beginning that are `DESCRY_NAME=VALUE` are variables of the environment, the rest is the file. Files that
//! it names are looked for where the target runs.
#![no_main]

use descry_config::{Config, Loaded, Origin, Problems, Step, load};
use libfuzzer_sys::fuzz_target;
use std::collections::HashMap;
use std::time::Duration;

/// What serde says of what it cannot take: the schema is to say it before, with the place.
const OF_SERDE: [&str; 5] = ["invalid type", "invalid value", "missing field", "unknown ", "duplicate field"];

fuzz_target!(|input: &[u8]| {
    let text = String::from_utf8_lossy(input);
    let mut file = &*text;
    let mut variables = HashMap::new();
    while let Some((line, rest)) = file.split_once('\n').filter(|(line, _)| line.starts_with("DESCRY_")) {
        variables.extend(line.split_once('='));
        file = rest;
    }
    let variable = |name: &str| variables.get(name).map(|value| (*value).to_owned());
    let loaded = load(file, variable);
    match (&loaded, load(file, variable)) {
        (Ok(one), Ok(other)) => assert_eq!(one.config, other.config),
        (Err(one), Err(other)) => assert_eq!(*one, other),
        (one, other) => panic!("{one:?} and {other:?}"),
    }
    match loaded {
        Ok(loaded) => {
            check_loaded(&loaded);
            as_json(file, variable, &loaded.config);
        }
        Err(problems) => check_problems(&problems, file, &variables),
    }
});

fn check_loaded(loaded: &Loaded) {
    let Config { profile, rules, destinations, health, requests, .. } = &loaded.config;
    assert!((1..=999).contains(&profile.frequency) && (1..=512).contains(&profile.unwind_memory));
    assert!(profile.window.0 >= Duration::from_secs(1) && profile.window.0 <= Duration::from_secs(600));
    assert!(requests.sampler_ratio.is_none_or(|ratio| (0.0..=1.0).contains(&ratio.0)));
    assert!(rules.len() <= 256 && destinations.len() <= 16 && health.address.0.ip().is_loopback());
    for (index, destination) in destinations.iter().enumerate() {
        assert!(!destination.name.is_empty() && destination.queue.requests >= 1);
        let key = |name: &str| Step::Key(name.to_owned());
        let origin = loaded.origin(&[key("destinations"), Step::Item(index), key("name")]);
        assert!(matches!(origin, Origin::File { .. }));
    }
}

fn check_problems(problems: &Problems, file: &str, variables: &HashMap<&str, &str>) {
    let lines = problems.lines("f");
    assert!(!lines.is_empty() && lines.len() == problems.list().len());
    let last = file.split(['\n', '\r']).count();
    for (line, problem) in lines.iter().zip(problems.list()) {
        assert!(!line.contains(|letter: char| letter.is_control()), "{line:?}");
        assert!(
            !problem.reason.is_empty() && !OF_SERDE.iter().any(|it| problem.reason.starts_with(it)),
            "{line:?}"
        );
        match &problem.origin {
            Origin::File { line, column } => {
                assert!((1..=last + 1).contains(line) && *column >= 1, "{problem:?}");
            }
            Origin::Variable(name) => assert!(variables.contains_key(name.as_str()), "{problem:?}"),
        }
    }
    assert!(!problems.to_string().is_empty());
}

/// JSON is YAML: written anew it says the same.
fn as_json(file: &str, variable: impl Fn(&str) -> Option<String>, expected: &Config) {
    let Ok(value) = serde_json::from_str::<serde_json::Value>(file) else { return };
    match load(&value.to_string(), variable) {
        Ok(loaded) => assert_eq!(loaded.config, *expected),
        Err(problems) => panic!("{value}: {problems}"),
    }
}
