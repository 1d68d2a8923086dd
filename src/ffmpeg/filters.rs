//! Chooses the filters that turn stored pictures into the ones a viewer sees: deinterlacing, tone mapping of
//! light that is brighter than a screen's, square pixels. The rule is in `docs/bundle.md`, "Pictures as
//! shown"; the trainer implements it, too.
//!
//! ffmpeg's description of a film determines its filters. Only words of fixed lists are taken from the
//! description, never text from the file.

use serde::{Deserialize, Serialize};

use super::picks::{Heard, Picks, Source};
use super::said::{Fields, MOST_STRETCH, VideoLine};
use super::scale::divisor;

/// From this size on, pictures without a declared matrix are BT.709, as in players.
const HD: (u32, u32) = (1280, 577);
/// Codecs whose frames are never interlaced, and codecs whose missing matrix is BT.601 by their own rules.
const PROGRESSIVE: [&str; 10] =
    ["vp8", "vp9", "av1", "theora", "gif", "png", "apng", "webp", "webp_anim", "qtrle"];
const ALWAYS_601: [&str; 4] = ["vp8", "theora", "mjpeg", "webp"];
/// Luminance of a white sheet of paper in HDR, cd/m2 (BT.2408). It becomes a screen's white, less the room
/// that highlights need.
const WHITE: u32 = 203;
/// Brightest highlight that keeps its shade, as a multiple of `WHITE`.
const PEAK: u32 = 10;
/// Memory of the colour filters per pixel, in bytes: two frames of floats, and 8-bit input and output.
const WIDE_BYTES: u64 = 36;
/// Memory of the deinterlacer per pixel, in bytes: three frames and the one made from them.
const FIELDS_BYTES: u64 = 16;
/// Tones up to this share of white stay as they are.
const KNEE: f64 = 0.5;

/// Which streams to read, and how to transform their frames. By default, as for most films, frames stay as
/// they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shape {
    /// Source of the pictures.
    pub source: Source,
    /// Source of the sound.
    #[serde(default)]
    pub sound: Heard,
    /// Whether it is or may be interlaced. Frames that are not flagged as such are left as they are.
    pub deinterlace: bool,
    /// Whether its pixels are not square.
    pub stretch: bool,
    /// Divisor of the size, for pictures with more pixels than a frame may have; otherwise 1.
    pub divisor: u32,
    /// Conversion of its colours, if they are not those of a screen.
    pub colour: Option<Colour>,
}

/// Colours that must be converted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Colour {
    /// No declared matrix, but a large picture: BT.709.
    AssumedBt709,
    /// Its range of light or of colours differs from a screen's.
    Wide { light: Light, primaries: Primaries, matrix: Matrix, full_range: bool },
}

/// Transfer function from stored values to light.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Light {
    Sdr,
    Pq,
    Hlg,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Primaries {
    Bt709,
    Bt2020,
    Smpte431,
    Smpte432,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Matrix {
    Rgb,
    Bt601,
    Bt709,
    Bt2020,
    Bt2020Constant,
    Ictcp,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            source: Source::Film,
            sound: Heard::First,
            deinterlace: false,
            stretch: false,
            divisor: 1,
            colour: None,
        }
    }
}

impl Shape {
    /// The shape that shows the frames of a film as intended.
    pub fn film(video: &VideoLine) -> Self {
        let deinterlace = match video.fields {
            Fields::Interlaced => true,
            Fields::Progressive => false,
            Fields::Unsaid => !PROGRESSIVE.contains(&video.codec.as_str()),
        };
        Self {
            source: Source::Film,
            sound: Heard::First,
            deinterlace,
            stretch: video.stretch().is_some(),
            divisor: 1,
            colour: Colour::needed(video),
        }
    }

    /// The shape for a picture inside a container, which has no fields.
    pub fn picture(video: &VideoLine, max_pixels: u64, shown: bool) -> Self {
        let (width, height) = video.size.unwrap_or_default();
        let divisor = divisor(width, height, max_pixels);
        let shown = if shown { Self::film(video) } else { Self::default() };
        Self { source: video.source, deinterlace: false, divisor, ..shown }
    }

    /// The same shape for other tracks.
    pub const fn of(self, picks: Picks) -> Self {
        Self { source: picks.picture, sound: picks.sound, ..self }
    }

    /// Whether frames are left as they are.
    pub fn leaves_frames(self) -> bool {
        self.of(Picks::default()) == Self::default()
    }

