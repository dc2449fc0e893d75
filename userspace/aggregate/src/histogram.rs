//! Histograms of durations that were counted in the kernel: added up, and asked for quantiles.

use descry_abi::histogram::{BUCKETS, Histogram, SCALE};

/// Adds `from` to `to`. Counts that would overflow stay at their limit.
pub fn add(to: &mut Histogram, from: &Histogram) {
    to.count = to.count.saturating_add(from.count);
    to.sum = to.sum.saturating_add(from.sum);
    to.max = to.max.max(from.max);
    for (to, from) in to.buckets.iter_mut().zip(&from.buckets) {
        *to = to.saturating_add(*from);
    }
}

/// Adds one duration (ns).
pub fn record(to: &mut Histogram, duration: u64) {
    to.count += 1;
    to.sum = to.sum.saturating_add(duration);
    to.max = to.max.max(duration);
    if let Some(bucket) = to.buckets.get_mut(descry_abi::histogram::bucket(duration) as usize) {
        *bucket += 1;
    }
}

/// What came since `before`. The longest is known if it is the longest of all; else it is told as the end of the last bucket
/// that something fell into.
pub fn since(now: &Histogram, before: &Histogram) -> Histogram {
    let mut new = Histogram {
        count: now.count.saturating_sub(before.count),
        sum: now.sum.saturating_sub(before.sum),
        max: now.max,
        ..Histogram::default()
    };
    for ((new, now), before) in new.buckets.iter_mut().zip(&now.buckets).zip(&before.buckets) {
        *new = now.saturating_sub(*before);
    }
    if now.max == before.max {
        let last = new.buckets.iter().rposition(|count| *count > 0);
        new.max = last.map_or(0, |last| upper_bound(last).min(now.max));
    }
    new
}

/// The duration (ns) that a share of all durations, 0 to 1, does not exceed: the middle (geometric mean) of the bucket
/// that holds it, so at most 9 % off, and never above the longest. None of an empty histogram.
pub fn quantile(histogram: &Histogram, share: f64) -> Option<u64> {
    // The buckets and not `count`: a program on another CPU may have been between the two when they were read.
    let total: u64 = histogram.buckets.iter().sum();
    if total == 0 {
        return None;
    }
    let rank = ((share.clamp(0.0, 1.0) * total as f64).ceil() as u64).clamp(1, total);
    let mut seen = 0;
    let index = histogram.buckets.iter().position(|count| {
        seen += count;
        seen >= rank
    })?;
    if index == BUCKETS - 1 {
        return Some(histogram.max);
    }
    Some(middle(index).min(histogram.max))
}

/// Durations (ns) that add up to much the same: the middle of each bucket, how often it was seen; the longest is itself.
pub fn durations(histogram: &Histogram) -> impl Iterator<Item = (u64, u64)> {
    let last = histogram.buckets.iter().rposition(|count| *count > 0);
    let longest = last.map(|_| (histogram.max, 1));
    let buckets = histogram.buckets.iter().enumerate().map(move |(index, count)| {
        let count = count - u64::from(last == Some(index));
        (middle(index).min(histogram.max), count)
    });
    buckets.filter(|(_, count)| *count > 0).chain(longest)
}

/// The geometric mean of a bucket's ends (ns).
fn middle(index: usize) -> u64 {
    ((index as f64 + 0.5) / f64::from(1 << SCALE)).exp2().round() as u64
}

/// The longest duration (ns) that counts in a bucket.
pub fn upper_bound(index: usize) -> u64 {
    ((index as f64 + 1.0) / f64::from(1 << SCALE)).exp2().floor() as u64
}

#[cfg(test)]
mod tests {
    use descry_abi::histogram::{BUCKETS, Histogram, bucket};

    use super::{add, durations, quantile, record, since, upper_bound};

    fn check(durations: &[u64], share: f64, expected: Option<u64>) {
        let mut histogram = Histogram::default();
        durations.iter().for_each(|duration| record(&mut histogram, *duration));
        assert_eq!(quantile(&histogram, share), expected, "{share} of {durations:?}");
    }

    #[test]
    fn buckets_end_where_the_specification_says() {
        // Below 8 ns some buckets hold no whole number.
        for index in 12..BUCKETS - 1 {
            let last = upper_bound(index);
            assert_eq!(bucket(last), index as u32, "{last}");
            assert_eq!(bucket(last + 1), index as u32 + 1, "{last} + 1");
        }
        assert_eq!([bucket(0), bucket(1), bucket(2), bucket(4), bucket(5)], [0, 0, 3, 7, 9]);
        assert_eq!(bucket(u64::MAX), BUCKETS as u32 - 1);
    }

    #[test]
    fn quantiles_are_in_the_bucket_of_the_truth() {
        check(&[], 0.5, None);
        check(&[1000], 0.5, Some(939));
        check(&[1000], 1.0, Some(939));
        check(&[100, 100, 100, 1_000_000], 0.5, Some(99));
        check(&[100, 100, 100, 1_000_000], 0.99, Some(961_548));
        check(&[1 << 50], 0.5, Some(1 << 50));
    }

    #[test]
    fn what_came_since() {
        let mut now = Histogram::default();
        record(&mut now, 700);
        let before = now;
        assert_eq!(since(&now, &before), Histogram::default());
        record(&mut now, 500);
        let new = since(&now, &before);
        assert_eq!((new.count, new.sum, new.max), (1, 500, 512));
        record(&mut now, 800);
        let new = since(&now, &before);
        assert_eq!((new.count, new.sum, new.max), (2, 1300, 800));
    }

    #[test]
    fn durations_are_as_many_and_end_with_the_longest() {
        let mut histogram = Histogram::default();
        assert_eq!(durations(&histogram).count(), 0);
        [100, 700, 1000, 1001].iter().for_each(|duration| record(&mut histogram, *duration));
        assert_eq!(durations(&histogram).collect::<Vec<_>>(), [(99, 1), (664, 1), (939, 1), (1001, 1)]);
    }

    #[test]
    fn adds_up() {
        let (mut one, mut two) = (Histogram::default(), Histogram::default());
        record(&mut one, 5);
        record(&mut two, 700);
        record(&mut two, 5);
        add(&mut one, &two);
        assert_eq!((one.count, one.sum, one.max), (3, 710, 700));
        assert_eq!((one.buckets[bucket(5) as usize], one.buckets[bucket(700) as usize]), (2, 1));
    }
}
