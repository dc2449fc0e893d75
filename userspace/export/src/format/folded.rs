//! A line a stack: `process;outer;inner 42`.
//!
//! The first frame is the name of the process; the second is that of the thread where threads are kept apart; then
//! comes `[truncated]` where the root is missing. Kernel frames end in `_[k]`, inlined ones in `_[i]`. The last frame of a
//! wait is its reason in brackets. The number is samples for CPU time, else microseconds.

use std::collections::HashMap;
use std::io::{self, Write};
use std::rc::Rc;

use descry_aggregate::profile::{FrameKind, NamedFrame, Profile, ProfileKind, Reason, Waited};
use indexmap::IndexMap;

use super::WriteOptions;
use super::escape::printable_frame;
use crate::otlp::TRUNCATED;

/// What a frame of a folded stack stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A process, a thread, or missing frames.
    Group,
    /// A function.
    Function {
        /// Who made its code.
        kind: FrameKind,
        /// Whether it was put into its caller.
        inlined: bool,
    },
    /// An address without a name.
    Unknown,
    /// Why a thread waited.
    Reason(Reason),
}

/// The stacks of a profile; equal ones are merged.
#[derive(Debug, Default)]
pub struct Folded {
    /// Frames as they are written, each once, with what they stand for.
    labels: IndexMap<Rc<str>, Role>,
    /// Stacks (indices into `labels`, root first) with their counts, sorted by frames.
    stacks: Vec<(Vec<usize>, u64)>,
}

impl Folded {
    /// Folds a profile.
    pub fn new(profile: &Profile, options: &WriteOptions) -> Self {
        let mut folded = Self::default();
        let mut functions: HashMap<u32, Vec<usize>> = HashMap::new();
        let mut sums: HashMap<Vec<usize>, u64> = HashMap::new();
        for sample in &profile.samples {
            let process = profile.processes.get(sample.process as usize);
            let mut frames = vec![folded.group(process.map_or("", |process| &process.name))];
            if let (true, Some((_, name))) = (options.per_thread, &sample.thread) {
                frames.push(folded.group(&name.to_string()));
            }
            if profile.stacks.get(sample.stack as usize).is_some_and(|stack| stack.truncated) {
                frames.push(folded.group(TRUNCATED));
            }
            let functions = functions.entry(sample.stack);
            let functions = functions.or_insert_with(|| {
                profile.named_frames(sample.stack).map(|frame| folded.function(&frame)).collect()
            });
            frames.extend_from_slice(functions);
            if let Some(Waited { reason, .. }) = sample.waited {
                frames.push(folded.label(&bracketed(reason), Role::Reason(reason)));
            }
            let sum = sums.entry(frames).or_default();
            *sum = sum.saturating_add(match profile.kind {
                ProfileKind::Cpu => sample.count,
                ProfileKind::OffCpu | ProfileKind::Wall => sample.weight,
            });
        }
        folded.stacks = sums.into_iter().collect();
        if profile.kind != ProfileKind::Cpu {
            // Rounded after the sum, so that short waits add up.
            folded.stacks.iter_mut().for_each(|(_, sum)| *sum = sum.saturating_add(500) / 1000);
        }
        let labels = &folded.labels;
        let texts = |stack: &[usize]| stack.iter().map(|&label| labels.get_index(label)).collect::<Vec<_>>();
        folded.stacks.sort_by_cached_key(|(stack, _)| {
            texts(stack).into_iter().flatten().map(|(text, _)| Rc::clone(text)).collect::<Vec<_>>()
        });
        folded
    }

    /// Every frame once, with what it stands for.
    pub fn labels(&self) -> impl Iterator<Item = (&str, Role)> {
        self.labels.iter().map(|(text, role)| (text.as_ref(), *role))
    }

    /// Stacks, root first, with their counts.
    pub fn stacks(&self) -> impl DoubleEndedIterator<Item = (Vec<&str>, u64)> {
        self.stacks.iter().map(|(stack, count)| {
            let texts = stack.iter().filter_map(|&label| self.labels.get_index(label));
            (texts.map(|(text, _)| text.as_ref()).collect(), *count)
        })
    }

    fn group(&mut self, name: &str) -> usize {
        self.label(printable_frame(name).as_ref(), Role::Group)
    }

    fn function(&mut self, frame: &NamedFrame<'_>) -> usize {
        let role = match frame.function {
            Some(_) => Role::Function { kind: frame.kind, inlined: frame.inlined },
            None => Role::Unknown,
        };
        self.label(&format!("{}{}", printable_frame(&frame.name), mark(frame)), role)
    }

    fn label(&mut self, text: &str, role: Role) -> usize {
        match self.labels.get_index_of(text) {
            Some(index) => index,
            None => self.labels.insert_full(Rc::from(text), role).0,
        }
    }
}

/// What is put behind the name of a function to tell its kind.
pub fn mark(frame: &NamedFrame<'_>) -> &'static str {
    match frame {
        NamedFrame { kind: FrameKind::Kernel, .. } => "_[k]",
        NamedFrame { inlined: true, .. } => "_[i]",
        _ => "",
    }
}

/// A reason as a frame: the last of a wait.
pub fn bracketed(reason: Reason) -> String {
    format!("[{}]", reason.as_str())
}

/// Writes the lines.
pub fn write(profile: &Profile, out: &mut dyn Write, options: &WriteOptions) -> io::Result<()> {
    for (stack, count) in Folded::new(profile, options).stacks() {
        writeln!(out, "{} {count}", stack.join(";"))?;
    }
    Ok(())
}
