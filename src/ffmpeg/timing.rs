//! When pictures are shown: how ffmpeg seeks, which frames it drops, and what it logs about their times.
//!
//! A frame is on the screen from its timestamp to the next frame's. If only a part of a file is wanted, the
//! frame on the screen at its start may have begun long before. So ffmpeg seeks to a key frame at or before
//! it, and everything from there on passes through these filters. Timestamps stay as in the file (`-copyts`):
//! shifted to a position in the middle, they would be rounded differently from those of a whole decode.

use super::sampling::{Ratio, Sampling, Spread};

/// Time steps per second for thumbnails.
const THUMBNAIL_HZ: u32 = 1000;
/// Time steps per second in which every frame lasts for at least one step.
const TICKS_HZ: u32 = 1_000_000;

/// By how many seconds a frame may be late and still be on the screen: times are rounded to microseconds here,
/// and to 1/90,000 s in MPEG streams.
const EARLY_SECS: f64 = 0.00001;

/// Containers in which ffmpeg seeks by timestamp: it lands at or before the position, or reports a later
/// first timestamp. Other files are read from the beginning.
const SEEKABLE: [&str; 16] = [
    "mov,mp4,m4a,3gp,3g2,mj2",
    "matroska,webm",
    "avi",
    "flv",
    "asf",
    "ogg",
    "mpegts",
    "mpeg",
    "mxf",
    "mp3",
    "wav",
    "w64",
    "flac",
    "aiff",
    "caf",
    "au",
];
/// Broadcast streams, which can be joined end to end. Their timestamps may restart, so that the same one
/// occurs in several places. In longer ones the child looks for that.
const JOINABLE: [&str; 2] = ["mpegts", "mpeg"];
/// A joinable file of at most this many bytes is read from the beginning.
const JOINABLE_BYTES: u64 = 16 << 20;

/// Positions to seek to for a part that starts at a given second, the cheapest first. The last one is the
/// beginning.
pub fn places_to_seek(start_secs: f64) -> impl Iterator<Item = f64> {
    let places = [start_secs, (start_secs - 30.0).max(0.0), 0.0];
    places.into_iter().enumerate().filter(move |(i, at)| *i == 2 || *at > 0.0).map(|(_, at)| at)
}

/// Whether seeking by timestamp can find a wrong position.
pub fn must_begin_at_the_beginning(format: &str, file_bytes: u64) -> bool {
    !SEEKABLE.contains(&format) || JOINABLE.contains(&format) && file_bytes <= JOINABLE_BYTES
}

/// Options before the input: seek, and pass on everything from there with its own timestamp.
///
/// A jump of the timestamps joins two recordings only if the stream's clock jumps, too. Where it does not, a
/// jump is a fault of one track, and ffmpeg must not move the others along with it.
pub fn seek(to_secs: f64, one_clock: bool) -> String {
    if to_secs > 0.0 {
        format!("-copyts -start_at_zero -noaccurate_seek -ss {to_secs:.6}")
    } else if one_clock {
        "-copyts -start_at_zero".to_owned()
    } else {
        // A jump of up to an hour is a gap. A longer one is the join of two broadcasts.
        "-dts_delta_threshold 3600".to_owned()
    }
}