    /// The chain of filters. `sampling`, which drops frames, comes after deinterlacing, which looks at
    /// neighbouring frames, and before the filters that only the remaining frames need.
    pub fn chain(self, sampling: Option<&str>) -> String {
        let mut filters: Vec<String> = Vec::new();
        if self.deinterlace {
            filters.push("bwdif=mode=send_frame:deint=interlaced".into());
        }
        filters.extend(sampling.map(str::to_owned));
        if self.divisor > 1 {
            let by = self.divisor;
            filters.push(format!("scale=w=ceil(iw/{by}):h=ceil(ih/{by}):flags=area"));
        }
        filters.extend(self.colour.map(Colour::filter));
        if self.stretch {
            let real = format!("between(sar,1/{MOST_STRETCH},{MOST_STRETCH})");
            filters.push(format!(
                "scale=w='if({real}*gt(sar,1),round(iw*sar),iw)':h='if({real}*lt(sar,1),round(ih/sar),ih)',setsar=1"
            ));
        }
        if filters.is_empty() { "null".into() } else { filters.join(",") }
    }

    /// Memory that the filters need for frames of this size, in bytes.
    pub fn extra_bytes(self, width: u32, height: u32) -> u64 {
        let wide = if matches!(self.colour, Some(Colour::Wide { .. })) { WIDE_BYTES } else { 0 };
        let fields = if self.deinterlace { FIELDS_BYTES } else { 0 };
        u64::from(width) * u64::from(height) * (wide + fields)
    }
}

impl Colour {
    fn needed(video: &VideoLine) -> Option<Self> {
        let rgb =
            ["rgb", "bgr", "gbr", "pal8", "gray", "mono"].iter().any(|f| video.pixel_format.contains(f));
        let light = match video.transfer.as_str() {
            "smpte2084" => Light::Pq,
            "arib-std-b67" => Light::Hlg,
            _ => Light::Sdr,
        };
        let primaries = match video.primaries.as_str() {
            "bt2020" => Primaries::Bt2020,
            "smpte431" => Primaries::Smpte431,
            "smpte432" => Primaries::Smpte432,
            // HDR without declared primaries has those of BT.2020.
            "unknown" | "" if light != Light::Sdr => Primaries::Bt2020,
            _ => Primaries::Bt709,
        };
        let (width, height) = video.size.unwrap_or_default();
        let hd = width >= HD.0 || height >= HD.1;
        let unsaid = matches!(video.matrix.as_str(), "" | "unknown");
        let matrix = match video.matrix.as_str() {
            _ if rgb => Matrix::Rgb,
            "gbr" => Matrix::Rgb,
            "bt709" => Matrix::Bt709,
            "bt2020nc" => Matrix::Bt2020,
            "bt2020c" => Matrix::Bt2020Constant,
            "ictcp" => Matrix::Ictcp,
            "" | "unknown" if light != Light::Sdr => Matrix::Bt2020,
            "" | "unknown" if hd => Matrix::Bt709,
            _ => Matrix::Bt601,
        };
        if light != Light::Sdr || primaries != Primaries::Bt709 {
            return Some(Self::Wide { light, primaries, matrix, full_range: video.full_range || rgb });
        }
        let by_size = unsaid && hd && !rgb && !ALWAYS_601.contains(&video.codec.as_str());
        by_size.then_some(Self::AssumedBt709)
    }

