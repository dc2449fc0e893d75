//! DWARF expressions of call frame information (DWARF 5, sections 2.5 and 6.4.2).

use super::memory::Memory;
use super::registers::Registers;
use crate::section::Slice;
use descry_abi::event::UnwindEnd;
use gimli::{EvaluationResult, Expression, Value};

/// Operations at most; the longest known expressions have about twenty, and a loop in one is hostile.
const MAX_OPERATIONS: u32 = 1000;

/// The value of `expression`, with `initial` on its stack.
pub(crate) fn evaluate(
    expression: Expression<Slice<'_>>,
    encoding: gimli::Encoding,
    initial: Option<u64>,
    bias: u64,
    registers: &Registers,
    memory: &mut Memory<'_>,
) -> Result<u64, UnwindEnd> {
    let complex = |_| UnwindEnd::ComplexRule;
    let mut evaluation = expression.evaluation(encoding);
    evaluation.set_max_iterations(MAX_OPERATIONS);
    if let Some(initial) = initial {
        evaluation.set_initial_value(initial);
    }
    let mut result = evaluation.evaluate().map_err(complex)?;
    loop {
        result = match result {
            EvaluationResult::Complete => break,
            EvaluationResult::RequiresMemory { address, size, space: None, .. } => {
                let value = memory.number(address, size).ok_or(UnwindEnd::ReadFailed)?;
                evaluation.resume_with_memory(Value::Generic(value))
            }
            EvaluationResult::RequiresRegister { register, .. } => {
                let value = registers.get(register).ok_or(UnwindEnd::ComplexRule)?;
                evaluation.resume_with_register(Value::Generic(value))
            }
            EvaluationResult::RequiresRelocatedAddress(address) => {
                evaluation.resume_with_relocated_address(address.wrapping_add(bias))
            }
            _ => return Err(UnwindEnd::ComplexRule),
        }
        .map_err(complex)?;
    }
    let value = evaluation.value_result().ok_or(UnwindEnd::ComplexRule)?;
    value.to_u64(u64::MAX).map_err(complex)
}
