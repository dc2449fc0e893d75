//! Every format is written and can be read by what knows the format, with the same stacks.

use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use descry_export::otlp;
use descry_proto::pprof;
use descry_tests::descry::Descry;
use descry_tests::machine;
use descry_tests::workload::Workload;
use opentelemetry_proto::tonic::profiles::v1development::ProfilesData;
use prost::Message;
use serde_json::Value;

/// The stack that every format must hold, root first.
const STACK: [&str; 4] = ["main", "cycle", "sixty", "burn_until"];

/// Measures `split` for a second into a file of this name, and reads that.
fn written(name: &str) -> Result<Vec<u8>> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join(name);
    profile(Some(&file), &[])?;
    std::fs::read(&file).with_context(|| format!("{name} was not written"))
}

fn profile(file: Option<&Path>, options: &[&str]) -> Result<Vec<u8>> {
    let workload = Workload::native("split", &[])?;
    let mut descry =
        Descry::new("profile")?.pid(workload.pid()).args(["-F", "999", "-d", "1s"]).args(options);
    if let Some(file) = file {
        descry = descry.output(file);
    }
    Ok(descry.succeed()?.stdout)
}

/// Whether these frames, root first, have the known stack as a part.
fn has_stack(frames: &[&str]) -> bool {
    // Formats without a field of their own for it mark inlined functions by their names.
    let frames: Vec<&str> = frames.iter().map(|frame| frame.trim_end_matches("_[i]")).collect();
    frames.windows(STACK.len()).any(|window| window == STACK)
}

#[test]
fn text_is_the_default() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let text = String::from_utf8(profile(None, &[])?)?;
    let row = text
        .lines()
        .find(|line| line.contains("sixty"))
        .with_context(|| format!("no row of sixty:\n{text}"))?;
    let shares: Vec<f64> = row
        .split_ascii_whitespace()
        .filter_map(|word| word.strip_suffix('%').unwrap_or(word).parse().ok())
        .collect();
    ensure!(shares.iter().any(|share| (55.0..65.0).contains(share)), "60 per cent is not in {row:?}");
    Ok(())
}

#[test]
fn folded_by_ending_and_by_name() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    for text in [written("out.folded")?, profile(None, &["--format", "folded"])?] {
        let folded = descry_tests::folded::Folded::parse(std::str::from_utf8(&text)?)?;
        ensure!(folded.stacks.iter().all(|stack| stack.process == "split"), "{}", folded.heaviest(5));
        ensure!(folded.total_of("sixty") > 0.5, "{}", folded.heaviest(5));
    }
    Ok(())
}

#[test]
fn the_name_wins_over_the_ending() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("out.svg");
    profile(Some(&file), &["--format", "folded"])?;
    descry_tests::folded::Folded::parse(&std::fs::read_to_string(&file)?)?;
    Ok(())
}

#[test]
fn flamegraph() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let svg = String::from_utf8(written("out.svg")?)?;
    ensure!(svg.contains("<svg") && svg.trim_end().ends_with("</svg>"), "no picture");
    for name in STACK {
        ensure!(svg.contains(name), "{name} is not in the picture");
    }
    Ok(())
}

