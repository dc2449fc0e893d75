use descry_abi::unit::{UnitKind, UnitRule};
use descry_decode::ids::ElfAddress;

use super::TokioSymbols;

/// `<TaskIdGuard as Drop>::drop` of a program with Tokio 1.54 and thin link-time optimization. Its CONTEXT begins 0x28 bytes
/// into 0x350 bytes of thread-local storage.
const GUARD_DROP: &[u8] = &[
    0x41, 0x56, 0x53, 0x50, 0x48, 0x8b, 0x1f, 0x49, 0xc7, 0xc6, 0xd8, 0xfc, 0xff, 0xff, 0x64, 0x41, 0x0f,
    0xb6, 0x46, 0x40, 0x83, 0xf8, 0x01, 0x74, 0x2c, 0x83, 0xf8, 0x02, 0x75, 0x08, 0x48, 0x83, 0xc4, 0x08,
    0x5b, 0x41, 0x5e, 0xc3, 0x64, 0x48, 0x8b, 0x3c, 0x25, 0x00, 0x00, 0x00, 0x00, 0x4c, 0x01, 0xf7, 0x48,
    0x8d, 0x35, 0x77, 0xcf, 0xff, 0xff, 0xff, 0x15, 0xd9, 0x59, 0x1e, 0x00, 0x64, 0x41, 0xc6, 0x46, 0x40,
    0x01, 0x64, 0x49, 0x89, 0x5e, 0x28, 0x48, 0x83, 0xc4, 0x08, 0x5b, 0x41, 0x5e, 0xc3,
];
/// The same with an id of two words, and the address by way of the word at the thread pointer:
/// `mov %fs:0,%rax; lea -0x328(%rax),%rax; mov %rdi,0x20(%rax); mov %rsi,0x28(%rax); movb $1,0x40(%rax); ret`.
const TWO_WORDS: &[u8] = &[
    0x64, 0x48, 0x8b, 0x04, 0x25, 0, 0, 0, 0, 0x48, 0x8d, 0x80, 0xd8, 0xfc, 0xff, 0xff, 0x48, 0x89, 0x78,
    0x20, 0x48, 0x89, 0x70, 0x28, 0xc6, 0x40, 0x40, 0x01, 0xc3,
];

