//! Offsets of struct members from the kernel's own type information (BTF).
//!
//! Rust programs carry no CO-RE relocations for fields, so userspace looks the offsets up and sets globals. The format:
//! Documentation/bpf/btf.rst in the kernel's tree. Reads only; a damaged file gives an error, never a panic.

use crate::ProbeError;

/// Where the kernel shows its type information.
pub(crate) const PATH: &str = "/sys/kernel/btf/vmlinux";

const KIND_POINTER: u32 = 2;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
const KIND_TYPEDEF: u32 = 8;
const KIND_FUNCTION: u32 = 12;
const KIND_PROTOTYPE: u32 = 13;
/// Kinds that stand for another type: typedef, volatile, const, restrict, type tag.
const KINDS_TRANSPARENT: [u32; 5] = [8, 9, 10, 11, 18];
/// Steps through such types, and levels of anonymous members, at most.
const MAX_DEPTH: usize = 16;

/// The type information of a kernel.
pub(crate) struct Btf {
    bytes: Vec<u8>,
    strings: usize,
    /// Where each type begins, by id; id 0 is void.
    types: Vec<usize>,
}

struct Type {
    kind: u32,
    vlen: usize,
    kind_flag: bool,
    name: u32,
    size_or_type: u32,
}

impl Btf {
    /// Reads the running kernel's.
    pub(crate) fn of_kernel() -> Result<Self, ProbeError> {
        let bytes = std::fs::read(PATH).map_err(|source| ProbeError::NoBtf { path: PATH, source })?;
        Self::parse(bytes)
    }

    fn parse(bytes: Vec<u8>) -> Result<Self, ProbeError> {
        let mut btf = Self { bytes, strings: 0, types: vec![0] };
        let header_len = btf.word(4)? as usize;
        let types_start = header_len.saturating_add(btf.word(8)? as usize);
        let types_end = types_start.saturating_add(btf.word(12)? as usize);
        btf.strings = header_len.saturating_add(btf.word(16)? as usize);
        let mut at = types_start;
        while at < types_end {
            btf.types.push(at);
            let ty = btf.read_type(at)?;
            at = at.saturating_add(12 + tail_len(ty.kind, ty.vlen));
        }
        Ok(btf)
    }

    fn word(&self, at: usize) -> Result<u32, ProbeError> {
        let bytes = self.bytes.get(at..at.saturating_add(4)).and_then(|slice| slice.try_into().ok());
        bytes.map(u32::from_ne_bytes).ok_or(ProbeError::BadBtf { at })
    }

    fn read_type(&self, at: usize) -> Result<Type, ProbeError> {
        let info = self.word(at + 4)?;
        Ok(Type {
            name: self.word(at)?,
            kind: info >> 24 & 0x1f,
            vlen: (info & 0xffff) as usize,
            kind_flag: info >> 31 == 1,
            size_or_type: self.word(at + 8)?,
        })
    }

    fn name_is(&self, offset: u32, name: &str) -> bool {
        let start = self.strings.saturating_add(offset as usize);
        let Some(rest) = self.bytes.get(start..) else { return false };
        rest.strip_prefix(name.as_bytes()).is_some_and(|rest| rest.first() == Some(&0))
    }

    fn struct_at(&self, name: &str) -> Option<usize> {
        self.types.iter().skip(1).copied().find(|&at| {
            self.read_type(at)
                .is_ok_and(|ty| matches!(ty.kind, KIND_STRUCT | KIND_UNION) && self.name_is(ty.name, name))
        })
    }

    /// Where the struct begins that a member of this type id is.
    fn embedded(&self, id: u32) -> Option<usize> {
        let mut at = *self.types.get(id as usize)?;
        for _ in 0..MAX_DEPTH {
            let ty = self.read_type(at).ok()?;
            if !KINDS_TRANSPARENT.contains(&ty.kind) {
                return Some(at);
            }
            at = *self.types.get(ty.size_or_type as usize)?;
        }
        None
    }

    /// Offset (bytes) and type id of a member; anonymous members are searched.
    fn member(&self, struct_at: usize, name: &str, depth: usize) -> Option<(u32, u32)> {
        let ty = self.read_type(struct_at).ok()?;
        if !matches!(ty.kind, KIND_STRUCT | KIND_UNION) || depth > MAX_DEPTH {
            return None;
        }
        for index in 0..ty.vlen {
            let at = struct_at + 12 + 12 * index;
            let (member, id, offset) =
                (self.word(at).ok()?, self.word(at + 4).ok()?, self.word(at + 8).ok()?);
            // With the kind flag the upper 8 bits hold a bit field's size.
            let bytes = if ty.kind_flag { offset & 0xff_ffff } else { offset } / 8;
            if self.name_is(member, name) {
                return Some((bytes, id));
            }
            if self.name_is(member, "")
                && let Some(inner) = self.embedded(id)
                && let Some((more, id)) = self.member(inner, name, depth + 1)
            {
                return Some((bytes + more, id));
            }
        }
        None
    }

