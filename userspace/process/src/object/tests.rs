use std::os::linux::fs::MetadataExt;
use std::path::Path;

use descry_decode::ids::Tgid;

use super::*;
use crate::maps::Device;

const SHT_NOTE: u32 = 7;
const SHF_COMPRESSED: u64 = 1 << 11;

/// A section: (name, `sh_type`, `sh_flags`, content).
type MadeSection<'a> = (&'a str, u32, u64, &'a [u8]);

/// A little-endian 64-bit ELF file for x86_64 with these sections and one executable segment of the whole file.
fn made_elf(sections: &[MadeSection<'_>]) -> Vec<u8> {
    let mut names = b"\0".to_vec();
    let mut body = Vec::new();
    let mut headers = vec![0u8; 64];
    let start = 64 + 56;
    let all = sections.iter().copied().chain([(".shstrtab", 3, 0, &b""[..])]);
    for (name, kind, flags, data) in all {
        let name_at = names.len() as u32;
        names.extend(name.as_bytes());
        names.push(0);
        let data = if name == ".shstrtab" { names.clone() } else { data.to_vec() };
        let offset = (start + body.len()) as u64;
        headers.extend(name_at.to_le_bytes());
        headers.extend(kind.to_le_bytes());
        for field in [flags, 0, offset, data.len() as u64, 0, 4, 0] {
            headers.extend(field.to_le_bytes());
        }
        body.extend(&data);
        body.resize(body.len().next_multiple_of(8), 0);
    }
    let section_headers = (start + body.len()) as u64;
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    file.extend(3u16.to_le_bytes());
    file.extend(62u16.to_le_bytes());
    file.extend(1u32.to_le_bytes());
    for field in [0, 64, section_headers] {
        file.extend(u64::to_le_bytes(field));
    }
    file.extend(0u32.to_le_bytes());
    let count = sections.len() as u16 + 2;
    for field in [64, 56, 1, 64, count, count - 1] {
        file.extend(u16::to_le_bytes(field));
    }
    file.extend(1u32.to_le_bytes());
    file.extend(5u32.to_le_bytes());
    for field in [0, 0x1000, 0x1000, section_headers, section_headers, 0x1000] {
        file.extend(u64::to_le_bytes(field));
    }
    file.extend(body);
    file.extend(headers);
    file
}

fn note(name: &[u8], kind: u32, id: &[u8]) -> Vec<u8> {
    let mut note = Vec::new();
    for field in [name.len() as u32, id.len() as u32, kind] {
        note.extend(field.to_le_bytes());
    }
    for part in [name, id] {
        note.extend(part);
        note.resize(note.len().next_multiple_of(4), 0);
    }
    note
}

fn parse(bytes: &[u8]) -> Result<Object, ElfError> {
    Object::parse(ObjectId(0), "/made".into(), Content::Bytes(bytes.into()))
}

#[test]
fn build_ids_and_languages_come_from_sections() {
    let gnu = note(b"GNU\0", 3, &[0xab, 0xcd, 0xef]);
    let go = note(b"Go\0\0", 4, b"go/build/id");
    let file = made_elf(&[
        (".note.gnu.build-id", SHT_NOTE, 0, &gnu),
        (".note.go.buildid", SHT_NOTE, 0, &go),
        (".comment", 1, 0, b"GCC: 14\0rustc version 1.95.0\0"),
    ]);
    let object = parse(&file).unwrap();
    assert_eq!(object.gnu_build_id.as_deref(), Some("abcdef"));
    assert_eq!(object.go_build_id.as_deref(), Some("go/build/id"));
    assert!(object.is_go && object.is_rust);
    assert_eq!(object.architecture, Architecture::X86_64);
}

#[test]
fn the_htlhash_is_that_of_both_ends_and_the_length() {
    let file = made_elf(&[(".data", 1, 0, &[7; 10_000])]);
    let mut hashed = file[..4096].to_vec();
    hashed.extend(&file[file.len() - 4096..]);
    hashed.extend((file.len() as u64).to_be_bytes());
    let expected = hex(&Sha256::digest(&hashed)[..16]);
    assert_eq!(&*parse(&file).unwrap().htlhash, expected);
}

#[test]
fn sections_are_read_with_a_limit_and_decompressed() {
    // Chdr: zlib, 5 bytes, alignment 1; then "hello" as stored by zlib.
    let mut compressed = Vec::new();
    compressed.extend(1u32.to_le_bytes());
    compressed.extend(0u32.to_le_bytes());
    compressed.extend(5u64.to_le_bytes());
    compressed.extend(1u64.to_le_bytes());
    compressed.extend([0x78, 0x01, 0x01, 5, 0, 0xfa, 0xff]);
    compressed.extend(b"hello");
    compressed.extend([0x06, 0x2c, 0x02, 0x15]);
    let mut bomb = compressed.clone();
    bomb[8..16].copy_from_slice(&u64::MAX.to_le_bytes());
    let file = made_elf(&[
        (".plain", 1, 0, b"plain"),
        (".compressed", 1, SHF_COMPRESSED, &compressed),
        (".bomb", 1, SHF_COMPRESSED, &bomb),
        (".bss", 8, 0, b""),
    ]);
    let object = parse(&file).unwrap();
    let data = |name| object.read_section(name).map(|section| section.map(|section| section.data));
    assert_eq!(data(".plain").unwrap().as_deref(), Some(&b"plain"[..]));
    assert_eq!(data(".compressed").unwrap().as_deref(), Some(&b"hello"[..]));
    assert_eq!(data(".bss").unwrap(), None);
    assert_eq!(data(".missing").unwrap(), None);
    assert!(matches!(data(".bomb"), Err(ElfError::TooLarge { .. })));
    assert!(matches!(object.read_range(FileOffset(1), u64::MAX), Err(ElfError::TooLarge { .. })));
    assert!(matches!(object.read_range(FileOffset(u64::MAX), 2), Err(ElfError::OutOfFile { .. })));
    assert!(matches!(object.read_all(10), Err(ElfError::TooLarge { .. })));
    assert_eq!(object.read_all(1 << 20).unwrap(), file);
}

/// Segments are (`p_offset`, `p_vaddr`, `p_filesz`, executable); gives the bias of a mapping and an address in it.
fn check_addresses(segments: &[(u64, u64, u64, bool)], start: u64, offset: u64, bias: Option<u64>) {
    let mut object = parse(&made_elf(&[])).unwrap();
    object.segments = segments
        .iter()
        .map(|&(file_offset, vaddr, size, executable)| Segment {
            file_offset,
            vaddr: ElfAddress(vaddr),
            file_size: size,
            mem_size: size,
            executable,
        })
        .collect();
    assert_eq!(object.bias(RuntimeAddress(start), FileOffset(offset), 4096), bias);
}

#[test]
fn biases_follow_the_loader() {
    // As GNU ld lays out: code page-aligned, offset = address.
    let plain = [(0, 0, 0x500, false), (0x1000, 0x1000, 0x2000, true), (0x3000, 0x3000, 0x100, false)];
    check_addresses(&plain, 0x5555_0000_1000, 0x1000, Some(0x5555_0000_0000));
    // Split by mprotect.
    check_addresses(&plain, 0x5555_0000_2000, 0x2000, Some(0x5555_0000_0000));
    // As lld and gold do: the segment begins inside a page that is mapped whole, and addresses differ from offsets.
    let packed = [(0, 0, 0x1234, false), (0x1234, 0x2234, 0x3000, true)];
    check_addresses(&packed, 0x7f00_0000_2000, 0x1000, Some(0x7f00_0000_0000));
    // Not relocated (non-PIE).
    check_addresses(&[(0x1000, 0x40_1000, 0x1000, true)], 0x40_1000, 0x1000, Some(0));
    // A mapping below the file's own numbering wraps.
    check_addresses(&[(0, 0x1_0000, 0x1000, true)], 0x1000, 0, Some(0u64.wrapping_sub(0xf000)));
    // Outside of all segments.
    check_addresses(&plain, 0x5555_0000_0000, 0x9000, None);
    check_addresses(&[(u64::MAX, u64::MAX, u64::MAX, true)], 0x1000, 0, None);
    check_addresses(&[], 0x1000, 0, None);
}

#[test]
fn file_offsets_become_addresses() {
    let object = parse(&made_elf(&[])).unwrap();
    assert_eq!(object.elf_address(FileOffset(0x10)), Some(ElfAddress(0x1010)));
    assert_eq!(object.elf_address(FileOffset(1 << 40)), None);
}

#[test]
fn garbage_is_an_error_and_never_a_panic() {
    let gnu = note(b"GNU\0", 3, &[1; 20]);
    let good = made_elf(&[(".note.gnu.build-id", SHT_NOTE, 0, &gnu), (".comment", 1, 0, b"rustc version")]);
    assert!(matches!(parse(b""), Err(ElfError::NoHeader)));
    assert!(matches!(parse(b"#!/bin/sh\n echo not an ELF file"), Err(ElfError::NoHeader)));
    for len in 0..good.len() {
        drop(parse(&good[..len]));
    }
    // Every field in turn with its extremes, and pairs of bytes from a fixed generator.
    for at in 0..good.len() {
        for value in [0, 1, 0x7f, 0x80, 0xff] {
            let mut bad = good.clone();
            bad[at] = value;
            try_all(&bad);
        }
    }
    let mut state = 1u64;
    for _ in 0..20_000 {
        let mut bad = good.clone();
        for _ in 0..4 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let at = (state >> 33) as usize % bad.len();
            bad[at] = (state >> 24) as u8;
        }
        try_all(&bad);
    }
}

