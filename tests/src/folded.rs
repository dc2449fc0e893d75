//! Folded stacks, as `descry profile --format folded` writes them.

use anyhow::{Context, Result, ensure};

/// One frame of a folded stack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Without the suffixes.
    pub name: String,
    /// Whether it ended in `_[k]`.
    pub kernel: bool,
    /// Whether it ended in `_[i]`.
    pub inlined: bool,
}

impl Frame {
    fn parse(text: &str) -> Self {
        let (text, kernel) = text.strip_suffix("_[k]").map_or((text, false), |text| (text, true));
        let (text, inlined) = text.strip_suffix("_[i]").map_or((text, false), |text| (text, true));
        Self { name: text.to_owned(), kernel, inlined }
    }

    /// Whether it is `[FILE+0xOFFSET]`.
    pub fn unknown(&self) -> bool {
        self.name.starts_with('[') && self.name.ends_with(']') && self.name.contains("+0x")
    }

    /// Whether this is the function of that name, whatever its parameters, generic arguments or the compiler's
    /// suffixes (`.constprop.0`). A `*` at the beginning or the end stands for anything; a final `_[i]` asks that it be
    /// inlined, a final `_[k]` that it be the kernel's.
    pub fn is(&self, wanted: &str) -> bool {
        let Frame { name: wanted, kernel, inlined } = Self::parse(wanted);
        if (kernel && !self.kernel) || (inlined && !self.inlined) {
            return false;
        }
        match (wanted.strip_prefix('*'), wanted.strip_suffix('*')) {
            (Some(wanted), Some(_)) => self.name.contains(wanted.trim_end_matches('*')),
            (Some(end), None) => self.name.ends_with(end),
            (None, Some(start)) => self.name.starts_with(start),
            (None, None) => self
                .name
                .strip_prefix(&*wanted)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(['(', '<', '.', ' '])),
        }
    }
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stack {
    /// The process name.
    pub process: String,
    /// Whether `[truncated]` followed it.
    pub truncated: bool,
    /// Root first. With `--per-thread` the first is the thread's name.
    pub frames: Vec<Frame>,
    /// Samples, or microseconds.
    pub count: u64,
}

impl Stack {
    fn parse(line: &str) -> Result<Self> {
        let (stack, count) = line.rsplit_once(' ').context("no count")?;
        let count = count.parse().with_context(|| format!("{count:?} is no count"))?;
        let mut parts = stack.split(';');
        let process = parts.next().unwrap_or_default().to_owned();
        ensure!(!process.is_empty(), "no process name");
        let mut frames: Vec<Frame> = parts.map(Frame::parse).collect();
        ensure!(frames.iter().all(|frame| !frame.name.is_empty()), "a frame without a name");
        let truncated = frames.iter().take(2).position(|frame| frame.name == "[truncated]");
        if let Some(index) = truncated {
            frames.remove(index);
        }
        Ok(Self { process, truncated: truncated.is_some(), frames, count })
    }

    /// Whether the stack is this, root first, each as [`Frame::is`] takes it; `..` stands for any number of frames.
    pub fn matches(&self, path: &[&str]) -> bool {
        matches(&self.frames, path)
    }

    /// How many of its frames are the function of that name.
    pub fn count_of(&self, name: &str) -> usize {
        self.frames.iter().filter(|frame| frame.is(name)).count()
    }

    /// Whether it has a frame of that name.
    pub fn has(&self, name: &str) -> bool {
        self.count_of(name) > 0
    }

    /// As it was written, without the count.
    pub fn text(&self) -> String {
        let mut text = self.process.clone();
        if self.truncated {
            text.push_str(";[truncated]");
        }
        for frame in &self.frames {
            text.push(';');
            text.push_str(&frame.name);
            text.push_str(if frame.kernel { "_[k]" } else { "" });
            text.push_str(if frame.inlined { "_[i]" } else { "" });
        }
        text
    }
}

fn matches(frames: &[Frame], path: &[&str]) -> bool {
    match path.split_first() {
        None => frames.is_empty(),
        Some((&"..", rest)) => (0..=frames.len()).any(|skipped| matches(&frames[skipped..], rest)),
        Some((wanted, rest)) => {
            frames.split_first().is_some_and(|(frame, frames)| frame.is(wanted) && matches(frames, rest))
        }
    }
}

