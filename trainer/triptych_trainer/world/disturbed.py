"""Sound as it may arrive: at another level, and in noise of any colour."""

import numpy as np

FFT_LEAST_HZ = 20.0
WHITE = 0.0


def with_noise(
    pcm: np.ndarray, snr_db: float, rng: np.random.Generator, slope: float = WHITE
) -> np.ndarray:
    """The sound with noise whose level is `snr_db` below that of the sound as a whole. The noise's
    power falls with f^-slope: 0 is white, 1 pink, 2 brown. Not clipped."""
    sound_rms = np.sqrt(np.mean(np.square(pcm, dtype=np.float64)))
    noise = coloured(len(pcm), slope, rng)
    noise_rms = np.sqrt(np.mean(np.square(noise, dtype=np.float64)))
    return pcm + noise * np.float32(sound_rms / noise_rms * 10 ** (-snr_db / 20))


def coloured(samples: int, slope: float, rng: np.random.Generator) -> np.ndarray:
    """Noise f32 [samples] whose power falls with f^-slope above 20 Hz (of 48 kHz)."""
    white = rng.standard_normal(samples, dtype=np.float32)
    if slope == WHITE:
        return white
    spectrum = np.fft.rfft(white)
    hz = np.fft.rfftfreq(samples, 1 / 48_000)
    spectrum *= np.maximum(hz, FFT_LEAST_HZ) ** (-slope / 2)
    return np.fft.irfft(spectrum, samples).astype(np.float32)


def at_level(pcm: np.ndarray, gain_db: float) -> np.ndarray:
    """The sound louder or quieter, clipped as a file would."""
    return np.clip(pcm * np.float32(10 ** (gain_db / 20)), -1, 1)
