//! What is said of files: right ones, wrong ones, and the two that the command prints.

use std::time::Duration;

use descry_config::{Config, DEFAULT, Loaded, Origin, load, schema, variables};

fn none(_: &str) -> Option<String> {
    None
}

/// The lines that `descry config check` prints.
fn check(text: &str, expected: &[&str]) {
    let lines = load(text, none).err().map(|problems| problems.lines("f")).unwrap_or_default();
    assert_eq!(lines, expected, "of:\n{text}");
}

fn load_valid(text: &str) -> Loaded {
    load(text, none).unwrap_or_else(|problems| panic!("{problems}, of:\n{text}"))
}

#[test]
fn nothing_and_the_printed_default_mean_the_defaults() {
    for text in ["", "# nothing\n", "---\n", "{}", "profile:\n", DEFAULT] {
        assert_eq!(load_valid(text).config, Config::default(), "of:\n{text}");
    }
}

#[test]
fn the_printed_default_names_every_setting() {
    let mut keys = Vec::new();
    collect_keys(&schema(), &mut keys);
    for key in keys {
        assert!(DEFAULT.contains(&format!("{key}:")), "default.yaml does not name {key}");
    }
}

fn collect_keys(schema: &serde_json::Value, keys: &mut Vec<String>) {
    for (key, schema) in schema.get("properties").and_then(|it| it.as_object()).into_iter().flatten() {
        keys.push(key.clone());
        collect_keys(schema, keys);
    }
    schema.get("items").into_iter().for_each(|items| collect_keys(items, keys));
}

/// With `UPDATE_GOLDEN` set, the file is written instead.
#[test]
fn the_schema_is_the_golden_one() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/config/schema.json");
    let text = serde_json::to_string_pretty(&schema()).unwrap() + "\n";
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(file, &text).unwrap();
    }
    assert_eq!(std::fs::read_to_string(file).unwrap(), text);
}

#[test]
fn mistakes_have_their_place_and_reason() {
    check(
        "profil:\n  frequency: 9\n",
        &["f:1:1: profil: there is no such setting; did you mean \"profile\"?"],
    );
    check(
        "profile:\n  frequency: 0\n  window: 10\n  kernel: maybe\n",
        &[
            "f:2:14: profile.frequency: it must be from 1 to 999",
            "f:3:11: profile.window: text is wanted; write 10 in quotes",
            "f:4:11: profile.kernel: true or false is wanted",
        ],
    );
    check("profile:\n  frequency: 1.5\n", &["f:2:14: profile.frequency: a whole number is wanted"]);
    check(
        "profile: {frequency: 99999999999999999999}",
        &["f:1:22: profile.frequency: a whole number is wanted"],
    );
    check("profile:\n  window: 1h\n", &["f:2:11: profile.window: it must be from 1s to 10m"]);
    check("off_cpu: {longer_than: 99us}\n", &["f:1:24: off_cpu.longer_than: it must be from 100us to 1h"]);
    check(
        "profile:\n  window: soon\n",
        &["f:2:11: profile.window: \"soon\": write a time with its unit, like 500ms, 10s or 2m"],
    );
    check("rules: {}\n", &["f:1:8: rules: a list (lines that begin with -) is wanted"]);
    check(
        "rules:\n  - profile: false\n",
        &["f:2:5: rules[0]: the rule fits nothing; give it exe, comm, cgroup, container, unit or ports"],
    );
    check("rules:\n  -\n", &["f:2:4: rules[0]: it is empty"]);
    check(
        "health: {address: '0.0.0.0:1'}",
        &["f:1:19: health.address: only loopback addresses are served, like 127.0.0.1:8687"],
    );
    check(
        "zzz: 1\n",
        &[
            "f:1:1: zzz: there is no such setting; known are destinations, file, functions, health, logs, off_cpu, others, profile, \
         requests, resource, rules, syscalls, telemetry",
        ],
    );
}

#[test]
fn mistakes_of_rates() {
    check(
        "rules: [{comm: a, frequency: 49}]",
        &["f:1:30: rules[0].frequency: it must not be above 19, that of `profile`"],
    );
    check(
        "profile: {frequency: 9}\nothers: {frequency: 10}\n",
        &["f:2:21: others.frequency: it must not be above 9, that of `profile`"],
    );
    check("others: {frequency: 0}", &["f:1:21: others.frequency: it must be from 1 to 999"]);
}

#[test]
fn mistakes_of_destinations() {
    check("destinations:\n  - name: a\n", &["f:2:5: destinations[0]: \"endpoint\" is missing"]);
    check(
        "destinations:\n  - name: a\n    endpoint: http://u:secret@h:1\n",
        &[
            "f:3:15: destinations[0].endpoint: \"http://u:secret@h:1\": the URL holds credentials; put them into headers or \
          header_files",
        ],
    );
}

