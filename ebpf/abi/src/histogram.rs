//! Exponential histograms of durations, as OpenTelemetry defines them (data model, "ExponentialHistogram"), of one
//! fixed scale, so that the kernel side needs no floating point and two of them can always be added.
//!
//! ```text
//! base   = 2^(2^-SCALE)
//! bucket i holds durations d (ns) with base^i < d <= base^(i+1)
//! ```
//!
//! Scale 2 has four buckets for each doubling (a bucket's ends differ by 19 %); 160 buckets reach from 1 ns to 2^40 ns,
//! which is 18 minutes. What is shorter or longer counts in the first or last bucket; `sum` and `max` stay exact.

/// Buckets for each doubling: 2^SCALE.
pub const SCALE: u32 = 2;
/// Buckets, as many as OpenTelemetry's SDKs allow by default.
pub const BUCKETS: usize = 160;

/// Durations of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Histogram {
    /// How many.
    pub count: u64,
    /// Their sum (ns).
    pub sum: u64,
    /// The longest (ns).
    pub max: u64,
    /// Whose durations these are, where who writes them has to know: a word of its own; else 0.
    pub owner: u64,
    /// How many fell into each bucket.
    pub buckets: [u64; BUCKETS],
}
const _: () = assert!(size_of::<Histogram>() == 32 + BUCKETS * 8);

impl Default for Histogram {
    fn default() -> Self {
        Self { count: 0, sum: 0, max: 0, owner: 0, buckets: [0; BUCKETS] }
    }
}

/// What 2^(1/4), 2^(2/4) and 2^(3/4) have above one, in units of 2^-63, rounded down. The true values are irrational, so a
/// whole number of units is above one of them exactly if it is above its rounding.
const QUARTERS: [u64; 3] = [0x1837_f051_8db8_a96f, 0x3504_f333_f9de_6484, 0x5744_fcca_d69d_6af4];

/// The bucket of a duration (ns). Below [`BUCKETS`].
#[inline(always)]
pub const fn bucket(duration: u64) -> u32 {
    if duration <= 1 {
        return 0;
    }
    bucket_of_doubling(duration, 63 - (duration - 1).leading_zeros())
}

/// The same of a duration above 1, given the binary logarithm of `duration - 1`, for who has a better way to it.
#[inline(always)]
pub const fn bucket_of_doubling(duration: u64, doubling: u32) -> u32 {
    // Upper bounds are inclusive, so powers of two belong below: the doubling is that of duration - 1, but the place in
    // it that of the duration itself.
    // (duration - 2^doubling) / 2^doubling, in units of 2^-63; that of a power of two is 2^63.
    let fraction = (duration - (1 << doubling)) << (63 - doubling);
    let quarter =
        (fraction > QUARTERS[0]) as u32 + (fraction > QUARTERS[1]) as u32 + (fraction > QUARTERS[2]) as u32;
    let bucket = (doubling << SCALE) + quarter;
    if bucket < BUCKETS as u32 { bucket } else { BUCKETS as u32 - 1 }
}

/// Durations below this (ns) have their buckets in [`SHORT_BUCKETS`].
pub const SHORT: usize = 4096;

/// The buckets of the durations below [`SHORT`], for who would rather read one byte than reckon.
pub static SHORT_BUCKETS: [u8; SHORT] = {
    let mut buckets = [0; SHORT];
    let mut duration = 0;
    while duration < SHORT {
        buckets[duration] = bucket(duration as u64) as u8;
        duration += 1;
    }
    buckets
};
