"""Which tracks of a file are read (`docs/bundle.md`, "Tracks").

The server chooses the same in Rust; `tests/tracks/rule.json` tests both."""

import re
from dataclasses import dataclass, field

MOST_STREAMS = 64
MOST_MONO = 16
CHANNELS_APART = ("mxf", "gxf", "mov,mp4,m4a,3gp,3g2,mj2")
"""Containers of broadcast and of cameras, in which one channel a track is usual."""
LESSER = (
    "(comment)",
    "(hearing impaired)",
    "(visual impaired)",
    "(descriptions)",
    "(karaoke)",
    "(lyrics)",
    "(clean effects)",
    "(still image)",
)
"""Marks of tracks that are no choice where there is another one."""
COVERS = ("(attached pic)", "(timed thumbnails)")
LAYOUTS = {"mono": 1, "stereo": 2, "downmix": 2, "binaural": 2, "quad": 4, "hexagonal": 6}
LAYOUTS |= {"octagonal": 8, "cube": 8, "hexadecagonal": 16}
PICTURE_BASE, SOUND_BASE, STREAM_STEP = 6 * 10**15, 7 * 10**15, 10**12
"""What is added to the numbers that a survey has ffmpeg print, and how far apart streams are."""


@dataclass
class Stream:
    """ffmpeg's description of one stream."""

    index: int
    kind: str
    """`Video`, `Audio`, `Cover` or another."""
    line: str
    codec: str
    language: str
    default: bool
    lesser: bool
    channels: int = 0
    rate_hz: int = 0
    pixels: int = 0
    title: str = ""

    @classmethod
    def read(cls, line: str) -> "Stream | None":
        found = re.match(r"  Stream #0:(\d+)(.*?): (\w+): ", line)
        if found is None or int(found[1]) >= MOST_STREAMS:
            return None
        text, kind = line[found.end() :], found[3]
        if kind == "Video" and any(mark in text for mark in COVERS):
            kind = "Cover"
        language = re.search(r"\(([^()]*)\)$", found[2])
        stream = cls(
            int(found[1]),
            kind,
            line,
            re.split(r"[ ,]", text, maxsplit=1)[0],
            language[1] if language and language[1] != "und" else "",
            "(default)" in text,
            any(mark in text for mark in LESSER),
        )
        if kind == "Audio":
            parts = text.split(", ")
            at = next((n for n, part in enumerate(parts) if part.endswith(" Hz")), None)
            if at is not None:
                stream.rate_hz = int(parts[at][:-3])
                stream.channels = _channels(parts[at + 1]) if at + 1 < len(parts) else 0
        elif size := re.search(r"[ ,](\d{2,5})x(\d{2,5})(?=[ ,]|$)", text):
            stream.pixels = int(size[1]) * int(size[2])
        return stream

    @property
    def has_codec(self) -> bool:
        return self.codec not in ("", "none", "unknown")

    @property
    def preferred(self) -> tuple[bool, bool, bool]:
        """What the container says for it."""
        return self.has_codec, not self.lesser, self.default


def _channels(layout: str) -> int:
    word = re.split(r"[ (,]", layout, maxsplit=1)[0]
    if word in LAYOUTS:
        return LAYOUTS[word]
    if re.fullmatch(r"\d+(\.\d+)+", word):
        return sum(int(part) for part in word.split("."))
    return int(word) if word.isdigit() and "channels" in layout else 0


