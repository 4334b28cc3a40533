//! Counts durations in buckets whose width grows with the duration, so that any quantile is off by at most
//! [`RELATIVE_ERROR`].
//!
//! Eight buckets per doubling from 2 µs to 73 minutes; below that, buckets of 256 ns. A histogram takes 2
//! KiB, and recording takes a few instructions. One writer and any number of readers, as for [`Counter`].

use serde::Serialize;

use super::counter::Counter;

/// A quantile is the middle of its bucket, and no bucket is wider than an eighth of its lower bound. Below
/// 2 µs the error is at most 128 ns instead. Durations above 73 minutes count as 73 minutes; `sum` and
/// `max` are exact.
pub const RELATIVE_ERROR: f64 = 1.0 / 16.0;

/// 256 ns, as a shift.
const UNIT: u32 = 8;
/// Eight buckets per doubling, as a shift.
const SUB: u32 = 3;
const BUCKETS: usize = 256;

/// Upper bounds, in nanoseconds, of the coarse buckets for drawing and for other systems (Prometheus'
/// `le`). A fine bucket belongs to the coarse bucket of its middle.
pub const COARSE: [u64; 15] = [
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    10_000_000_000,
];

pub struct Histogram {
    buckets: [Counter; BUCKETS],
    sum: Counter,
    max: Counter,
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram {
            buckets: std::array::from_fn(|_| Counter::default()),
            sum: Counter::default(),
            max: Counter::default(),
        }
    }
}

impl Histogram {
    pub fn record(&self, nanos: u64) {
        self.buckets[bucket(nanos)].add(1);
        self.sum.add(nanos);
        if nanos > self.max.get() {
            self.max.set(nanos);
        }
    }
}

fn bucket(nanos: u64) -> usize {
    let units = nanos >> UNIT;
    if units < 1 << SUB {
        return units as usize;
    }
    let octave = units.ilog2() - SUB;
    // The highest bit selects the doubling; the next three select the bucket in it.
    let within = (units >> octave) & ((1 << SUB) - 1);
    let index = ((octave as usize + 1) << SUB) + within as usize;
    index.min(BUCKETS - 1)
}

/// Lower bound and width of a bucket, in nanoseconds.
fn span(index: usize) -> (u64, u64) {
    let (octave, within) = (index >> SUB, (index & ((1 << SUB) - 1)) as u64);
    match octave {
        0 => (within << UNIT, 1 << UNIT),
        _ => {
            let shift = UNIT + octave as u32 - 1;
            ((within + (1 << SUB)) << shift, 1 << shift)
        }
    }
}

/// The sum of several histograms at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistogramTotals {
    buckets: Box<[u64; BUCKETS]>,
    sum: u64,
    max: u64,
}

impl Default for HistogramTotals {
    fn default() -> HistogramTotals {
        HistogramTotals { buckets: Box::new([0; BUCKETS]), sum: 0, max: 0 }
    }
}

impl HistogramTotals {
    pub fn add(&mut self, histogram: &Histogram) {
        for (sum, bucket) in self.buckets.iter_mut().zip(&histogram.buckets) {
            *sum += bucket.get();
        }
        self.sum = self.sum.wrapping_add(histogram.sum.get());
        self.max = self.max.max(histogram.max.get());
    }

    pub fn merge(&mut self, other: &HistogramTotals) {
        for (sum, bucket) in self.buckets.iter_mut().zip(other.buckets.iter()) {
            *sum += bucket;
        }
        self.sum = self.sum.wrapping_add(other.sum);
        self.max = self.max.max(other.max);
    }

    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// The value below which the share `q` of all values lies. 0 without values.
    pub fn quantile(&self, q: f64) -> u64 {
        self.quantiles(self.count(), [q])[0]
    }

    /// Several quantiles, in ascending order.
    fn quantiles<const N: usize>(&self, count: u64, shares: [f64; N]) -> [u64; N] {
        let mut index = 0;
        let mut passed = self.buckets[0];
        shares.map(|share| {
            if count == 0 {
                return 0;
            }
            let rank = ((share * count as f64).ceil() as u64).clamp(1, count);
            while passed < rank && index + 1 < BUCKETS {
                index += 1;
                passed += self.buckets[index];
            }
            let (low, width) = span(index);
            (low + width / 2).min(self.max)
        })
    }

