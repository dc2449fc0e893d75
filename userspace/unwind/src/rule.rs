//! From one row of call frame information to the few rules that the kernel side knows.
//!
//! ```text
//! x86_64   return address at CFA - 8              else Complex     undefined: End
//!          rbp unchanged                          Same
//!          rbp at CFA + 8n                        AtCfa n
//!          rbp at rbp + 8n                        AtFp n           anything else but undefined: Complex
//! aarch64  x29 at CFA + 8n, x30 at CFA + 8n + 8   AtCfa n
//!          both unchanged                         SameReturnInRegister         else Complex
//! ```
//!
//! A frame pointer given by a rule that a row cannot hold makes the row complex although its own CFA may be simple:
//! a caller may need the value, and the userspace walk can compute it.

use crate::elf::Architecture;
use crate::expression;
use crate::section::{Cie, Slice, UnwindRow};
use descry_abi::unwind::{CfaKind, FAR, FpKind, Row};
use gimli::{AArch64, CfaRule, Register, RegisterRule, UnwindSection, X86_64};

/// What to do at an address: [`descry_abi::unwind::Row`] without the address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rule {
    /// How to find the canonical frame address.
    pub cfa: CfaKind,
    /// How to find the caller's frame pointer.
    pub fp: FpKind,
    /// Operand of `cfa` (words of 8 bytes, or packed; see [`CfaKind`]).
    pub cfa_words: u16,
    /// Operand of `fp` (words of 8 bytes).
    pub fp_words: i16,
}

impl Rule {
    /// Nothing is known.
    pub const NONE: Self = Self::bare(CfaKind::None);

    const fn bare(cfa: CfaKind) -> Self {
        Self { cfa, fp: FpKind::Same, cfa_words: 0, fp_words: 0 }
    }

    /// The rule in force from an address whose low 16 bits are `pc_low`.
    pub const fn row(self, pc_low: u16) -> Row {
        Row {
            pc_low,
            cfa_kind: self.cfa as u8,
            fp_kind: self.fp as u8,
            cfa_words: self.cfa_words,
            fp_words: self.fp_words,
        }
    }

    /// The rule of a row, if its kinds are known.
    pub fn from_row(row: Row) -> Option<Self> {
        Some(Self {
            cfa: CfaKind::from_u8(row.cfa_kind)?,
            fp: FpKind::from_u8(row.fp_kind)?,
            cfa_words: row.cfa_words,
            fp_words: row.fp_words,
        })
    }
}

type Place = RegisterRule<usize>;

/// The registers that matter, by DWARF number.
#[derive(Clone, Copy)]
struct Names {
    sp: Register,
    fp: Register,
    ra: Register,
}

const X86_64_NAMES: Names = Names { sp: X86_64::RSP, fp: X86_64::RBP, ra: X86_64::RA };
const AARCH64_NAMES: Names = Names { sp: AArch64::SP, fp: AArch64::X29, ra: AArch64::X30 };

/// The rule of a row of the FDE that belongs to `cie`.
pub(crate) fn of<'a, S: UnwindSection<Slice<'a>>>(
    architecture: Architecture,
    section: &S,
    cie: &Cie<'a>,
    row: &UnwindRow,
) -> Rule {
    let names = match architecture {
        Architecture::X86_64 => X86_64_NAMES,
        Architecture::Aarch64 => AARCH64_NAMES,
    };
    if cie.return_address_register() != names.ra {
        return Rule::bare(CfaKind::Complex);
    }
    let ra = row.register(names.ra);
    if ra == Some(RegisterRule::Undefined) {
        return Rule::bare(CfaKind::End);
    }
    if is_signal_frame(architecture, section, cie, row, ra.as_ref()) {
        return Rule::bare(CfaKind::Signal);
    }
    simple(architecture, section, cie, row, names, ra).unwrap_or(Rule::bare(CfaKind::Complex))
}

/// aarch64: the augmentation says so, and Linux has one layout. x86_64: glibc and others give the registers of the
/// `rt_sigframe` by expressions; an "S" with other rules is no `rt_sigframe`, and left to the userspace walk.
fn is_signal_frame<'a, S: UnwindSection<Slice<'a>>>(
    architecture: Architecture,
    section: &S,
    cie: &Cie<'a>,
    row: &UnwindRow,
    ra: Option<&Place>,
) -> bool {
    /// Offsets of rsp and rip in the `ucontext` at rsp (Linux, arch/x86/include/uapi/asm/sigcontext.h).
    const RSP: i64 = 160;
    const RIP: i64 = 168;
    match (architecture, row.cfa(), ra) {
        (Architecture::Aarch64, ..) => cie.is_signal_trampoline(),
        (Architecture::X86_64, CfaRule::Expression(cfa), Some(RegisterRule::Expression(ra))) => {
            expression::deref(section, cie, cfa) == Some((X86_64::RSP, RSP, 0))
                && expression::register(section, cie, ra) == Some((X86_64::RSP, RIP))
        }
        _ => false,
    }
}