@dataclass(frozen=True)
class Seen:
    """What a survey has found."""

    packets: dict[int, int] = field(default_factory=dict)
    heard: frozenset[int] = frozenset()

    @classmethod
    def read(cls, log: str) -> "Seen":
        packets: dict[int, int] = {}
        heard = set()
        for digits in re.findall(r"([67]\d{15})\.000000$", log, re.MULTILINE):
            number = int(digits)
            if number >= SOUND_BASE:
                heard.add((number - SOUND_BASE) // STREAM_STEP)
            else:
                index, packet = divmod(number - PICTURE_BASE, STREAM_STEP)
                packets[index] = max(packets.get(index, 0), packet + 1)
        return cls(packets, frozenset(heard))


@dataclass(frozen=True)
class Picks:
    """The tracks to read."""

    video: int | None
    sound: tuple[int, ...]
    """Several are the channels of one sound."""


@dataclass(frozen=True)
class Survey:
    """Streams that must be looked at before it is known."""

    pictures: tuple[int, ...]
    sounds: tuple[int, ...]

    def words(self) -> list[str]:
        """What ffmpeg is asked: an output for each stream."""
        words: list[str] = []
        for index in self.pictures:
            base = PICTURE_BASE + index * STREAM_STEP
            told = f"setts=pts='if(eq(N,1)+eq(mod(N,16),0),print({base}+N,32));PTS'"
            words += ["-map", f"0:{index}", "-c:v", "copy", "-bsf:v", told, "-f", "null", "-"]
        for index in self.sounds:
            number = SOUND_BASE + index * STREAM_STEP
            told = (
                "silenceremove=start_periods=1:start_threshold=-80dB:detection=peak,"
                f"asetpts='if(N+not(S),0,print({number},32));PTS'"
            )
            words += ["-map", f"0:{index}", "-af", told, "-frames:a", "1", "-f", "null", "-"]
        return words


def streams_of(log: str) -> tuple[str, list[Stream]]:
    """(format, streams) as ffmpeg describes its first input."""
    name, inside = "", False
    streams: dict[int, Stream] = {}
    latest: Stream | None = None
    for line in log.splitlines():
        if found := re.match(r"Input #0, (.*), from ", line):
            name, inside = found[1], True
        elif not line.startswith(" "):
            inside = False
        if not inside:
            continue
        if (stream := Stream.read(line)) is not None:
            # A stream of several programs is described with each of them.
            latest = streams.setdefault(stream.index, stream)
        elif latest is not None and (found := re.match(r"      title\s*: (.*)", line)):
            latest.title = latest.title or found[1]
    return name, list(streams.values())


def decide(
    name: str,
    streams: list[Stream],
    seen: Seen | None = None,
    *,
    video: int | None = None,
    audio: int | None = None,
) -> Picks | Survey:
    """The tracks to read, or those that must be looked at; `video` and `audio` where chosen."""
    pictures = [stream for stream in streams if stream.kind == "Video"]
    sounds = [stream for stream in streams if stream.kind == "Audio"]
    mono = audio is None and _channels_apart(name, sounds)

    def ask(of: list[Stream]) -> tuple[int, ...]:
        indexes = tuple(sorted(stream.index for stream in of if stream.has_codec))
        return indexes if len(indexes) > 1 else ()

    asked = Survey(ask(pictures) if video is None else (), ask(sounds) if audio is None else ())
    asked = Survey(asked.pictures, () if mono else asked.sounds)
    if seen is None and (asked.pictures or asked.sounds):
        return asked
    seen = seen or Seen()

    def picture_rank(stream: Stream) -> tuple:
        packets = seen.packets.get(stream.index, 0)
        size = 0 if stream.default else stream.pixels * packets
        return packets > 1, stream.preferred, size, -stream.index

    def sound_rank(stream: Stream) -> tuple:
        heard = stream.index in seen.heard
        size = (0, 0) if stream.default else (stream.channels, stream.rate_hz)
        return heard, stream.preferred, size, -stream.index

    if video is None and pictures:
        video = max(pictures, key=picture_rank).index
    if mono:
        return Picks(video, tuple(sorted(stream.index for stream in sounds)))
    if audio is None and sounds:
        audio = max(sounds, key=sound_rank).index
    return Picks(video, () if audio is None else (audio,))


def _channels_apart(name: str, sounds: list[Stream]) -> bool:
    """Whether sound tracks are the channels of one sound."""

    def said(stream: Stream) -> tuple:
        told = stream.language, stream.title, stream.default, stream.lesser
        return *told, stream.codec, stream.channels, stream.rate_hz

    if name not in CHANNELS_APART or not 2 <= len(sounds) <= MOST_MONO:
        return False
    first = sounds[0]
    alike = all(said(stream) == said(first) for stream in sounds)
    return alike and first.channels == 1 and not first.lesser
