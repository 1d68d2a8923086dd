//! How far to reduce a picture with too many pixels.

/// The smallest power of two by which a picture must be divided to have at most `max_pixels`; at most 64.
pub fn divisor(width: u32, height: u32, max_pixels: u64) -> u32 {
    let fits = |by: &u32| {
        let (width, height) = divided(width, height, *by);
        u64::from(width) * u64::from(height) <= max_pixels.max(1)
    };
    [1, 2, 4, 8, 16, 32].into_iter().find(fits).unwrap_or(64)
}

/// A size divided by `by`, rounded up.
pub fn divided(width: u32, height: u32, by: u32) -> (u32, u32) {
    (width.div_ceil(by), height.div_ceil(by))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_is_divided_until_it_fits() {
        let frame = 8192 * 4320;
        assert_eq!(divisor(8192, 4320, frame), 1);
        assert_eq!(divisor(8193, 4320, frame), 2);
        assert_eq!(divisor(12_000, 9000, frame), 2);
        assert_eq!(divisor(16_320, 12_240, frame), 4);
        assert_eq!(divided(12_001, 9000, 2), (6001, 4500));
    }
}