/// The filter `fps=fps=FPS:start_time=0` for the periods from `first` to `end`, except that it emits each
/// frame once, however long it lasts.
///
/// `settb` rounds timestamps to sampling periods, as `fps` does. `setpts` then numbers the frames: one that
/// begins in no later period than those before it gets its predecessor's number, and any other gets the next
/// number. So `fps` drops and emits the same frames as usual, and has no gap to fill. Each time the number
/// increases, `print` logs the period, which is the end of the frame emitted for the previous number (the
/// expression is evaluated for the end of the stream, too). So the n-th period in the log is the end of the
/// n-th frame. For the very first frame its own period is logged, which is negative if it began before the
/// wanted part. A log line may begin with half a line of another thread, so `FfmpegLog` recognises a number
/// by its 1e15 or 2e15.
///
/// Other samplings differ only in what they count. For the frame on the screen, times are rounded up, not to
/// the nearest period. If only some periods of each window need a frame, the number grows where one of them
/// lies before the frame's period (register 2), and the period of every frame is logged (8e15): the last one
/// is the length of the film.
///
/// A film whose pictures begin late shows its first one until then, in a part, too: if the input is read from the
/// beginning, its first frame moves to the start of the part if it comes later.
pub fn sampling(sampling: Sampling, first: u64, end: Option<u64>, from_beginning: bool) -> String {
    let part = match (first, end) {
        (0, None) => String::new(),
        (_, end) => {
            let end =
                end.map_or_else(String::new, |end| format!(",trim=end_pts={}", end.saturating_sub(first)));
            if from_beginning {
                format!("setpts='if(N,PTS-{first},min(PTS-{first},0))'{end},")
            } else {
                format!("setpts=PTS-{first}{end},")
            }
        }
    };
    let (periods, fps) = match sampling {
        Sampling::Nearest(fps) => (format!("settb=expr=1/{fps}"), fps.to_string()),
        Sampling::OnScreen(fps) => (
            format!(
                "settb=expr=1/{TICKS_HZ},setpts='ceil((PTS/{TICKS_HZ}-{EARLY_SECS})*{fps})*{TICKS_HZ}/{fps}',\
                 settb=expr=1/{fps}"
            ),
            fps.to_string(),
        ),
        // A period begins up to a quarter late: containers round times, mostly to milliseconds.
        Sampling::Spread(Spread { rate: Ratio { num, den }, .. }) => (
            format!("settb=expr={den}/{num}/8,setpts='ceil((PTS-2)/8)*8',settb=expr={den}/{num}"),
            format!("{num}/{den}"),
        ),
    };
    let numbered = match sampling {
        Sampling::Nearest(_) | Sampling::OnScreen(_) => {
            "if(N,if(gt(PTS,ld(1)),st(1,print(PTS+1e15,32)-1e15);\
            st(0,ld(0)+1)),print(PTS+2e15,32));ld(0)"
                .to_owned()
        }
        Sampling::Spread(spread) => format!(
            "st(2,PTS-{});st(5,{});if(N,if(gt(ld(5),ld(1)),st(1,ld(5));print(PTS+1e15,32);st(0,ld(0)+1)),\
             print(PTS+2e15,32));print(PTS+8e15,32);ld(0)",
            spread.begin,
            spread.taken_before()
        ),
    };
    format!("{periods},{part}setpts='{numbered}',fps=fps={fps}:start_time=0")
}

/// Filters whose first output is the frame on the screen at a given second: the last one whose timestamp is
/// not later, or the very first. It is known once a later one arrives, and `tpad` adds one at the end. That
/// one is later by the duration of the film's frames, which can be hours or, if unknown, the shortest of
/// moments, so it is moved to directly after the wanted one, too. The first frame's time is logged as in
/// [`sampling`], in milliseconds after the requested second.
pub fn on_screen(at_secs: f64) -> String {
    let at = (at_secs * f64::from(THUMBNAIL_HZ)).round();
    format!(
        "settb=expr=1/{THUMBNAIL_HZ},setpts='if(N,0,print(PTS-{at}+2e15,32));gt(PTS,{at})',\
         settb=expr=1/{TICKS_HZ},tpad=stop=1:stop_mode=clone,setpts='gt(PTS,0)*{TICKS_HZ}/{THUMBNAIL_HZ}',\
         fps=fps={THUMBNAIL_HZ}:start_time=0"
    )
}

/// Filters for the samples of a part of a file, with the first sample at 0.
pub fn part_of_sound(start_secs: f64, duration_secs: Option<f64>) -> String {
    if start_secs == 0.0 && duration_secs.is_none() {
        return String::new();
    }
    let end = duration_secs.map_or_else(String::new, |secs| format!(":end={secs:.6}"));
    format!("asetpts=PTS-round({start_secs:.6}/TB),atrim=start=0{end},")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_beginning_is_the_last_place_and_comes_once() {
        let places = |at| places_to_seek(at).collect::<Vec<_>>();
        assert_eq!(places(0.0), [0.0]);
        assert_eq!(places(12.5), [12.5, 0.0]);
        assert_eq!(places(100.0), [100.0, 70.0, 0.0]);
    }

    #[test]
    fn only_what_can_be_found_is_looked_for() {
        assert!(!must_begin_at_the_beginning("matroska,webm", 5));
        assert!(must_begin_at_the_beginning("gif", 5) && must_begin_at_the_beginning("h264", u64::MAX));
        assert!(must_begin_at_the_beginning("mpegts", 5) && !must_begin_at_the_beginning("mpegts", 1 << 30));
    }

    #[test]
    fn a_whole_film_goes_through_no_filter_for_parts() {
        assert!(!sampling(Sampling::Nearest(2.5), 0, None, true).contains("trim"));
        assert_eq!(part_of_sound(0.0, None), "");
        let part = |from_beginning| sampling(Sampling::Nearest(10.0), 20, Some(45), from_beginning);
        assert!(part(false).contains("setpts=PTS-20,trim=end_pts=25,"));
        assert!(part(true).contains("setpts='if(N,PTS-20,min(PTS-20,0))',trim=end_pts=25,"));
    }
}
