//! Progress bars on stderr, if that is a terminal.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// A bar for a measurement of over a second; without an end if it has no duration.
pub fn of_measurement(duration: Option<Duration>) -> ProgressBar {
    let (bar, template) = match duration {
        Some(duration) if duration <= Duration::from_secs(1) => return ProgressBar::hidden(),
        Some(duration) => {
            (ProgressBar::new(duration.as_millis() as u64), "measuring {bar:30} {elapsed}/{duration} {msg}")
        }
        None => (ProgressBar::no_length(), "measuring {spinner} {elapsed} {msg}"),
    };
    bar.set_style(style(template));
    bar
}

/// A bar for the naming of so many places in code.
pub fn of_symbols(places: usize) -> ProgressBar {
    let bar = ProgressBar::new(places as u64);
    bar.set_style(style("reading symbols {bar:30} {pos}/{len}"));
    bar
}

fn style(template: &str) -> ProgressStyle {
    // The templates are constants; should one be wrong, the default is a bar too.
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