    fn filter(self) -> String {
        let Self::Wide { light, primaries, matrix, full_range } = self else {
            return "setparams=colorspace=bt709".into();
        };
        let primaries = match primaries {
            Primaries::Bt709 => "bt709",
            Primaries::Bt2020 => "bt2020",
            Primaries::Smpte431 => "smpte431",
            Primaries::Smpte432 => "smpte432",
        };
        let matrix = match matrix {
            Matrix::Rgb => "gbr",
            Matrix::Bt601 => "170m",
            Matrix::Bt709 => "bt709",
            Matrix::Bt2020 => "bt2020nc",
            Matrix::Bt2020Constant => "bt2020c",
            Matrix::Ictcp => "ictcp",
        };
        let range = if full_range { "full" } else { "limited" };
        let input = |transfer| format!("zscale=tin={transfer}:pin={primaries}:min={matrix}:rin={range}");
        let transfer = match light {
            Light::Sdr => return input("bt709") + ":t=bt709:p=bt709:m=gbr:r=full,format=gbrp",
            Light::Pq => "smpte2084",
            Light::Hlg => "arib-std-b67",
        };
        input(transfer)
            + &format!(
                ":t=linear:p=bt709:m=gbr:r=full:npl={WHITE},format=gbrpf32le,\
                 tonemap=tonemap=mobius:param={KNEE}:peak={PEAK}:desat=0,zscale=t=bt709:m=gbr:r=full,format=gbrp"
            )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> VideoLine {
        VideoLine::read(&format!("  Stream #0:2[0x3](und): Video: {text}")).unwrap()
    }

    #[test]
    fn trainer_and_server_choose_the_same_filters() {
        #[derive(Deserialize)]
        struct Row {
            line: String,
            size: (u32, u32),
            filters: String,
        }
        let rows: Vec<Row> = serde_json::from_str(include_str!("../../tests/pictures/shown.json")).unwrap();
        assert!(rows.len() > 10);
        for row in rows {
            let video = line(&row.line);
            assert_eq!(video.shown_size(), Some(row.size), "{}", row.line);
            let filters = Shape::film(&video).chain(Some("fps=fps=10:start_time=0"));
            assert_eq!(filters, row.filters, "{}", row.line);
        }
    }

    #[test]
    fn most_films_need_nothing() {
        for text in [
            "h264 (High) (avc1 / 0x31637661), yuv420p(progressive), 640x360, 495 kb/s, 25 fps (default)",
            "h264 (High) (avc1 / 0x31637661), yuv420p(tv, bt709, progressive), 1920x1080 [SAR 1:1 DAR 16:9], 25 fps",
            "vp8, yuv420p(progressive), 1280x720, SAR 1:1 DAR 16:9, 24 fps, 24 tbr, 1k tbn, start 0.003000 (default)",
            "av1 (libdav1d) (Main), yuv420p(tv, bt709/unknown/unknown), 640x360 [SAR 1:1 DAR 16:9], 25 fps",
            "mjpeg (Baseline), yuvj420p(pc, bt470bg/unknown/unknown, progressive), 4000x3000 [SAR 72:72 DAR 4:3]",
            "hevc (Main) (hvc1 / 0x31637668), yuvj420p(pc, smpte170m/bt709/iec61966-2-1, progressive), 4032x3024",
            "rawvideo (RGB[24] / 0x18424752), rgb24(progressive), 1920x1080, 25 fps",
        ] {
            assert_eq!(Shape::film(&line(text)), Shape::default(), "{text}");
        }
        assert_eq!(Shape::default().chain(None), "null");
    }

    #[test]
    fn what_a_film_says_of_itself_decides() {
        let dvd = line("mpeg2video (Main), yuv420p(tv, top first), 720x576 [SAR 64:45 DAR 16:9], 25 fps");
        let shape = Shape::film(&dvd);
        assert!(shape.deinterlace && shape.stretch && shape.colour.is_none());
        assert_eq!((dvd.source, dvd.shown_size()), (Source::Stream(2), Some((1024, 576))));
        assert!(
            shape.chain(Some("fps=1")).starts_with("bwdif=mode=send_frame:deint=interlaced,fps=1,scale=")
        );

        let swapped =
            line("prores (apcn / 0x6E637061), yuv422p10le(tv, bt709, top coded first (swapped)), 1920x1080");
        assert_eq!((swapped.fields, swapped.matrix.as_str()), (Fields::Interlaced, "bt709"));
        // The container's ratio comes after the stream's own, and ffmpeg uses it.
        let mkv =
            line("h264 (Main), yuv420p(progressive), 720x480 [SAR 1:1 DAR 3:2], SAR 32:27 DAR 16:9, 30 fps");
        assert_eq!(mkv.shown_size(), Some((853, 480)));
        assert_eq!(
            line("h264 (Main), yuv420p(progressive), 64x64 [SAR 9999:1 DAR 9999:1]").shown_size(),
            Some((64, 64))
        );

        let unsaid = line("h264 (Main) (avc1 / 0x31637661), yuv420p(tv, progressive), 1920x1080, 25 fps");
        assert_eq!(Shape::film(&unsaid).colour, Some(Colour::AssumedBt709));
    }

    #[test]
    fn light_beyond_a_screen_is_mapped_and_says_how() {
        let pq = line(
            "hevc (Main 10) (hev1 / 0x31766568), yuv420p10le(tv, bt2020nc/bt2020/smpte2084, progressive), 3840x2160",
        );
        let Some(Colour::Wide { light, primaries, matrix, full_range }) = Shape::film(&pq).colour else {
            panic!("{pq:?}")
        };
        assert_eq!((light, primaries, matrix), (Light::Pq, Primaries::Bt2020, Matrix::Bt2020));
        assert!(!full_range);
        let hlg = line("vp9 (Profile 2), yuv420p10le(pc, unknown/unknown/arib-std-b67), 1280x720");
        assert!(
            Shape::film(&hlg)
                .chain(Some("fps=1"))
                .contains("tin=arib-std-b67:pin=bt2020:min=bt2020nc:rin=full")
        );
        let wide =
            line("hevc (Main) (hvc1 / 0x31637668), yuv420p(tv, bt709/smpte432/bt709, progressive), 64x64");
        assert!(Shape::film(&wide).chain(None).contains("pin=smpte432:min=bt709"));
    }

    #[test]
    fn tiles_are_one_picture() {
        let text = "  Stream group #0:0[0x7]: Tile Grid: hevc (Main) (hvc1 / 0x31637668), \
                    yuvj420p(pc, smpte170m/unknown/unknown), 600x440 (default)";
        let grid = VideoLine::read(text).unwrap();
        assert_eq!((grid.source, grid.size, grid.default), (Source::Tiles(0), Some((600, 440)), true));
        assert!(VideoLine::read("  Stream #0:0: Audio: aac").is_none());
        assert!(VideoLine::read("  Stream #0:: Video: ").is_none());
    }
}