fn try_all(bytes: &[u8]) {
    if let Ok(object) = parse(bytes) {
        drop(object.read_section(".comment"));
        object.elf_address(FileOffset(0x80));
        object.bias(RuntimeAddress(0x1000), FileOffset(0x1000), 4096);
        debug_file(&object, None);
    }
}

fn open_own(objects: &mut Objects, path: &Path) -> Result<Arc<Object>, ObjectError> {
    let metadata = std::fs::metadata(path).unwrap();
    let wanted = FileReference {
        path,
        inode: Some((Device::from_stat(metadata.st_dev()), metadata.st_ino())),
        build_id: None,
        range: None,
        current: false,
    };
    objects.acquire(Tgid(std::process::id()), &wanted)
}

#[test]
fn equal_binaries_are_one_and_ids_outlive_eviction() {
    let directory = tempfile::tempdir().unwrap();
    let limit = ObjectLimits { open: 2.try_into().unwrap() };
    let mut objects = Objects::new(limit);
    let path = |name: &str| directory.path().join(name);
    for (name, id) in [("a", 1), ("copy-of-a", 1), ("b", 2), ("c", 3)] {
        let gnu = note(b"GNU\0", 3, &[id; 20]);
        std::fs::write(path(name), made_elf(&[(".note.gnu.build-id", SHT_NOTE, 0, &gnu)])).unwrap();
    }
    let first = open_own(&mut objects, &path("a")).unwrap().id;
    assert_eq!(open_own(&mut objects, &path("copy-of-a")).unwrap().id, first);
    let second = open_own(&mut objects, &path("b")).unwrap().id;
    assert_ne!(first, second);
    open_own(&mut objects, &path("c")).unwrap();
    assert!(objects.get(first).is_none(), "closed: only two may be open");
    assert_eq!(open_own(&mut objects, &path("copy-of-a")).unwrap().id, first, "the same id again");
    let counters = objects.counters();
    assert_eq!((counters.opened, counters.reused, counters.reopened, counters.evicted), (3, 1, 1, 2));
}