#[test]
fn pprof() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(&*written("out.pb.gz")?).read_to_end(&mut bytes)?;
    let profile = pprof::Profile::decode(&*bytes)?;
    let text = |index: i64| {
        usize::try_from(index)
            .ok()
            .and_then(|index| profile.string_table.get(index))
            .map_or("", String::as_str)
    };
    let types: Vec<(&str, &str)> =
        profile.sample_type.iter().map(|kind| (text(kind.r#type), text(kind.unit))).collect();
    ensure!(types.contains(&("samples", "count")) && types.contains(&("cpu", "nanoseconds")), "{types:?}");
    let mut found = false;
    for sample in &profile.sample {
        ensure!(sample.value.len() == types.len(), "{} values", sample.value.len());
        let mut frames = Vec::new();
        for id in sample.location_id.iter().rev() {
            let location =
                profile.location.iter().find(|location| location.id == *id).context("no location")?;
            for line in location.line.iter().rev() {
                let function = profile.function.iter().find(|function| function.id == line.function_id);
                frames.push(text(function.context("no function")?.name));
            }
        }
        found |= has_stack(&frames);
    }
    ensure!(found, "the known stack is not in it");
    ensure!(profile.period > 0 && profile.duration_nanos > 0 && profile.time_nanos > 0, "times are missing");
    ensure!(profile.mapping.iter().any(|mapping| text(mapping.filename).ends_with("/split")), "no mapping");
    Ok(())
}

fn check_otlp(data: &ProfilesData) -> Result<()> {
    if let Err(violations) = otlp::check(data) {
        bail!("against the rules of the data model: {violations:#?}");
    }
    let dictionary = data.dictionary.as_ref().context("no dictionary")?;
    let text = |index: i32| {
        usize::try_from(index)
            .ok()
            .and_then(|index| dictionary.string_table.get(index))
            .map_or("", String::as_str)
    };
    let mut found = false;
    for resource in &data.resource_profiles {
        for profile in resource.scope_profiles.iter().flat_map(|scope| &scope.profiles) {
            for sample in &profile.samples {
                let stack =
                    dictionary.stack_table.get(usize::try_from(sample.stack_index)?).context("no stack")?;
                let mut frames = Vec::new();
                for location in stack.location_indices.iter().rev() {
                    let location =
                        dictionary.location_table.get(usize::try_from(*location)?).context("no location")?;
                    for line in location.lines.iter().rev() {
                        let function = dictionary.function_table.get(usize::try_from(line.function_index)?);
                        frames.push(text(function.context("no function")?.name_strindex));
                    }
                }
                found |= has_stack(&frames);
            }
        }
    }
    ensure!(found, "the known stack is not in it");
    Ok(())
}

#[test]
fn otlp() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    check_otlp(&ProfilesData::decode(&*written("out.otlp")?)?)
}

#[test]
fn otlp_json() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let data: Value = serde_json::from_slice(&written("out.otlp.json")?)?;
    let dictionary = &data["dictionary"];
    // proto3's JSON leaves out fields with default values: a missing index is 0.
    let entry = |table: &str, index: &Value| dictionary[table][index.as_u64().unwrap_or(0) as usize].clone();
    let mut found = false;
    for sample in objects(&data, &["resourceProfiles", "scopeProfiles", "profiles", "samples"]) {
        let stack = entry("stackTable", &sample["stackIndex"]);
        let mut frames = Vec::new();
        for location in stack["locationIndices"].as_array().into_iter().flatten().rev() {
            let location = entry("locationTable", location);
            for line in location["lines"].as_array().into_iter().flatten().rev() {
                let function = entry("functionTable", &line["functionIndex"]);
                frames.push(entry("stringTable", &function["nameStrindex"]));
            }
        }
        let frames: Vec<&str> = frames.iter().filter_map(Value::as_str).collect();
        found |= has_stack(&frames);
    }
    ensure!(found, "the known stack is not in it");
    Ok(())
}

/// The objects in lists of these names, one within the other.
fn objects<'a>(object: &'a Value, path: &[&str]) -> Vec<&'a Value> {
    let Some((name, rest)) = path.split_first() else { return vec![object] };
    let list = object[name].as_array().into_iter().flatten();
    list.flat_map(|object| objects(object, rest)).collect()
}

#[test]
fn firefox() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let profile: Value = serde_json::from_slice(&written("out.firefox.json")?)?;
    ensure!(profile["meta"]["version"].is_number(), "no version");
    let threads = profile["threads"].as_array().context("no threads")?;
    let counts = threads.iter().map(|thread| thread["samples"]["stack"].as_array().map_or(0, Vec::len));
    ensure!(counts.sum::<usize>() > 0, "no samples");
    let text = profile.to_string();
    for name in STACK {
        ensure!(text.contains(name), "{name} is not in it");
    }
    Ok(())
}

#[test]
fn speedscope() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let file: Value = serde_json::from_slice(&written("out.speedscope.json")?)?;
    ensure!(file["$schema"] == "https://www.speedscope.app/file-format-schema.json", "{}", file["$schema"]);
    let frames = file["shared"]["frames"].as_array().context("no frames")?;
    let name = |index: &Value| {
        let index = index.as_u64().and_then(|index| usize::try_from(index).ok());
        index.and_then(|index| frames.get(index)).and_then(|frame| frame["name"].as_str()).unwrap_or_default()
    };
    let mut found = false;
    for profile in file["profiles"].as_array().context("no profiles")? {
        let samples = profile["samples"].as_array().context("no samples")?;
        ensure!(profile["weights"].as_array().map(Vec::len) == Some(samples.len()), "not a weight a sample");
        for sample in samples {
            let frames: Vec<&str> = sample.as_array().into_iter().flatten().map(name).collect();
            found |= has_stack(&frames);
        }
    }
    ensure!(found, "the known stack is not in it");
    Ok(())
}
