//! Which frames of a film are decoded. Times are counted in periods of a fixed rate, and a frame is on the
//! screen from its own period to that of the next one; of the frames that no period needs, none leaves ffmpeg.

use serde::{Deserialize, Serialize};

/// Most windows besides the regular ones.
pub const MOST_EXTRA: usize = 4;
/// Largest number of anything here: products of three of them stay exact in ffmpeg's floating point.
const MOST: u64 = 1 << 40;

/// Which frames are needed.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sampling {
    /// One for each period of this many a second; a frame's time is rounded to a period.
    Nearest(f64),
    /// One for each period of this many a second: the frame that is on the screen when it begins.
    OnScreen(f64),
    /// Some of the frames of each window.
    Spread(Spread),
}

/// A number of frames, evenly spaced over the frames of each window. The periods are those of the film's own
/// rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spread {
    /// The film's frames per second.
    pub rate: Ratio,
    /// Periods before the first window.
    pub begin: u64,
    /// Frames that are taken of a window.
    pub frames: u64,
    /// Periods of a window.
    pub window: u64,
    /// Periods from one window to the next: window k begins at `round(k * stride)`.
    pub stride: Ratio,
    /// Further windows, begin and length: what the last one may be. A length of 0 means none.
    pub extra: [(u64, u64); MOST_EXTRA],
}

/// A positive fraction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ratio {
    /// Numerator.
    pub num: u64,
    /// Denominator, above 0.
    pub den: u64,
}

impl Ratio {
    /// The fraction in lowest terms; at least 1 / 2^20, at most 2^20.
    pub fn new(num: u128, den: u128) -> Self {
        let (mut a, mut b) = (num, den);
        while b > 0 {
            (a, b) = (b, a % b);
        }
        let (mut num, mut den) = (num / a.max(1), den / a.max(1));
        // A fraction of larger numbers than any rate has is rounded.
        while num.max(den) > 1 << 32 {
            (num, den) = (num >> 1, den >> 1);
        }
        let bounded = |value: u128| u64::try_from(value.clamp(1, 1 << 32)).unwrap_or(1);
        Self { num: bounded(num), den: bounded(den) }
    }

    /// The fraction as a number.
    #[must_use]
    pub fn value(self) -> f64 {
        self.num as f64 / self.den as f64
    }

    /// `round(times * self)`, halves up.
    pub fn times(self, times: u64) -> u64 {
        let (num, den) = (u128::from(self.num), u128::from(self.den));
        u64::try_from((2 * u128::from(times) * num + den) / (2 * den)).unwrap_or(u64::MAX)
    }

    /// The rate of a film, from two rates that ffmpeg states, each rounded to two decimals: the mean rate of
    /// its frames, and the lowest rate that fits all their times. The second is the rate of a film of equal
    /// frames; the first differs from it by more than a hundredth if frames are uneven or missing.
    pub fn stated(mean: &str, fitting: &str) -> Option<Self> {
        let value = |text: &str| text.parse::<f64>().ok().filter(|rate| *rate >= 0.001 && *rate <= 1e5);
        let (mean_rate, fitting_rate) = (value(mean), value(fitting));
        match (mean_rate, fitting_rate) {
            (Some(a), Some(b)) if (a - b).abs() <= b * 0.01 => Self::meant_by(fitting),
            (Some(_), _) => Self::meant_by(mean),
            (None, Some(_)) => Self::meant_by(fitting),
            (None, None) => None,
        }
    }

    /// The rate that is rounded to this text: of NTSC if one is, else the one of the smallest denominator.
    fn meant_by(text: &str) -> Option<Self> {
        let decimals = text.split_once('.').map_or(0, |(_, decimals)| decimals.len()).min(6);
        let unit = 10_u128.pow(decimals as u32);
        let stated = (text.parse::<f64>().ok()? * unit as f64).round() as u128;
        // Whether `num / den` is rounded to the text.
        let means = |num: u128, den: u128| (2 * num * unit).abs_diff(2 * stated * den) <= den;
        if stated.is_multiple_of(unit) {
            return Some(Self::new(stated / unit, 1));
        }
        let whole = (stated + unit / 2) / unit;
        if whole > 0 && means(whole * 1000, 1001) {
            return Some(Self::new(whole * 1000, 1001));
        }
        (1..=unit).find_map(|den| {
            let num = (stated * den + unit / 2) / unit;
            (num > 0 && means(num, den)).then(|| Self::new(num, den))
        })
    }
}

impl Sampling {
    /// Periods per second.
    pub fn rate(self) -> f64 {
        match self {
            Self::Nearest(fps) | Self::OnScreen(fps) => fps,
            Self::Spread(spread) => spread.rate.value(),
        }
    }

