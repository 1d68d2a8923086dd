//! When pictures are shown: what ffmpeg is told to seek to, to leave out and to say of its frames' times.
//!
//! A frame is on the screen from its time stamp to the next frame's. Where only a part of a file is wanted, the
//! frame on the screen at its beginning may have begun long before, so ffmpeg seeks to a key frame at or before
//! it and everything from there on goes through these filters. Time stamps are left as the file has them
//! (`-copyts`): shifted by a place in the middle they would be rounded in another way than in a whole decode.

/// Steps of a second in which thumbnails are told apart.
const THUMBNAIL_HZ: u32 = 1000;
/// Steps in which no frame is too short to last at all.
const TICKS_HZ: u32 = 1_000_000;

/// Containers in which ffmpeg finds a place by its time stamp: it lands at or before it, or says a later first
/// time stamp. What is not listed is read from its beginning.
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
/// Streams of broadcasts, which can be joined end to end: their time stamps may begin anew, and then the
/// same one is in several places.
const JOINABLE: [&str; 2] = ["mpegts", "mpeg"];
/// A joinable file this small is read from its beginning, bytes.
const JOINABLE_BYTES: u64 = 16 << 20;

/// Where to begin to read for a part that begins at a second, the cheapest first; the last one is the beginning.
pub fn places_to_seek(start_secs: f64) -> impl Iterator<Item = f64> {
    let places = [start_secs, (start_secs - 30.0).max(0.0), 0.0];
    places.into_iter().enumerate().filter(move |(i, at)| *i == 2 || *at > 0.0).map(|(_, at)| at)
}

/// Whether a place found by its time stamp can be the wrong one.
pub fn must_begin_at_the_beginning(format: &str, file_bytes: u64) -> bool {
    !SEEKABLE.contains(&format) || JOINABLE.contains(&format) && file_bytes <= JOINABLE_BYTES
}

/// What to put before the input: seek there, and give whatever comes from there on with its own time stamp.
pub fn seek(to_secs: f64) -> String {
    if to_secs > 0.0 {
        format!("-copyts -start_at_zero -noaccurate_seek -ss {to_secs:.6}")
    } else {
        // A gap of up to an hour is a gap. What is longer is the join of two broadcasts.
        "-dts_delta_threshold 3600".to_owned()
    }
}

/// The filter `fps=fps=FPS:start_time=0`, for the periods from `first` to `end`, but that each frame leaves it
/// once, however long it lasts.
///
/// `settb` rounds time stamps to sampling periods as `fps` does. `setpts` then numbers frames so that one
/// that begins no later period than any before it gets its predecessor's number, and any other the next:
/// `fps` drops and emits the same frames as ever, and has no gap to fill. Each time the number goes up,
/// `print` writes the period to the log: it is where the frame emitted for the number before ends (the
/// expression is evaluated for the end of the stream too). So the n-th period in the log is the end of
/// the n-th frame. Of the very first frame its own period is written, which is below 0 where it began before
/// the part that is wanted. A log line may begin with half a line of another thread: `ffmpeg_log` knows
/// a number by its 1e15 or 2e15.
pub fn sampling(fps: f64, first: u64, end: Option<u64>) -> String {
    let part = match (first, end) {
        (0, None) => String::new(),
        (_, end) => {
            let end =
                end.map_or_else(String::new, |end| format!(",trim=end_pts={}", end.saturating_sub(first)));
            format!("setpts=PTS-{first}{end},")
        }
    };
    format!(
        "settb=expr=1/{fps},{part}setpts='if(N,if(gt(PTS,ld(1)),st(1,print(PTS+1e15,32)-1e15);st(0,ld(0)+1)),\
         print(PTS+2e15,32));ld(0)',fps=fps={fps}:start_time=0"
    )
}

/// Filters that give the frame on the screen at a second first: the last one whose time stamp is not later, or the
/// very first. It is known when a later one comes, and `tpad` adds one at the end, as much later as frames of this
/// film are, which may be hours or, where nobody knows, the shortest of moments: it too is put right behind. The
/// first frame's time is written to the log as in [`sampling`], in milliseconds after the requested second.
pub fn on_screen(at_secs: f64) -> String {
    let at = (at_secs * f64::from(THUMBNAIL_HZ)).round();
    format!(
        "settb=expr=1/{THUMBNAIL_HZ},setpts='if(N,0,print(PTS-{at}+2e15,32));gt(PTS,{at})',\
         settb=expr=1/{TICKS_HZ},tpad=stop=1:stop_mode=clone,setpts='gt(PTS,0)*{TICKS_HZ}/{THUMBNAIL_HZ}',\
         fps=fps={THUMBNAIL_HZ}:start_time=0"
    )
}

/// Samples of a part of a file, the first of them at 0.
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
        assert!(!sampling(2.5, 0, None).contains("trim"));
        assert_eq!(part_of_sound(0.0, None), "");
        assert!(sampling(10.0, 20, Some(45)).contains("setpts=PTS-20,trim=end_pts=25,"));
    }
}