/// A whole file.
#[derive(Clone, Debug, Default)]
pub struct Folded {
    /// Its lines.
    pub stacks: Vec<Stack>,
}

impl Folded {
    /// Reads it; every line must be right, and no stack may come twice.
    ///
    /// # Errors
    /// Names the line that is not.
    pub fn parse(text: &str) -> Result<Self> {
        let stacks: Vec<Stack> = text
            .lines()
            .map(|line| Stack::parse(line).with_context(|| format!("not a folded stack: {line:?}")))
            .collect::<Result<_>>()?;
        let mut texts: Vec<String> = stacks.iter().map(Stack::text).collect();
        texts.sort_unstable();
        let twice = texts.windows(2).find(|pair| pair[0] == pair[1]);
        ensure!(twice.is_none(), "a stack comes twice: {twice:?}");
        Ok(Self { stacks })
    }

    /// The stacks for which `keep` is true.
    pub fn filter(&self, keep: impl Fn(&Stack) -> bool) -> Self {
        Self { stacks: self.stacks.iter().filter(|stack| keep(stack)).cloned().collect() }
    }

    /// The stacks of the processes of that name.
    pub fn of(&self, process: &str) -> Self {
        self.filter(|stack| stack.process == process)
    }

    /// The sum of all counts.
    pub fn total(&self) -> u64 {
        self.stacks.iter().map(|stack| stack.count).sum()
    }

    /// The part of all counts (0 to 1) in stacks for which `keep` is true; 0 of nothing.
    pub fn share(&self, keep: impl Fn(&Stack) -> bool) -> f64 {
        let total = self.total();
        if total == 0 { 0.0 } else { self.filter(keep).total() as f64 / total as f64 }
    }

    /// The part in stacks that have the function of that name anywhere.
    pub fn total_of(&self, name: &str) -> f64 {
        self.share(|stack| stack.has(name))
    }

    /// The part in stacks whose leaf is the function of that name.
    pub fn self_of(&self, name: &str) -> f64 {
        self.share(|stack| stack.frames.last().is_some_and(|frame| frame.is(name)))
    }

    /// The heaviest stacks, shortened in their middle, for the message of a failed test.
    pub fn heaviest(&self, lines: usize) -> String {
        let mut stacks: Vec<&Stack> = self.stacks.iter().collect();
        stacks.sort_by_key(|stack| std::cmp::Reverse(stack.count));
        let lines: Vec<String> = stacks
            .iter()
            .take(lines)
            .map(|stack| format!("{:>7}  {}", stack.count, shortened(&stack.text())))
            .collect();
        lines.join("\n")
    }
}

/// The first and the last 400 bytes of a long text.
fn shortened(text: &str) -> String {
    let (start, end) = (text.get(..400), text.get(text.len().saturating_sub(400)..));
    match (start, end) {
        (Some(start), Some(end)) if text.len() > 1000 => format!("{start} ... {end}"),
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::Folded;

    #[test]
    fn frames_and_marks_are_read() {
        let folded = Folded::parse(
            "shop;_start;main;cycle_[i];work(int, long) 6\n\
             shop;[truncated];[shop+0x1f];do_syscall_64_[k] 4\n",
        );
        let folded = folded.unwrap();
        assert_eq!(folded.total(), 10);
        assert_eq!(folded.total_of("work"), 0.6);
        assert_eq!(folded.self_of("do_syscall_64_[k]"), 0.4);
        assert!(folded.stacks[0].matches(&["_start", "..", "cycle_[i]", "work"]));
        assert!(!folded.stacks[0].matches(&["_start", "..", "main_[i]", ".."]));
        assert!(folded.stacks[1].truncated && folded.stacks[1].frames[0].unknown());
    }

    #[test]
    fn a_line_that_is_not_right_is_named() {
        for (text, reason) in [("a;b", "no count"), ("a;;b 1", "without a name"), ("a;b 1\na;b 2", "twice")] {
            let error = format!("{:#}", Folded::parse(text).unwrap_err());
            assert!(error.contains(reason), "{error}");
        }
    }
}
