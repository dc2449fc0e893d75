//! Programs of the object, loaded with an attach type that aya has no name for.

use std::collections::HashSet;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use aya::Ebpf;
use aya::maps::{Map, MapData};
use aya_obj::Object;
use aya_obj::generated::bpf_attach_type::BPF_TRACE_UPROBE_MULTI;
use aya_obj::generated::bpf_cmd::BPF_PROG_LOAD;
use aya_obj::generated::bpf_insn;
use aya_obj::generated::bpf_prog_type::BPF_PROG_TYPE_KPROBE;
use descry_decode::ids::Tgid;

use super::link::{Linked, Places};
use super::system::{attributes, bpf};
use super::{Hook, Site, link};
use crate::ProbeError;
use crate::doctor::Feature;
use crate::error::{VERIFIER_LINES, chain};

/// Bytes of the verifier's log.
const LOG_BYTES: usize = 256 << 10;

/// The maps that aya made, by name.
pub(crate) struct MapFds(Vec<(String, OwnedFd)>);

impl MapFds {
    /// All maps that are still in the object.
    pub(crate) fn of(ebpf: &Ebpf) -> Result<Self, ProbeError> {
        let duplicate = |(name, map)| {
            let fd = data(map).fd().as_fd().try_clone_to_owned();
            let fd = fd
                .map_err(|source| ProbeError::System { action: "duplicate the descriptor of a map", source });
            Ok((String::from(name), fd?))
        };
        Ok(Self(ebpf.maps().map(duplicate).collect::<Result<_, _>>()?))
    }
}

/// What is below every kind of map.
fn data(map: &Map) -> &MapData {
    match map {
        Map::Array(data)
        | Map::ArrayOfMaps(data)
        | Map::BloomFilter(data)
        | Map::CgroupArray(data)
        | Map::CgroupStorage(data)
        | Map::CgrpStorage(data)
        | Map::CpuMap(data)
        | Map::DevMap(data)
        | Map::DevMapHash(data)
        | Map::HashMap(data)
        | Map::HashOfMaps(data)
        | Map::InodeStorage(data)
        | Map::LpmTrie(data)
        | Map::LruHashMap(data)
        | Map::PerCpuArray(data)
        | Map::PerCpuCgroupStorage(data)
        | Map::PerCpuHashMap(data)
        | Map::PerCpuLruHashMap(data)
        | Map::PerfEventArray(data)
        | Map::ProgramArray(data)
        | Map::Queue(data)
        | Map::ReusePortSockArray(data)
        | Map::RingBuf(data)
        | Map::SockHash(data)
        | Map::SockMap(data)
        | Map::SkStorage(data)
        | Map::Stack(data)
        | Map::StackTraceMap(data)
        | Map::Unsupported(data)
        | Map::XskMap(data) => data,
    }
}

/// The programs for places.
pub(crate) struct Programs {
    programs: Vec<(Hook, OwnedFd)>,
    /// Whether they can be linked to many places at once.
    is_multi: bool,
}

impl Programs {
    /// Loads those of these hooks.
    pub(crate) fn load(object: &[u8], maps: &MapFds, hooks: &[Hook]) -> Result<Self, ProbeError> {
        let damaged = |error: &dyn std::error::Error| ProbeError::Program {
            program: hooks.first().map_or("", |hook| hook.program()),
            reason: chain(error),
        };
        let mut object = Object::parse(object).map_err(|error| damaged(&error))?;
        let text: HashSet<usize> = object.functions.keys().map(|(section, _)| *section).collect();
        let own = std::mem::take(&mut object.maps);
        let known =
            maps.0.iter().filter_map(|(name, fd)| Some((name.as_str(), fd.as_raw_fd(), own.get(name)?)));
        object.relocate_maps(known, &text).map_err(|error| damaged(&error))?;
        object.relocate_calls(&text).map_err(|error| damaged(&error))?;
        let load = |is_multi| -> Result<Vec<(Hook, OwnedFd)>, ProbeError> {
            hooks.iter().map(|hook| Ok((*hook, one(&object, *hook, is_multi)?))).collect()
        };
        if !Feature::UprobeMulti.is_hidden() {
            let programs = load(true)?;
            if programs.first().is_some_and(|(_, program)| link::knows_multi(program)) {
                return Ok(Self { programs, is_multi: true });
            }
        }
        tracing::info!("this kernel cannot probe many places at once (Linux 6.6): one by one takes longer");
        Ok(Self { programs: load(false)?, is_multi: false })
    }

    /// The program for a hook.
    fn get(&self, hook: Hook) -> Result<&OwnedFd, ProbeError> {
        let found = self.programs.iter().find(|(of, _)| *of == hook);
        found.map(|(_, program)| program).ok_or(ProbeError::Missing { name: hook.program() })
    }

    /// Links the program for a hook to places of a file, for one process or for all.
    pub(crate) fn link(
        &self,
        hook: Hook,
        file: &Path,
        tgid: Option<Tgid>,
        sites: &[Site],
    ) -> Result<Linked, ProbeError> {
        let path = CString::new(file.as_os_str().as_bytes())
            .map_err(|error| ProbeError::System { action: "name a file", source: io::Error::other(error) })?;
        let places = Places { program: self.get(hook)?, file: &path, tgid, is_return: hook.is_return() };
        let mut linked = Linked::default();
        if self.is_multi {
            link::many(&places, sites, &mut linked);
        } else {
            link::one_by_one(&places, sites, &mut linked);
        }
        Ok(linked)
    }
}

fn one(object: &Object, hook: Hook, is_multi: bool) -> Result<OwnedFd, ProbeError> {
    let name = hook.program();
    let missing = ProbeError::Missing { name };
    let Some(program) = object.programs.get(name) else { return Err(missing) };
    let Some(function) = object.functions.get(&program.function_key()) else { return Err(missing) };
    let instructions = &function.instructions;
    if let Ok(program) = load(object, instructions, is_multi, &mut []) {
        return Ok(program);
    }
    // Once more for the reason: writing the log takes time.
    let mut log = vec![0; LOG_BYTES];
    load(object, instructions, is_multi, &mut log).map_err(|error| {
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.trim_end_matches('\0').lines().collect();
        let tail = lines.get(lines.len().saturating_sub(VERIFIER_LINES)..).unwrap_or_default();
        ProbeError::Program { program: name, reason: format!("{error}\n{}", tail.join("\n")) }
    })
}

fn load(object: &Object, instructions: &[bpf_insn], is_multi: bool, log: &mut [u8]) -> io::Result<OwnedFd> {
    let mut attr = attributes();
    // SAFETY: every address points at memory of the length beside it, which outlives the call.
    unsafe {
        let load = &mut attr.__bindgen_anon_3;
        load.prog_type = BPF_PROG_TYPE_KPROBE as u32;
        load.insns = instructions.as_ptr() as u64;
        load.insn_cnt = instructions.len() as u32;
        load.license = object.license.as_ptr() as u64;
        if !log.is_empty() {
            load.log_level = 1;
            load.log_buf = log.as_mut_ptr() as u64;
            load.log_size = log.len() as u32;
        }
        if is_multi {
            load.expected_attach_type = BPF_TRACE_UPROBE_MULTI as u32;
        }
        bpf(BPF_PROG_LOAD, &mut attr)
    }
}
