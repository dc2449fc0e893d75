//! What is wrong with a configuration, and where.

use std::fmt;

/// Where a setting was written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// In the file; both count from 1, columns in characters.
    File {
        /// The line.
        line: usize,
        /// The column.
        column: usize,
    },
    /// In this variable of the environment.
    Variable(String),
}

/// One step from a setting to one inside of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The value of this key.
    Key(String),
    /// The item at this place, from 0.
    Item(usize),
}

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub origin: Origin,
    /// The setting.
    pub path: Vec<Step>,
    /// What is wrong with it. Holds no value of a header.
    pub reason: String,
}

/// Every mistake of a file; at least one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Problems(Vec<Problem>);

impl Problems {
    /// In the order of their places.
    #[must_use]
    pub fn new(mut problems: Vec<Problem>) -> Self {
        problems.sort_by(|left, right| left.origin.cmp(&right.origin));
        Self(problems)
    }

    /// The mistakes.
    #[must_use]
    pub fn list(&self) -> &[Problem] {
        &self.0
    }

    /// One line for each, beginning with the file's name as compilers do it.
    #[must_use]
    pub fn lines(&self, file: &str) -> Vec<String> {
        let line = |problem: &Problem| match &problem.origin {
            Origin::File { .. } => format!("{file}:{problem}"),
            Origin::Variable(_) => problem.to_string(),
        };
        self.0.iter().map(line).collect()
    }
}

/// Joined by semicolons.
impl fmt::Display for Problems {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            let separator = if index > 0 { "; " } else { "" };
            write!(formatter, "{separator}{problem}")?;
        }
        Ok(())
    }
}

/// `LINE:COLUMN: SETTING: REASON`
impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.origin {
            Origin::File { line, column } => write!(formatter, "{line}:{column}: ")?,
            Origin::Variable(name) => write!(formatter, "{name}: ")?,
        }
        if !self.path.is_empty() {
            write!(formatter, "{}: ", Path(&self.path))?;
        }
        formatter.write_str(&self.reason)
    }
}

/// A path as `destinations[0].tls.ca`.
struct Path<'a>(&'a [Step]);

impl fmt::Display for Path<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, step) in self.0.iter().enumerate() {
            match step {
                Step::Key(key) if index == 0 => write!(formatter, "{}", key.escape_debug())?,
                Step::Key(key) => write!(formatter, ".{}", key.escape_debug())?,
                Step::Item(item) => write!(formatter, "[{item}]")?,
            }
        }
        Ok(())
    }
}