    /// Whether its numbers are such as the parent sends.
    pub fn is_sane(self) -> bool {
        match self {
            Self::Nearest(fps) | Self::OnScreen(fps) => fps.is_finite() && fps > 0.0,
            Self::Spread(spread) => {
                let Spread { rate, begin, frames, window, stride, extra } = spread;
                let positive = [rate.num, rate.den, frames, window, stride.num, stride.den];
                let others = extra.iter().flat_map(|(start, len)| [*start, *len]).chain([begin]);
                positive.iter().all(|value| (1..=MOST).contains(value))
                    && others.into_iter().all(|value| value <= MOST)
                    && stride.num >= stride.den
            }
        }
    }
}

impl Spread {
    /// First period of window `k`.
    pub fn start(&self, k: u64) -> u64 {
        self.stride.times(k)
    }

    /// Period of the frame `i` of a window of `len` periods, after the window's first.
    pub fn pick(&self, i: u64, len: u64) -> u64 {
        let pick = u128::from(i) * u128::from(len.saturating_sub(1)) / u128::from((self.frames - 1).max(1));
        u64::try_from(pick).unwrap_or(u64::MAX)
    }

    /// Most windows that have a period in common, besides the extra ones.
    pub fn overlap(&self) -> u64 {
        (u128::from(self.window) * u128::from(self.stride.den)).div_ceil(u128::from(self.stride.num)) as u64
    }

    /// An expression of ffmpeg: how many frames windows take before the period in register 2, counted with
    /// the windows that take them. It uses the registers 2 to 4.
    pub fn taken_before(&self) -> String {
        let Self { frames, window, stride: Ratio { num, den }, .. } = *self;
        let (overlap, twice, double) = (self.overlap().max(1), 2 * den, 2 * num);
        // The last window that begins at or before the period.
        let latest = format!("max(0,ceil((2*ld(2)+1)*{den}/{double})-1)");
        let start = format!("floor((ld(4)*{double}+{den})/{twice})");
        let regular = if overlap <= 1 {
            format!("st(4,{latest});ld(4)*{frames}+{}", self.taken_of(&format!("ld(2)-{start}"), window))
        } else {
            // Of those before the ones that overlap with it, all frames are taken.
            let first = format!("max(0,{latest}-{})", overlap + 1);
            let of_one = self.taken_of(&format!("ld(2)-{start}"), window);
            format!(
                "st(4,{first});st(3,ld(4)*{frames});\
                 while(lt(ld(4)*{double},(2*ld(2)+1)*{den}),st(3,ld(3)+{of_one});st(4,ld(4)+1));ld(3)"
            )
        };
        let extra = self.extra.iter().filter(|(_, len)| *len > 0);
        let extra = extra.map(|(start, len)| format!("+{}", self.taken_of(&format!("ld(2)-{start}"), *len)));
        regular + &extra.collect::<String>()
    }

    /// How many frames a window of `len` periods takes before the period `at` of its own.
    fn taken_of(&self, at: &str, len: u64) -> String {
        let frames = self.frames;
        match (len, frames) {
            (_, 1) => format!("clip({at},0,1)"),
            (1, _) => format!("{frames}*clip({at},0,1)"),
            _ => format!("clip(ceil(({at})*{}/{}),0,{frames})", frames - 1, len - 1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_the_one_that_is_meant() {
        let of = |mean, fitting| Ratio::stated(mean, fitting).map(|rate| (rate.num, rate.den));
        for (mean, fitting, wanted) in [
            ("25", "25", Some((25, 1))),
            ("23.98", "23.98", Some((24000, 1001))),
            ("29.97", "29.97", Some((30000, 1001))),
            ("59.94", "59.94", Some((60000, 1001))),
            ("14.99", "14.99", Some((15000, 1001))),
            ("12.50", "12.50", Some((25, 2))),
            ("8.33", "8.33", Some((25, 3))),
            // The last frame is shown longer.
            ("24.96", "25", Some((25, 1))),
            // Frames are uneven.
            ("27.34", "30", Some((257, 94))),
            ("7.50", "90k", Some((15, 2))),
            ("", "10", Some((10, 1))),
            ("0.0333", "0.0333", Some((1, 30))),
            ("nan", "inf", None),
            ("-1", "0", None),
        ] {
            let got = of(mean, fitting);
            match wanted {
                Some((num, den)) if (num, den) == (257, 94) => {
                    let (num, den) = got.unwrap();
                    assert!((num as f64 / den as f64 - 27.34).abs() <= 0.005, "{num}/{den}");
                }
                wanted => assert_eq!(got, wanted, "{mean} {fitting}"),
            }
        }
    }

    #[test]
    fn windows_begin_at_rounded_periods() {
        let stride = Ratio::new(2397, 100);
        assert_eq!((0..4).map(|k| stride.times(k)).collect::<Vec<_>>(), [0, 24, 48, 72]);
        assert_eq!(Ratio::new(5, 2).times(1), 3);
    }
}
