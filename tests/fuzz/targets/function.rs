//! Any ELF file to trace functions of, and any symbols and code of a Tokio program: places lie inside of the functions.
//!
//! Input that does not begin like an ELF file is four parts for Tokio, each behind its length (two bytes, the lower first):
//! symbol table, strings, the beginning of the file, code. Words of every input are also read as patterns and notes.
#![no_main]

use descry_abi::function::MAX_ARGUMENTS;
use descry_decode::Argument;
use descry_decode::ids::ElfAddress;
use descry_function::arguments::{self, Parameter};
use descry_function::{Binary, Exits, Function, Pattern, Place, TokioSymbols, UsdtPattern, Wishes};
use descry_function::{mentions_tls, nearest, plan, tls_places, usdt_probes};
use libfuzzer_sys::fuzz_target;

/// Functions that are planned, and words that are read.
const FUNCTIONS: usize = 64;
const WORDS: usize = 16;
/// Exits of a function at most.
const EXITS: usize = 256;
/// Names offered at most.
const OFFERED: usize = 3;

fuzz_target!(|input: &[u8]| {
    let words: Vec<&str> = input
        .split(|byte| *byte == 0 || *byte == b'\n')
        .filter_map(|word| std::str::from_utf8(word).ok())
        .filter(|word| word.len() > 1)
        .take(WORDS)
        .collect();
    words.iter().for_each(|word| shown(&arguments::usdt_parameters(word)));
    let Ok(binary) = Binary::parse(input, None) else { return tokio(input) };
    assert!(binary.functions.is_sorted_by(|a, b| a.address < b.address));
    for function in binary.functions.iter().take(FUNCTIONS) {
        assert!(!function.names.is_empty());
        assert_eq!(function.offset, binary.offset(function.address));
        assert_eq!(binary.at(function.address), Some(function));
        functions(&binary, function, input);
    }
    parameters(&binary, input);
    usdt(&binary, input, &words);
    tls(&binary, input);
    patterns(&binary, &words);
});

fn functions(binary: &Binary<'_>, function: &Function, input: &[u8]) {
    for (arguments, exits_by_instruction) in [(false, false), (true, false), (false, true), (true, true)] {
        let Ok(plan) = plan(binary, function, Wishes { arguments, exits_by_instruction }) else { continue };
        check_place(binary, function, &plan.entry, input);
        match &plan.exits {
            Exits::ReturnProbe => assert!(!exits_by_instruction && !binary.unwinds && !binary.is_go),
            Exits::Instructions(exits) => {
                assert!(exits.len() <= EXITS);
                for exit in exits {
                    check_place(binary, function, exit, input);
                    assert_ne!(exit.address, plan.entry.address, "{function:?}");
                }
            }
        }
        assert!(plan.nanos() >= plan.entry.cost.nanos());
    }
}

/// It is in the function's code, or in its cold part's; what was looked into is in the file.
fn check_place(binary: &Binary<'_>, function: &Function, place: &Place, input: &[u8]) {
    let parts = std::iter::once((function.address, function.size)).chain(function.cold);
    let mut into = parts.filter_map(|(start, size)| Some((place.address.0.checked_sub(start.0)?, size)));
    assert!(into.any(|(into, size)| into < size), "{place:?} of {function:?}");
    assert_eq!(binary.offset(place.address), Some(place.offset));
    if binary.is_x86 {
        assert!(place.offset.0 < input.len() as u64 && !place.instruction.is_empty(), "{place:?}");
    }
}

fn parameters(binary: &Binary<'_>, input: &[u8]) {
    let wanted: Vec<ElfAddress> =
        binary.functions.iter().take(FUNCTIONS).map(|function| function.address).collect();
    for (address, parameters) in arguments::parameters(input, &wanted) {
        assert!(wanted.contains(&address) && parameters.len() <= MAX_ARGUMENTS, "{parameters:?}");
        shown(&parameters);
    }
}

