//! The few DWARF expressions that a row can hold, recognised operation by operation.

use crate::section::{Cie, Slice};
use gimli::{Operation, Register, UnwindExpression, UnwindSection, X86_64};

type Op<'a> = Operation<Slice<'a>, usize>;

/// The longest of the known expressions.
const MAX_OPERATIONS: usize = 9;

/// All operations, if they are few and each is valid; the places after the last are `Nop`.
fn operations<'a, S: UnwindSection<Slice<'a>>>(
    section: &S,
    cie: &Cie<'a>,
    expression: &UnwindExpression<usize>,
) -> Option<([Op<'a>; MAX_OPERATIONS], usize)> {
    let mut rest = expression.get(section).ok()?.operations(cie.encoding());
    let mut found = [Operation::Nop; MAX_OPERATIONS];
    let mut len = 0;
    while let Some(operation) = rest.next().ok()? {
        *found.get_mut(len)? = operation;
        len += 1;
    }
    Some((found, len))
}

/// `register + offset`: (register, offset).
pub(crate) fn register<'a, S: UnwindSection<Slice<'a>>>(
    section: &S,
    cie: &Cie<'a>,
    expression: &UnwindExpression<usize>,
) -> Option<(Register, i64)> {
    let (found, len) = operations(section, cie, expression)?;
    match found.get(..len)? {
        [Operation::RegisterOffset { register, offset, .. }] => Some((*register, *offset)),
        _ => None,
    }
}

/// `*(register + offset) + addend`: (register, offset, addend).
pub(crate) fn deref<'a, S: UnwindSection<Slice<'a>>>(
    section: &S,
    cie: &Cie<'a>,
    expression: &UnwindExpression<usize>,
) -> Option<(Register, i64, u64)> {
    let (found, len) = operations(section, cie, expression)?;
    let (Operation::RegisterOffset { register, offset, .. }, Operation::Deref { size: 8, space: false, .. }) =
        (found.first()?, found.get(1)?)
    else {
        return None;
    };
    let addend = match found.get(2..len)? {
        [] => 0,
        [Operation::PlusConstant { value }] | [Operation::UnsignedConstant { value }, Operation::Plus] => {
            *value
        }
        _ => return None,
    };
    Some((*register, *offset, addend))
}

/// The lazy PLT of x86_64, as binutils writes it: `rsp + 8 + ((rip & 15) >= n) << 3`: n.
pub(crate) fn lazy_plt<'a, S: UnwindSection<Slice<'a>>>(
    section: &S,
    cie: &Cie<'a>,
    expression: &UnwindExpression<usize>,
) -> Option<u16> {
    use Operation as Op;
    let (found, len) = operations(section, cie, expression)?;
    match found.get(..len)? {
        [
            Op::RegisterOffset { register: X86_64::RSP, offset: 8, .. },
            Op::RegisterOffset { register: X86_64::RA, offset: 0, .. },
            Op::UnsignedConstant { value: 15 },
            Op::And,
            Op::UnsignedConstant { value },
            Op::Ge,
            Op::UnsignedConstant { value: 3 },
            Op::Shl,
            Op::Plus,
        ] => u16::try_from(*value).ok(),
        _ => None,
    }
}