#[test]
fn only_regular_elf_files_are_opened() {
    let directory = tempfile::tempdir().unwrap();
    let mut objects = Objects::new(ObjectLimits::default());
    let fifo = directory.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert!(matches!(open_own(&mut objects, &fifo), Err(ObjectError::NotRegular { .. })));
    let script = directory.path().join("script");
    std::fs::write(&script, "#!/bin/sh").unwrap();
    assert!(matches!(open_own(&mut objects, &script), Err(ObjectError::NotElf { .. })));
    assert!(matches!(open_own(&mut objects, &script), Err(ObjectError::KnownBad { .. })));
    let replaced = FileReference {
        path: &script,
        inode: Some((Device::default(), 1)),
        build_id: None,
        range: None,
        current: false,
    };
    let replaced = objects.acquire(Tgid(std::process::id()), &replaced);
    assert!(matches!(replaced, Err(ObjectError::Replaced { .. })));
    assert_eq!((objects.counters().not_regular, objects.counters().not_elf), (1, 1));
}

#[test]
fn debug_files_are_found_by_build_id_and_by_link_and_only_if_they_fit() {
    let root = tempfile::tempdir().unwrap();
    let gnu = note(b"GNU\0", 3, &[0xaa, 0xbb, 0xcc]);
    let debug = made_elf(&[(".note.gnu.build-id", SHT_NOTE, 0, &gnu), (".debug_info", 1, 0, b"info")]);
    let mut link = b"made.debug\0\0".to_vec();
    link.extend(crc32fast::hash(&debug).to_le_bytes());
    let sections: [MadeSection<'_>; 2] =
        [(".note.gnu.build-id", SHT_NOTE, 0, &gnu), (".gnu_debuglink", 1, 0, &link)];
    let object = parse(&made_elf(&sections)).unwrap();
    let place = |path: &str, content: &[u8]| {
        let path = root.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    };
    let found = || debug_file(&object, Some(root.path())).map(|file| (file.path, file.how));
    assert_eq!(found(), None);
    place("usr/lib/debug/.build-id/aa/bbcc.debug", &made_elf(&[]));
    place(".debug/made.debug", b"another file");
    assert_eq!(found(), None, "neither the build id nor the checksum fits");
    place("usr/lib/debug/made.debug", &debug);
    assert_eq!(found(), Some(("/usr/lib/debug/made.debug".into(), DebugFileHow::DebugLink)));
    place("usr/lib/debug/.build-id/aa/bbcc.debug", &debug);
    assert_eq!(found(), Some(("/usr/lib/debug/.build-id/aa/bbcc.debug".into(), DebugFileHow::BuildId)));
}

#[test]
fn links_of_a_target_do_not_lead_out_of_its_root() {
    let root = tempfile::tempdir().unwrap();
    std::fs::write(root.path().join("secret"), "inside").unwrap();
    let outside = tempfile::NamedTempFile::new().unwrap();
    std::os::unix::fs::symlink(outside.path(), root.path().join("absolute")).unwrap();
    std::os::unix::fs::symlink("/secret", root.path().join("inside")).unwrap();
    assert!(open::open_regular(Some(root.path()), Path::new("/absolute")).is_err());
    assert!(open::open_regular(Some(root.path()), Path::new("/../../../inside")).is_ok());
}