/// Whatever the values are, each is shown.
fn shown(parameters: &[Parameter]) {
    assert!(parameters.len() <= MAX_ARGUMENTS);
    let words = [0, 1, u64::MAX, 1 << 63].into_iter().cycle();
    let values: Vec<_> = words
        .take(parameters.len())
        .map(|word| Some(Argument { word, text: word.to_le_bytes().into() }))
        .collect();
    let text = arguments::show(parameters, &values);
    assert_eq!(text.is_empty(), parameters.is_empty());
    assert_eq!(arguments::show(parameters, &[None]).is_empty(), parameters.is_empty());
    let places = arguments::places(parameters);
    assert!(parameters.iter().zip(&places).all(|(parameter, place)| parameter.place == *place));
}

fn usdt(binary: &Binary<'_>, input: &[u8], words: &[&str]) {
    let patterns: Vec<UsdtPattern> = words.iter().filter_map(|word| UsdtPattern::parse(word)).collect();
    for probe in usdt_probes(binary, input).unwrap_or_default() {
        assert_eq!(binary.offset(probe.address), Some(probe.offset));
        shown(&arguments::usdt_parameters(&probe.arguments));
        patterns.iter().for_each(|pattern| {
            let _ = pattern.is_of(&probe);
        });
    }
}

fn tls(binary: &Binary<'_>, input: &[u8]) {
    let _ = mentions_tls(input);
    let Ok(places) = tls_places(input) else { return };
    let all = places.entries.iter().chain(&places.returns).chain(&places.exits);
    assert!(!binary.is_x86 || all.clone().all(|place| place.offset.0 < input.len() as u64), "{places:?}");
    // A Go stack moves: no address may be put onto it.
    assert!(places.returns.iter().all(|place| !place.function.is_go() && place.function.returns()));
    for place in all.filter(|place| place.unless.is_some()) {
        assert!(place.unless.is_some_and(|condition| condition.0 < 16), "{place:?}");
    }
    for place in &places.exits {
        assert_eq!(place.unless.is_none(), place.function.is_go(), "{place:?}");
    }
    let _ = places.is_useful();
}

fn patterns(binary: &Binary<'_>, words: &[&str]) {
    let names =
        || binary.functions.iter().take(FUNCTIONS).flat_map(|function| &function.names).map(|name| &**name);
    for word in words {
        let offered = nearest(word, names(), OFFERED);
        assert!(
            offered.len() <= OFFERED && offered.iter().all(|offered| names().any(|name| name == *offered))
        );
        let Ok(pattern) = Pattern::parse(word) else { continue };
        assert_eq!(pattern.text, *word);
        names().for_each(|name| {
            let _ = pattern.is_of_name(name) | pattern.is_of_file(name);
        });
        let _ = pattern.path();
    }
    // A name without anything special in it means itself.
    for name in names().filter(|name| !name.contains([':', '*', '?']) && !name.starts_with("0x")) {
        let fits = Pattern::parse(name).is_ok_and(|pattern| pattern.is_of_name(name));
        assert!(fits || name.is_empty(), "{name:?}");
    }
}

fn tokio(input: &[u8]) {
    let mut rest = input;
    let mut part = || {
        let (length, behind) = rest.split_first_chunk::<2>().unwrap_or((&[0; 2], &[]));
        let (part, behind) = behind.split_at(usize::from(u16::from_le_bytes(*length)).min(behind.len()));
        rest = behind;
        part
    };
    let (table, strings, head, code) = (part(), part(), part(), part());
    let Some(symbols) = TokioSymbols::find(table, strings) else { return };
    let wanted = symbols.code().iter();
    let read: Vec<_> = wanted
        .map(|(address, len)| {
            (*address, code.get(..code.len().min(*len as usize)).unwrap_or_default().to_vec())
        })
        .collect();
    if let Some(rule) = symbols.rule(head, &read) {
        // The id has 8 bytes, and what says that it lives is none of them.
        assert!(!(rule.tls..rule.tls.saturating_add(8)).contains(&rule.alive), "{rule:?}");
    }
}
