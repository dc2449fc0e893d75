//! The Firefox Profiler's processed format.
//!
//! A thread for each thread that is known, else one a process. Symbols are in the file already. Functions of their own
//! keep their library and address; inlined ones are labels above the function that they were put into. The last frame of
//! a wait is its reason in brackets, of a category of its own, by which the viewer colours the wait. Samples stand
//! at their times where these are known, else at even distances over the measurement. A sample weighs how often it
//! was taken; off the CPU and for elapsed time, milliseconds.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Write};
use std::time::Duration;

use descry_aggregate::profile::{
    FrameKind, Location, NamedFrame, Profile, ProfileKind, ProfileMapping, ProfileSample, Reason,
};
use fxprof_processed_profile::debugid::DebugId;
use fxprof_processed_profile::{
    CategoryColor, CategoryHandle, CategoryPairHandle, CpuDelta, Frame, FrameFlags, FrameInfo, LibraryHandle,
    LibraryInfo, Profile as Output, ReferenceTimestamp, SamplingInterval, StackHandle, Symbol, SymbolTable,
    ThreadHandle, Timestamp, WeightType,
};

use super::WriteOptions;
use super::escape::printable;
use super::folded::bracketed;
use super::summary;
use crate::otlp::TRUNCATED;

/// Distance between samples that is declared where it is not known.
const UNKNOWN_INTERVAL: Duration = Duration::from_millis(1);

/// Writes the file.
pub fn write(profile: &Profile, out: &mut dyn Write, _options: &WriteOptions) -> io::Result<()> {
    serde_json::to_writer(out, &Builder::new(profile).build()).map_err(io::Error::from)
}

struct Builder<'a> {
    profile: &'a Profile,
    output: Output,
    libraries: Vec<LibraryHandle>,
    categories: HashMap<FrameKind, CategoryPairHandle>,
    reasons: HashMap<Reason, CategoryHandle>,
}

impl<'a> Builder<'a> {
    fn new(profile: &'a Profile) -> Self {
        let interval = match profile.period {
            0 => UNKNOWN_INTERVAL,
            period => Duration::from_nanos(period),
        };
        let start = Duration::from_nanos(profile.start.0);
        let mut output = Output::new(
            &summary::subject(profile),
            ReferenceTimestamp::from_duration_since_unix_epoch(start),
            SamplingInterval::from(interval),
        );
        output.set_os_name("Linux");
        // All names are in the file: nothing is to be looked up.
        output.set_symbolicated(true);
        let user = output.add_category("User", CategoryColor::Yellow);
        let kernel = output.add_category("Kernel", CategoryColor::Orange);
        let kinds = [
            (FrameKind::Kernel, "Kernel"),
            (FrameKind::Native, "Native"),
            (FrameKind::Rust, "Rust"),
            (FrameKind::Go, "Go"),
            (FrameKind::V8Js, "JavaScript"),
            (FrameKind::Jvm, "JVM"),
            (FrameKind::Jit, "JIT"),
        ];
        let categories = kinds.into_iter().map(|(kind, name)| match kind {
            FrameKind::Kernel => (kind, kernel.into()),
            _ => (kind, output.add_subcategory(user, name)),
        });
        let categories = categories.collect();
        let libraries = libraries(profile, &mut output);
        Self { profile, output, libraries, categories, reasons: HashMap::new() }
    }

    fn build(mut self) -> Output {
        // Samples by process and thread: a thread's own, in their order.
        let mut threads: BTreeMap<(u32, Option<u32>), Vec<&ProfileSample>> = BTreeMap::new();
        for sample in &self.profile.samples {
            let key = (sample.process, sample.thread.map(|(tid, _)| tid.0));
            threads.entry(key).or_default().push(sample);
        }
        let begin = Timestamp::from_nanos_since_reference(0);
        let end = Timestamp::from_nanos_since_reference(nanos(self.profile.duration));
        let mut handles = HashMap::new();
        for ((index, tid), samples) in threads {
            let Some(process) = self.profile.processes.get(index as usize) else { continue };
            let name = printable(&process.name);
            let output = &mut self.output;
            let handle = *handles.entry(index).or_insert_with(|| {
                let handle = output.add_process(&name, process.tgid.0, begin);
                output.set_process_end_time(handle, end);
                handle
            });
            let tid = tid.unwrap_or(process.tgid.0);
            let thread = output.add_thread(handle, tid, begin, tid == process.tgid.0);
            output.set_thread_end_time(thread, end);
            let comm = samples.first().and_then(|sample| sample.thread).map(|(_, comm)| comm.to_string());
            output.set_thread_name(thread, comm.as_deref().map_or(name, printable).as_ref());
            self.add_samples(thread, &samples);
        }
        self.output
    }

