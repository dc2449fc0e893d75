//! Symbolizes addresses of a file and tells what it cost: `symbolize FILE [DEBUG_FILE] -- [ADDRESS...|COUNT%]`.
//!
//! Addresses are hex (ELF); `1000%` takes 1000 of them, spread evenly over the code of the file.

use std::io::Write as _;
use std::time::Instant;

use descry_decode::ids::ElfAddress;
use descry_symbol::{ObjectSource, Options, Symbolizer};
use object::read::{Object as _, ObjectSection as _};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let split = arguments.iter().position(|argument| argument == "--").unwrap_or(arguments.len());
    let (files, wanted) = arguments.split_at(split);
    let path = files.first().ok_or("usage: symbolize FILE [DEBUG_FILE] -- [ADDRESS...|COUNT%]")?;
    let mut addresses = Vec::new();
    for wanted in wanted.iter().skip(1) {
        match wanted.strip_suffix('%') {
            Some(count) => addresses.extend(spread(path, count.parse()?)?),
            None => addresses.push(u64::from_str_radix(wanted.trim_start_matches("0x"), 16)?),
        }
    }
    let addresses: Vec<ElfAddress> = addresses.into_iter().map(ElfAddress).collect();
    let source = ObjectSource {
        open_path: path.into(),
        name: path.as_str().into(),
        debug_path: files.get(1).map(Into::into),
        is_go: false,
        is_rust: false,
    };
    let mut symbolizer = Symbolizer::new(Options::default());
    let before = kib("VmHWM:")?;
    let start = Instant::now();
    let outcome = symbolizer.symbolize_object(&source, &addresses);
    let took = start.elapsed();
    let mut out = std::io::stdout().lock();
    for (address, symbol) in addresses.iter().zip(&outcome.symbols) {
        writeln!(out, "{address}")?;
        for frame in &symbol.frames {
            let file = frame.file.as_deref().unwrap_or("??");
            let system_name = frame.system_name.as_deref().unwrap_or(&frame.function);
            writeln!(out, "  {}\t{system_name}\t{file}:{}", frame.function, frame.line.unwrap_or(0))?;
        }
    }
    for problem in &outcome.problems {
        eprintln!("{problem}");
    }
    eprintln!(
        "{} addresses in {took:?}; peak RSS {before} KiB before, {} KiB after; then {} KiB, of which {} of files",
        addresses.len(),
        kib("VmHWM:")?,
        kib("VmRSS:")?,
        kib("RssFile:")?
    );
    for (name, _, value) in symbolizer.counters().entries() {
        eprintln!("{name} {value}");
    }
    Ok(())
}

/// A figure of `/proc/self/status` in KiB.
fn kib(field: &str) -> Result<u64, Box<dyn std::error::Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(field)).ok_or("no such field")?;
    Ok(line.trim().trim_end_matches(" kB").trim().parse()?)
}

/// Addresses spread over the text section; only headers are read, so as not to disturb the measurement.
fn spread(path: &str, count: u64) -> Result<Vec<u64>, Box<dyn std::error::Error>> {
    let cache = object::ReadCache::new(std::fs::File::open(path)?);
    let file = object::File::parse(&cache)?;
    let text = file.section_by_name(".text").ok_or("no .text")?;
    let step = (text.size() / count.max(1)).max(1);
    Ok((0..count).map(|index| text.address() + index * step).collect())
}