#[test]
fn mistakes_of_what_is_sent() {
    check("requests:\n  sampler_ratio: 2\n", &["f:2:18: requests.sampler_ratio: it must be from 0 to 1"]);
    check("requests: {sampler_ratio: much}", &["f:1:27: requests.sampler_ratio: a number is wanted"]);
    check(
        "requests: {sampler: some}",
        &[
            "f:1:21: requests.sampler: it must be one of always_on, always_off, traceidratio, parentbased_always_on, \
          parentbased_always_off, parentbased_traceidratio",
        ],
    );
    let with = |rest: &str| format!("destinations:\n  - {{name: a, endpoint: 'http://h:1', {rest}}}\n");
    check(
        &with("redaction: {patterns: ['(']}"),
        &[
            "f:2:62: destinations[0].redaction.patterns[0]: \"(\": it is no regular expression (unclosed group)",
        ],
    );
    check(&with("filters: [{attribute: a}]"), &["f:2:49: destinations[0].filters[0]: \"action\" is missing"]);
}

#[test]
fn mistakes_of_yaml() {
    check("a: [1\n", &["f:2:1: it is not YAML: while parsing a flow sequence, expected ',' or ']'"]);
    check("health: {}\nhealth: {}\n", &["f:2:1: \"health\" was set before in line 1"]);
    check("health: &a {}\n", &["f:1:9: anchors are not supported; leave it out"]);
    check("health: {}\n---\nhealth: {}\n", &["f:2:1: there is a second document; write one"]);
    check(&"[".repeat(40), &["f:1:33: there are more than 32 levels"]);
    let keys: String = (0..4097).map(|key| format!("    k{key}: v\n")).collect();
    check(&format!("resource:\n  attributes:\n{keys}"), &["f:4099:5: there are more than 4096 keys"]);
}

#[test]
fn files_that_are_named_must_be_readable() {
    let text = "destinations:\n  - name: a\n    endpoint: http://h:1\n    tls:\n      ca: /nonexistent/ca\n";
    check(
        text,
        &[
            "f:5:11: destinations[0].tls.ca: /nonexistent/ca cannot be read: No such file or directory (os error 2)",
        ],
    );
    check(
        &text.replace("/nonexistent/ca", "\"/nonexistent/\\e[2J\\nca\""),
        &["f:5:11: destinations[0].tls.ca: /nonexistent/\\u{1b}[2J\\nca cannot be read: No such file or \
             directory (os error 2)"],
    );
}

#[test]
fn variables_override_the_file() {
    let variable = |name: &str| match name {
        "DESCRY_PROFILE_FREQUENCY" => Some("99".to_owned()),
        "DESCRY_PROFILE_WINDOW" => Some("2s".to_owned()),
        "DESCRY_PROFILE_KERNEL" => Some("false".to_owned()),
        "DESCRY_FILE_DIRECTORY" => Some("/tmp/1".to_owned()),
        _ => None,
    };
    let loaded = load("profile: {frequency: 1}", variable).unwrap();
    let profile = &loaded.config.profile;
    assert_eq!((profile.frequency, profile.window.0, profile.kernel), (99, Duration::from_secs(2), false));
    assert_eq!(loaded.config.file.directory.to_str(), Some("/tmp/1"));
    let problems =
        load("", |name| (name == "DESCRY_PROFILE_FREQUENCY").then(|| "many".to_owned())).unwrap_err();
    assert_eq!(
        problems.lines("f"),
        ["DESCRY_PROFILE_FREQUENCY: profile.frequency: a whole number is wanted"]
    );
    assert!(matches!(problems.list(), [problem] if matches!(problem.origin, Origin::Variable(_))));
}

#[test]
fn variables_have_different_names() {
    let mut names: Vec<String> = variables().into_iter().map(|(name, _)| name).collect();
    assert!(names.contains(&"DESCRY_TELEMETRY_ENDPOINT".to_owned()), "{names:?}");
    let all = names.len();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), all);
}

#[test]
fn patterns_fit() {
    let loaded = load_valid("rules:\n  - exe: /usr/*/nginx\n    profile: false\n");
    let rule = loaded.config.rules.first().unwrap();
    assert!(rule.exe.as_ref().unwrap().matches("/usr/local/sbin/nginx"));
    assert!(!rule.exe.as_ref().unwrap().matches("/usr/sbin/nginx2"));
    assert!(!rule.profile);
}