    fn add_samples(&mut self, thread: ThreadHandle, samples: &[&ProfileSample]) {
        let mut moments = moments(self.profile, samples);
        moments.sort_by_key(|moment| moment.at);
        if self.profile.kind != ProfileKind::Cpu {
            self.output.set_thread_samples_weight_type(thread, WeightType::TracingMs);
        }
        let mut stacks: HashMap<(u32, Option<Reason>), Option<StackHandle>> = HashMap::new();
        // The format takes whole milliseconds: what rounding takes from one sample goes to the next.
        let (mut time, mut written) = (0u64, 0u64);
        for moment in moments {
            let shown = (moment.stack, moment.reason);
            let stack = match stacks.get(&shown) {
                Some(&stack) => stack,
                None => {
                    let stack = self.stack(thread, moment.stack, moment.reason);
                    stacks.insert(shown, stack);
                    stack
                }
            };
            time = time.saturating_add(moment.weight);
            let milliseconds = (time.saturating_add(500_000) / 1_000_000).saturating_sub(written);
            written = written.saturating_add(milliseconds);
            let (weight, cpu) = match self.profile.kind {
                ProfileKind::Cpu => (moment.count, moment.weight),
                ProfileKind::OffCpu | ProfileKind::Wall => (milliseconds, 0),
            };
            self.output.add_sample(
                thread,
                Timestamp::from_nanos_since_reference(moment.at),
                stack,
                CpuDelta::from_nanos(cpu),
                i32::try_from(weight).unwrap_or(i32::MAX),
            );
        }
    }

    fn stack(&mut self, thread: ThreadHandle, index: u32, reason: Option<Reason>) -> Option<StackHandle> {
        let profile = self.profile;
        let mut frames = Vec::new();
        if profile.stacks.get(index as usize).is_some_and(|stack| stack.truncated) {
            frames.push(self.label(TRUNCATED, FrameKind::Native));
        }
        frames.extend(profile.named_frames(index).map(|frame| self.frame(&frame)));
        frames.extend(reason.map(|reason| self.reason(reason)));
        self.output.intern_stack_frames(thread, frames.into_iter())
    }

    fn frame(&mut self, frame: &NamedFrame<'_>) -> FrameInfo {
        let location = self.profile.locations.get(frame.location as usize).filter(|_| !frame.inlined);
        let relative = location.and_then(|location| {
            let index = location.mapping? as usize;
            let address = relative_address(self.profile.mappings.get(index)?, location)?;
            Some((*self.libraries.get(index)?, address))
        });
        let mut info = self.label(&printable(&frame.name), frame.kind);
        if let Some((library, address)) = relative {
            info.frame = Frame::RelativeAddressFromInstructionPointer(library, address);
        }
        info
    }

    /// Why a thread waited: a frame whose category is the reason.
    fn reason(&mut self, reason: Reason) -> FrameInfo {
        let output = &mut self.output;
        let category = self
            .reasons
            .entry(reason)
            .or_insert_with(|| output.add_category(&format!("Waiting: {}", reason.as_str()), colour(reason)));
        FrameInfo {
            frame: Frame::Label(self.output.intern_string(&bracketed(reason))),
            category_pair: (*category).into(),
            flags: FrameFlags::empty(),
        }
    }

    fn label(&mut self, name: &str, kind: FrameKind) -> FrameInfo {
        FrameInfo {
            frame: Frame::Label(self.output.intern_string(name)),
            category_pair: self.categories.get(&kind).copied().unwrap_or(CategoryHandle::OTHER.into()),
            flags: if kind == FrameKind::V8Js { FrameFlags::IS_JS } else { FrameFlags::empty() },
        }
    }
}

