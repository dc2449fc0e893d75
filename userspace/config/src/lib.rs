//! The agent's configuration: one YAML file, and variables of the environment that override it.
//!
//! [`load`] takes the text of a file and a look-up of variables; you get a [`Loaded`] configuration, or every mistake
//! with its line, its column and the reason. An empty file is valid: each setting has a default. [`DEFAULT`] shows them
//! all, [`schema`] describes them. It opens no file but to see whether those that the configuration names are readable.
#![forbid(unsafe_code)]

mod check;
mod destination;
mod environment;
mod model;
mod problem;
mod scalar;
mod semantics;
mod yaml;

use serde_json::Value;

pub use destination::{
    Balancing, Compression, Destination, Filter, FilterAction, Protocol, Queue, Redaction, SignalName, Spool,
    TlsSettings,
};
pub use model::{
    Config, FileOutput, Health, Logs, OffCpu, Profile, RequestProtocol, Requests, ResourceSettings, Rule,
    Sampler, Switches, Syscalls, Telemetry,
};
pub use problem::{Origin, Problem, Problems, Step};
pub use scalar::{Address, Expression, Pattern, Period, Ratio, Size, Url};

/// A file with every setting, its meaning and its default.
pub const DEFAULT: &str = include_str!("default.yaml");

/// Bytes of a configuration file at most.
pub const MAX_BYTES: usize = 1 << 20;

/// A configuration, and where each part of it was written.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What it says.
    pub config: Config,
    tree: yaml::Node,
}

impl Loaded {
    /// Where the setting was written; of one that was not written, the nearest one around it that was.
    #[must_use]
    pub fn origin(&self, path: &[Step]) -> Origin {
        self.tree.nearest(path).origin.clone()
    }
}

/// Reads the text of a file. `variable` gives the value of a variable of the environment.
///
/// # Errors
/// All mistakes, in the order of their places.
pub fn load(text: &str, variable: impl Fn(&str) -> Option<String>) -> Result<Loaded, Problems> {
    let schema = schema();
    let mut problems = Vec::new();
    let Some(mut tree) = yaml::parse(text, &mut problems) else { return Err(Problems::new(problems)) };
    environment::apply(&mut tree, &schema, &variable, &mut problems);
    check::check(&tree, &schema, &mut problems);
    if !problems.is_empty() {
        return Err(Problems::new(problems));
    }
    let config: Config = serde_json::from_value(tree.to_json()).map_err(|error| {
        Problems::new(vec![Problem {
            origin: tree.origin.clone(),
            path: Vec::new(),
            reason: error.to_string(),
        }])
    })?;
    let found = semantics::problems(&config).into_iter();
    problems.extend(found.map(|(path, reason)| Problem {
        origin: tree.nearest(&path).origin.clone(),
        path,
        reason,
    }));
    if problems.is_empty() { Ok(Loaded { config, tree }) } else { Err(Problems::new(problems)) }
}

/// The JSON Schema (draft 2020-12) of the file.
#[must_use]
pub fn schema() -> Value {
    let settings =
        schemars::generate::SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    settings.into_generator().into_root_schema_for::<Config>().to_value()
}

/// Names of the variables that override a setting, each with the setting's path.
#[must_use]
pub fn variables() -> Vec<(String, Vec<String>)> {
    environment::variables(&schema())
}