fn simple<'a, S: UnwindSection<Slice<'a>>>(
    architecture: Architecture,
    section: &S,
    cie: &Cie<'a>,
    row: &UnwindRow,
    names: Names,
    ra: Option<Place>,
) -> Option<Rule> {
    let (cfa, cfa_words) = cfa(architecture, section, cie, row.cfa(), names)?;
    // By default it is the CFA; longjmp has a rule of its own.
    if row.register(names.sp).is_some() {
        return None;
    }
    let fp = at_cfa(section, cie, row.cfa(), row.register(names.fp));
    let same = |rule: &Option<Place>| matches!(rule, None | Some(RegisterRule::SameValue));
    let rule = |fp, fp_words| Rule { cfa, fp, cfa_words, fp_words };
    match (architecture, fp, ra) {
        (Architecture::X86_64, fp, Some(RegisterRule::Offset(-8))) => match fp {
            fp if same(&fp) => Some(rule(FpKind::Same, 0)),
            Some(RegisterRule::Offset(offset)) => Some(rule(FpKind::AtCfa, words(offset)?)),
            Some(RegisterRule::Undefined) => Some(rule(FpKind::Undefined, 0)),
            Some(RegisterRule::Expression(at)) => match expression::register(section, cie, &at)? {
                (X86_64::RBP, offset) => Some(rule(FpKind::AtFp, words(offset)?)),
                _ => None,
            },
            _ => None,
        },
        (Architecture::Aarch64, Some(RegisterRule::Offset(fp)), Some(RegisterRule::Offset(ra)))
            if ra == fp.checked_add(8)? =>
        {
            Some(rule(FpKind::AtCfa, words(fp)?))
        }
        (Architecture::Aarch64, fp, ra) if same(&fp) && same(&ra) => {
            Some(rule(FpKind::SameReturnInRegister, 0))
        }
        _ => None,
    }
}

fn cfa<'a, S: UnwindSection<Slice<'a>>>(
    architecture: Architecture,
    section: &S,
    cie: &Cie<'a>,
    rule: &CfaRule<usize>,
    names: Names,
) -> Option<(CfaKind, u16)> {
    match rule {
        CfaRule::RegisterAndOffset { register, offset } => {
            let kind = if *register == names.sp {
                CfaKind::Sp
            } else if *register == names.fp {
                CfaKind::Fp
            } else {
                return None;
            };
            let near = |offset: i64| {
                (offset % 8 == 0).then_some(offset / 8).and_then(|words| u16::try_from(words).ok())
            };
            match near(*offset) {
                Some(words) => Some((kind, words)),
                // A frame of 512 KiB or more.
                None if kind == CfaKind::Sp => Some((CfaKind::SpFar, near(offset.checked_sub(FAR as i64)?)?)),
                None => None,
            }
        }
        CfaRule::Expression(expression) => {
            if architecture == Architecture::X86_64
                && let Some(from) = expression::lazy_plt(section, cie, expression)
            {
                return Some((CfaKind::Plt, from));
            }
            let (register, offset, addend) = expression::deref(section, cie, expression)?;
            let kind = if register == names.sp {
                CfaKind::SpDeref
            } else if register == names.fp {
                CfaKind::FpDeref
            } else {
                return None;
            };
            if addend % 8 != 0 {
                return None;
            }
            Some((kind, Row::deref_words(words(offset)?, u8::try_from(addend / 8).ok()?)?))
        }
    }
}

/// Turns "saved at register + n" into "saved at CFA + n" where the CFA is given by the same register.
fn at_cfa<'a, S: UnwindSection<Slice<'a>>>(
    section: &S,
    cie: &Cie<'a>,
    cfa: &CfaRule<usize>,
    place: Option<Place>,
) -> Option<Place> {
    if let (Some(RegisterRule::Expression(expression)), CfaRule::RegisterAndOffset { register, offset }) =
        (&place, cfa)
        && let Some((base, from_base)) = expression::register(section, cie, expression)
        && base == *register
        && let Some(from_cfa) = from_base.checked_sub(*offset)
    {
        return Some(RegisterRule::Offset(from_cfa));
    }
    place
}

fn words(offset: i64) -> Option<i16> {
    (offset % 8 == 0).then_some(i16::try_from(offset / 8).ok()).flatten()
}