/// The name of a symbol, its type (STT_FUNC 2, STT_TLS 6), address and size.
type Symbol = (&'static str, u8, u64, u64);

const CONTEXT: Symbol = (
    "_ZN5tokio7runtime7context7CONTEXT29_$u7b$$u7b$constant$u7d$$u7d$28_$u7b$$u7b$closure$u7d$$u7d$23__RUST_STD_\
     INTERNAL_VAL17hae88ec15f8870ffbE",
    6,
    0x28,
    72,
);
const DROP: Symbol = (
    "_ZN81_$LT$tokio..runtime..task..core..TaskIdGuard$u20$as$u20$core..ops..drop..Drop$GT$4drop17h089744592b80fdfcE",
    2,
    0x1000,
    82,
);
const SETTER: Symbol = ("_ZN5tokio7runtime7context19set_current_task_id17h0123456789abcdefE", 2, 0x2000, 29);

fn tables(symbols: &[Symbol]) -> (Vec<u8>, Vec<u8>) {
    let (mut table, mut strings) = (vec![0; 24], vec![0]);
    for (name, kind, value, size) in symbols {
        table.extend((strings.len() as u32).to_le_bytes());
        table.extend([0x10 | kind, 0, 1, 0]);
        table.extend(value.to_le_bytes());
        table.extend(size.to_le_bytes());
        strings.extend(name.as_bytes());
        strings.push(0);
    }
    (table, strings)
}

/// The headers of a program with so much thread-local storage.
fn head(machine: u16, size: u64) -> Vec<u8> {
    let mut head = vec![0; 64 + 56];
    head[..16].copy_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    let mut put = |at: usize, bytes: &[u8]| head[at..at + bytes.len()].copy_from_slice(bytes);
    put(16, &3u16.to_le_bytes());
    put(18, &machine.to_le_bytes());
    put(20, &1u32.to_le_bytes());
    put(32, &64u64.to_le_bytes());
    put(52, &64u16.to_le_bytes());
    put(54, &56u16.to_le_bytes());
    put(56, &1u16.to_le_bytes());
    put(64, &7u32.to_le_bytes());
    put(64 + 40, &size.to_le_bytes());
    put(64 + 48, &8u64.to_le_bytes());
    head
}

/// (place of the id, place of what says that there is one).
fn check(symbols: &[Symbol], code: &[&[u8]], head: &[u8], expected: Option<(i64, i64)>) {
    let (table, strings) = tables(symbols);
    let rule = TokioSymbols::find(&table, &strings).and_then(|found| {
        let code: Vec<_> =
            found.code().iter().zip(code).map(|((address, _), code)| (*address, code.to_vec())).collect();
        found.rule(head, &code)
    });
    let expected = expected.map(|(tls, alive)| UnitRule {
        kind: UnitKind::TokioTask as u32,
        tls,
        alive,
        ..UnitRule::default()
    });
    assert_eq!(rule, expected);
}

const X86_64: u16 = 62;
const AARCH64: u16 = 183;

#[test]
fn places_are_read_from_code() {
    let head = head(X86_64, 0x350);
    check(&[CONTEXT, DROP], &[GUARD_DROP], &head, Some((-0x300, -0x2e8)));
    // The tag is what says that there is an id.
    check(&[SETTER, CONTEXT], &[TWO_WORDS], &head, Some((-0x300, -0x308)));
}

#[test]
fn what_does_not_fit_gives_nothing() {
    let good = head(X86_64, 0x350);
    check(&[DROP], &[GUARD_DROP], &good, None);
    check(&[CONTEXT], &[], &good, None);
    // Two Tokios in one program, and two ways to write.
    check(&[CONTEXT, CONTEXT, DROP], &[GUARD_DROP], &good, None);
    check(&[CONTEXT, DROP, SETTER], &[GUARD_DROP, TWO_WORDS], &good, None);
    // Writes beside CONTEXT: the storage lies elsewhere.
    check(&[CONTEXT, DROP], &[GUARD_DROP], &head(X86_64, 0x390), None);
    check(&[CONTEXT, DROP], &[GUARD_DROP], &head(AARCH64, 0x350), None);
    // An id of one word: what says that it lives is not a part of it, and it does not reach beyond CONTEXT.
    let one_word =
        |id: u8, alive: u8| [&TWO_WORDS[..16], &[0x48, 0x89, 0x78, id, 0xc6, 0x40, alive, 1, 0xc3]].concat();
    check(&[CONTEXT, SETTER], &[&one_word(0x20, 0x28)], &good, Some((-0x308, -0x300)));
    check(&[CONTEXT, SETTER], &[&one_word(0x20, 0x20)], &good, None);
    check(&[CONTEXT, SETTER], &[&one_word(0x20, 0x27)], &good, None);
    check(&[CONTEXT, SETTER], &[&one_word(0x40, 0x20)], &good, Some((-0x2e8, -0x308)));
    check(&[CONTEXT, SETTER], &[&one_word(0x41, 0x20)], &good, None);
    for len in 0..GUARD_DROP.len() - 8 {
        check(&[CONTEXT, DROP], &[&GUARD_DROP[..len]], &good, None);
    }
    for len in 0..good.len() {
        check(&[CONTEXT, DROP], &[GUARD_DROP], &good[..len], None);
    }
}

#[test]
fn tables_may_be_cut_anywhere() {
    let (table, strings) = tables(&[CONTEXT, DROP]);
    for len in 0..table.len() {
        let found = TokioSymbols::find(&table[..len], &strings[..len.min(strings.len())]);
        assert!(found.is_none_or(|found| found.code().iter().all(|code| *code == (ElfAddress(0x1000), 82))));
    }
}
