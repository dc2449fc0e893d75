//! The machine's CPUs.

use crate::ProbeError;

/// Numbers of the CPUs that run now.
pub fn online_cpus() -> Result<Vec<u32>, ProbeError> {
    read("/sys/devices/system/cpu/online")
}

/// Numbers of the CPUs that may ever run.
pub fn possible_cpus() -> Result<Vec<u32>, ProbeError> {
    read("/sys/devices/system/cpu/possible")
}

fn read(path: &str) -> Result<Vec<u32>, ProbeError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| ProbeError::System { action: "read the list of CPUs", source })?;
    Ok(parse(&text))
}

/// CPUs that a list names at most (the kernel's NR_CPUS is at most 8192).
const MAX_CPUS: u32 = 8192;

/// `0-3,8` to numbers. What is not a number or a range is passed over.
fn parse(text: &str) -> Vec<u32> {
    let mut cpus = Vec::new();
    for part in text.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(first), Ok(last)) = (first.parse::<u32>(), last.parse::<u32>()) {
            cpus.extend(first..=last.min(MAX_CPUS));
        }
    }
    cpus
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn reads_ranges_and_single_numbers() {
        assert_eq!(parse("0-3,8,10-11\n"), [0, 1, 2, 3, 8, 10, 11]);
        assert_eq!(parse("0\n"), [0]);
        assert_eq!(parse(""), [0; 0]);
    }
}