    /// Offset (bytes) of `struct.member.member...`; each member but the last must be an embedded struct.
    pub(crate) fn offset(&self, path: &str) -> Option<u32> {
        let mut names = path.split('.');
        let mut at = self.struct_at(names.next()?)?;
        let mut total = 0;
        let mut names = names.peekable();
        while let Some(name) = names.next() {
            let (offset, id) = self.member(at, name, 0)?;
            total += offset;
            if names.peek().is_some() {
                at = self.embedded(id)?;
            }
        }
        Some(total)
    }

    /// Arguments of the function that the typedef `name` points to; for `btf_trace_X`, those of the tracepoint X and one
    /// more.
    pub(crate) fn arguments(&self, name: &str) -> Option<usize> {
        let typedef = self.types.iter().skip(1).copied().find_map(|at| {
            let ty = self.read_type(at).ok()?;
            (ty.kind == KIND_TYPEDEF && self.name_is(ty.name, name)).then_some(ty)
        })?;
        let pointer = self.read_type(*self.types.get(typedef.size_or_type as usize)?).ok()?;
        let prototype = self.read_type(*self.types.get(pointer.size_or_type as usize)?).ok()?;
        (pointer.kind == KIND_POINTER && prototype.kind == KIND_PROTOTYPE).then_some(prototype.vlen)
    }

    /// Whether there is a function of this name.
    pub(crate) fn has_function(&self, name: &str) -> bool {
        self.types.iter().skip(1).any(|&at| {
            self.read_type(at).is_ok_and(|ty| ty.kind == KIND_FUNCTION && self.name_is(ty.name, name))
        })
    }

    /// Size (bytes) of a struct.
    pub(crate) fn size(&self, name: &str) -> Option<u32> {
        self.read_type(self.struct_at(name)?).ok().map(|ty| ty.size_or_type)
    }
}

/// Bytes after the 12 that every type has (linux/btf.h).
fn tail_len(kind: u32, vlen: usize) -> usize {
    match kind {
        1 | 14 | 17 => 4,             // int, var, declaration tag
        3 => 12,                      // array
        4 | 5 | 15 | 19 => 12 * vlen, // struct, union, data section, enum64
        6 | 13 => 8 * vlen,           // enum, function prototype
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::Btf;

    /// One struct `a` of 16 bytes with `x` at 0 and an anonymous union at 8 that holds `y`.
    fn sample() -> Vec<u8> {
        let strings = b"\0a\0x\0y\0";
        let members =
            |list: &[(u32, u32, u32)]| -> Vec<u32> { list.iter().flat_map(|m| [m.0, m.1, m.2]).collect() };
        let mut types: Vec<u32> = vec![0, 1 << 24, 8, 64]; // 1: int
        types.extend([0, 5 << 24 | 1, 8]); // 2: anonymous union
        types.extend(members(&[(5, 1, 0)]));
        types.extend([1, 4 << 24 | 2, 16]); // 3: struct a
        types.extend(members(&[(3, 1, 0), (0, 2, 64)]));
        let types: Vec<u8> = types.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let header = [0x0001_eb9f, 24, 0, types.len() as u32, types.len() as u32, strings.len() as u32];
        let mut bytes: Vec<u8> = header.iter().flat_map(|word: &u32| word.to_ne_bytes()).collect();
        bytes.extend(types);
        bytes.extend(strings);
        bytes
    }

    #[test]
    fn finds_members_also_of_anonymous_unions() {
        let btf = Btf::parse(sample()).unwrap();
        assert_eq!(btf.offset("a.x"), Some(0));
        assert_eq!(btf.offset("a.y"), Some(8));
        assert_eq!(btf.offset("a.z"), None);
        assert_eq!(btf.offset("b.x"), None);
        assert_eq!(btf.size("a"), Some(16));
    }

    #[test]
    fn survives_every_truncation() {
        let whole = sample();
        for len in 0..whole.len() {
            if let Ok(btf) = Btf::parse(whole[..len].to_vec()) {
                btf.offset("a.y");
            }
        }
    }
}
