//! Which bucket a duration belongs to.

use descry_abi::histogram::bucket_of_doubling;

/// The bucket of a duration (ns). Only where little follows: the verifier goes through the rest of the program for each
/// doubling.
#[inline(always)]
pub fn bucket(duration: u64) -> usize {
    if duration > 1 { bucket_of_doubling(duration, log2(duration - 1)) as usize } else { 0 }
}

/// The binary logarithm of a number above 0. BPF has no instruction that counts leading zeros, and what the compiler puts in
/// its place takes longer than these branches, which go the same way for most calls.
#[inline(always)]
fn log2(number: u64) -> u32 {
    let (mut rest, mut log, mut width) = (number, 0, 32);
    while width > 0 {
        if rest >> width != 0 {
            rest >>= width;
            log += width;
        }
        width /= 2;
    }
    log
}
