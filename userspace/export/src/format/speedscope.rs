//! speedscope's format, as its `file-format-schema.json` says: shared frames, a `sampled` profile a process (a thread,
//! where threads are kept apart), weights in nanoseconds. The last frame of a wait is its reason in brackets.

use std::collections::HashMap;
use std::io::{self, Write};

use descry_aggregate::profile::{NamedFrame, Profile};
use indexmap::{IndexMap, IndexSet};
use serde::Serialize;

use super::WriteOptions;
use super::escape::printable;
use super::folded::{bracketed, mark};
use super::summary;
use crate::otlp::TRUNCATED;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct File {
    #[serde(rename = "$schema")]
    schema: &'static str,
    shared: Shared,
    profiles: Vec<Sampled>,
    name: String,
    active_profile_index: usize,
    exporter: String,
}

#[derive(Serialize)]
struct Shared {
    frames: Vec<Frame>,
}

/// Without lines: frames are told apart by all of their fields, and a function has many lines on its stacks.
#[derive(PartialEq, Eq, Hash, Serialize)]
struct Frame {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Sampled {
    r#type: &'static str,
    name: String,
    unit: &'static str,
    start_value: u64,
    end_value: u64,
    samples: Vec<Vec<usize>>,
    weights: Vec<u64>,
}

impl Sampled {
    fn new(name: String) -> Self {
        Self {
            r#type: "sampled",
            name,
            unit: "nanoseconds",
            start_value: 0,
            end_value: 0,
            samples: Vec::new(),
            weights: Vec::new(),
        }
    }
}

/// Writes the file.
pub fn write(profile: &Profile, out: &mut dyn Write, options: &WriteOptions) -> io::Result<()> {
    let mut frames = IndexSet::new();
    let mut stacks: HashMap<u32, Vec<usize>> = HashMap::new();
    let mut profiles: IndexMap<(u32, Option<u32>), Sampled> = IndexMap::new();
    for sample in &profile.samples {
        let stack = stacks.entry(sample.stack).or_insert_with(|| stack(profile, sample.stack, &mut frames));
        let thread = sample.thread.filter(|_| options.per_thread);
        let key = (sample.process, thread.map(|(tid, _)| tid.0));
        let sampled = profiles.entry(key).or_insert_with(|| {
            let process = profile.processes.get(sample.process as usize);
            let mut name = process.map_or_else(String::new, |process| {
                format!("{} (pid {})", printable(&process.name), process.tgid)
            });
            if let Some((tid, comm)) = thread {
                name = format!("{name}, {} (tid {tid})", printable(&comm.to_string()));
            }
            Sampled::new(name)
        });
        let mut stack = stack.clone();
        if let Some(waited) = sample.waited {
            let reason = Frame { name: bracketed(waited.reason), file: None };
            stack.push(frames.insert_full(reason).0);
        }
        sampled.samples.push(stack);
        sampled.weights.push(sample.weight);
        sampled.end_value = sampled.end_value.saturating_add(sample.weight);
    }
    if profiles.is_empty() {
        // speedscope refuses a file without profiles.
        profiles.insert((0, None), Sampled::new(summary::subject(profile)));
    }
    let file = File {
        schema: "https://www.speedscope.app/file-format-schema.json",
        shared: Shared { frames: frames.into_iter().collect() },
        profiles: profiles.into_values().collect(),
        name: summary::subject(profile),
        active_profile_index: 0,
        exporter: format!("descry@{}", options.otlp.scope_version),
    };
    serde_json::to_writer(out, &file).map_err(io::Error::from)
}

/// Indices of the frames of a stack, root first.
fn stack(profile: &Profile, index: u32, frames: &mut IndexSet<Frame>) -> Vec<usize> {
    let mut stack = Vec::new();
    if profile.stacks.get(index as usize).is_some_and(|stack| stack.truncated) {
        let truncated = Frame { name: TRUNCATED.to_owned(), file: None };
        stack.push(frames.insert_full(truncated).0);
    }
    stack.extend(profile.named_frames(index).map(|frame| frames.insert_full(shared_frame(&frame)).0));
    stack
}

fn shared_frame(frame: &NamedFrame<'_>) -> Frame {
    let name = format!("{}{}", printable(&frame.name), mark(frame));
    Frame { name, file: frame.file.map(str::to_owned) }
}