fn colour(reason: Reason) -> CategoryColor {
    match reason {
        Reason::NetworkRead | Reason::NetworkWrite => CategoryColor::Blue,
        Reason::NetworkAccept | Reason::NetworkConnect | Reason::NetworkPoll => CategoryColor::LightBlue,
        Reason::Lock => CategoryColor::Red,
        Reason::Disk => CategoryColor::Brown,
        Reason::PageFault => CategoryColor::Magenta,
        Reason::Pipe => CategoryColor::Purple,
        Reason::Child => CategoryColor::Green,
        Reason::Sleep => CategoryColor::Transparent,
        Reason::RunQueue => CategoryColor::LightRed,
        Reason::Stopped | Reason::Other => CategoryColor::Gray,
    }
}

/// A sample, or equal ones that are shown at one time.
struct Moment {
    /// Since the start of the profile (ns).
    at: u64,
    stack: u32,
    /// Why it waited; none: it did not.
    reason: Option<Reason>,
    count: u64,
    weight: u64,
}

fn moments(profile: &Profile, samples: &[&ProfileSample]) -> Vec<Moment> {
    let length = nanos(profile.duration);
    let mut moments = Vec::new();
    for (index, sample) in samples.iter().enumerate() {
        let (stack, reason) = (sample.stack, sample.waited.map(|waited| waited.reason));
        if sample.timestamps.is_empty() {
            let at = u128::from(length) * (index as u128) / (samples.len() as u128);
            let at = u64::try_from(at).unwrap_or(length);
            moments.push(Moment { at, stack, reason, count: sample.count, weight: sample.weight });
            continue;
        }
        let each = sample.weight / sample.timestamps.len() as u64;
        let mut weight = sample.weight - each * sample.timestamps.len() as u64 + each;
        for time in &sample.timestamps {
            let at = time.0.saturating_sub(profile.start.0);
            moments.push(Moment { at, stack, reason, count: 1, weight });
            weight = each;
        }
    }
    moments
}

/// The format's addresses are 32 bits, counted from the start of the binary: those of ELF files are, and the kernel's
/// once its start is taken off.
fn relative_address(mapping: &ProfileMapping, location: &Location) -> Option<u32> {
    let base = if location.kind == FrameKind::Kernel { mapping.start } else { 0 };
    u32::try_from(location.address.checked_sub(base)?).ok()
}

fn libraries(profile: &Profile, output: &mut Output) -> Vec<LibraryHandle> {
    let mut symbols: Vec<Vec<Symbol>> = vec![Vec::new(); profile.mappings.len()];
    for location in &profile.locations {
        let Some(index) = location.mapping.map(|index| index as usize) else { continue };
        let (Some(symbols), Some(mapping)) = (symbols.get_mut(index), profile.mappings.get(index)) else {
            continue;
        };
        let Some(address) = relative_address(mapping, location) else { continue };
        let function = location.lines.last().and_then(|line| profile.functions.get(line.function as usize));
        let name = match function {
            Some(function) => printable(&function.name).into_owned(),
            None => printable(&profile.unknown_name(location)).into_owned(),
        };
        symbols.push(Symbol { address, size: Some(1), name });
    }
    let libraries = profile.mappings.iter().zip(symbols).map(|(mapping, symbols)| {
        let name = printable(mapping.path.rsplit('/').next().unwrap_or_default()).into_owned();
        output.add_lib(LibraryInfo {
            name: name.clone(),
            debug_name: name,
            path: mapping.path.as_ref().to_owned(),
            debug_path: mapping.path.as_ref().to_owned(),
            debug_id: debug_id(mapping),
            code_id: mapping.gnu_build_id.as_deref().map(str::to_owned),
            arch: None,
            symbol_table: Some(std::sync::Arc::new(SymbolTable::new(symbols))),
        })
    });
    libraries.collect()
}

/// Breakpad's id of an ELF file: the first 16 bytes of its build id, read as a GUID.
fn debug_id(mapping: &ProfileMapping) -> DebugId {
    let digits = mapping.gnu_build_id.as_deref().unwrap_or_default();
    let mut guid = [0u8; 16];
    for (byte, digits) in guid.iter_mut().zip(digits.as_bytes().chunks(2)) {
        let parsed = std::str::from_utf8(digits).ok().and_then(|digits| u8::from_str_radix(digits, 16).ok());
        *byte = parsed.unwrap_or(0);
    }
    DebugId::from_guid_age(&guid, 0).unwrap_or_default()
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