    pub fn summary(&self) -> Summary {
        let count = self.count();
        let [p50, p90, p99, p999] = self.quantiles(count, [0.5, 0.9, 0.99, 0.999]);
        Summary { count, sum: self.sum, max: self.max, p50, p90, p99, p999, buckets: self.coarse() }
    }

    /// Cumulative counts up to each of [`COARSE`].
    fn coarse(&self) -> Vec<u64> {
        let mut counts = vec![0; COARSE.len()];
        let mut passed = 0;
        let mut at = 0;
        for (index, count) in self.buckets.iter().enumerate() {
            let (low, width) = span(index);
            while at < COARSE.len() && low + width / 2 > COARSE[at] {
                counts[at] = passed;
                at += 1;
            }
            passed += count;
        }
        counts[at..].fill(passed);
        counts
    }
}

/// A summary of a histogram. All durations are nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    pub count: u64,
    pub sum: u64,
    pub max: u64,
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
    pub p999: u64,
    /// Cumulative counts for [`COARSE`]; longer durations are the rest of `count`.
    pub buckets: Vec<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pseudo-random, the same every time.
    struct Numbers(u64);

    impl Numbers {
        fn next(&mut self) -> f64 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (self.0 >> 11) as f64 / (1u64 << 53) as f64
        }
    }

    fn check(name: &str, values: Vec<u64>) {
        let histogram = Histogram::default();
        values.iter().for_each(|nanos| histogram.record(*nanos));
        let mut recorded = HistogramTotals::default();
        recorded.add(&histogram);
        let mut sorted = values;
        sorted.sort_unstable();
        assert_eq!(recorded.count(), sorted.len() as u64);
        assert_eq!(recorded.sum, sorted.iter().sum::<u64>());
        assert_eq!(recorded.max, sorted[sorted.len() - 1]);
        for q in [0.001, 0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999, 0.9999, 1.0] {
            let rank = ((q * sorted.len() as f64).ceil() as usize).clamp(1, sorted.len());
            let exact = sorted[rank - 1] as f64;
            let read = recorded.quantile(q) as f64;
            let max = (exact * RELATIVE_ERROR).max(128.0);
            assert!((read - exact).abs() <= max, "{name}: p{q}: {read} instead of {exact}");
        }
        for (le, count) in COARSE.iter().zip(recorded.coarse()) {
            // Fine buckets near the bound may fall on either side, by the relative error.
            let below = |limit: f64| sorted.partition_point(|v| (*v as f64) <= limit) as u64;
            let (low, high) = (*le as f64 * (1.0 - 0.0625), *le as f64 * (1.0 + 0.0667));
            assert!((below(low)..=below(high)).contains(&count), "{name}: le {le}: {count}");
        }
    }

    #[test]
    fn quantiles_are_within_the_stated_error() {
        let mut random = Numbers(7);
        let mut draw = |how: &mut dyn FnMut(f64, f64) -> f64| -> Vec<u64> {
            (0..50_000).map(|_| how(random.next(), random.next()) as u64).collect()
        };
        check("uniform", draw(&mut |a, _| a * 5e6));
        check("skewed", draw(&mut |a, _| (1e5 / (1.0 - a).powf(1.5)).min(4e12)));
        check("exponential", draw(&mut |a, _| -3e6 * (1.0 - a).ln()));
        check("bimodal", draw(&mut |a, b| if b < 0.9 { 2e5 + a * 1e4 } else { 3e9 + a * 1e8 }));
        check("tiny", draw(&mut |a, _| a * 3e3));
        check("constant", vec![1_234_567; 10]);
        check("one", vec![42]);
    }

    #[test]
    fn buckets_leave_no_gap() {
        let mut end = 0;
        for index in 0..BUCKETS {
            let (low, width) = span(index);
            assert_eq!(low, end);
            assert_eq!((bucket(low), bucket(low + width - 1)), (index, index));
            end = low + width;
        }
        assert_eq!(end, 1 << 42);
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn an_empty_histogram_is_all_zero() {
        let summary = HistogramTotals::default().summary();
        assert_eq!((summary.count, summary.p99, summary.max), (0, 0, 0));
    }
}
