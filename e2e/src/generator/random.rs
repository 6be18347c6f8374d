//! Seeded randomness: the same seed gives the same orders on every machine and in every version.

/// `SplitMix64` (Steele, Lea, Flood 2014): small, fast, and good enough to draw test data. Not for secrets.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// Starts the sequence of this seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, which must not be 0. The bias of the multiplication is below 2⁻³² for our bounds.
    pub fn below(&mut self, bound: u32) -> u32 {
        let [.., b3, b2, b1, b0] = ((self.next_u64() >> 32) * u64::from(bound)).to_le_bytes();
        u32::from_le_bytes([b3, b2, b1, b0])
    }

    /// A number in `[0, 1)`.
    pub fn unit(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// Ranks `0..n` with probability proportional to `1 / (rank + 1)^exponent`: few are drawn often, most rarely.
#[derive(Debug, Clone)]
pub struct Zipf {
    /// Cumulative probability of each rank.
    cumulative: Vec<f64>,
}

impl Zipf {
    /// Over `n` ranks; `n` must not be 0.
    pub fn new(n: u32, exponent: f64) -> Self {
        let mut sum = 0.0;
        let mut cumulative: Vec<f64> = (1..=n)
            .map(|rank| {
                sum += f64::from(rank).powf(-exponent);
                sum
            })
            .collect();
        for value in &mut cumulative {
            *value /= sum;
        }
        Self { cumulative }
    }

    /// Draws a rank.
    ///
    /// # Panics
    /// Never: there are at most `u32::MAX` ranks.
    pub fn draw(&self, random: &mut Random) -> u32 {
        let point = random.unit();
        let rank = self.cumulative.partition_point(|&upper| upper <= point);
        u32::try_from(rank.min(self.cumulative.len() - 1)).expect("there are at most u32::MAX ranks")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_a_sequence() {
        // First outputs of SplitMix64 with seed 1234567, as published with the algorithm.
        let mut random = Random::new(1_234_567);
        assert_eq!(random.next_u64(), 6_457_827_717_110_365_317);
        assert_eq!(random.next_u64(), 3_203_168_211_198_807_973);
    }

    #[test]
    fn numbers_stay_below_their_bound_and_reach_it() {
        let mut random = Random::new(7);
        let drawn: Vec<u32> = (0..1000).map(|_| random.below(5)).collect();
        assert!(drawn.iter().all(|&number| number < 5));
        assert!((0..5).all(|number| drawn.contains(&number)));
    }

    #[test]
    fn low_ranks_are_drawn_more_often() {
        let (zipf, mut random) = (Zipf::new(100, 1.0), Random::new(3));
        let mut count = [0u32; 100];
        (0..10_000).for_each(|_| count[zipf.draw(&mut random) as usize] += 1);
        // Harmonic number of 100 is 5.19, so rank 0 has 19 % of the draws and rank 9 has 1.9 %.
        assert!((1_700..2_200).contains(&count[0]), "{}", count[0]);
        assert!((120..280).contains(&count[9]), "{}", count[9]);
    }
}
