"""Frames as they are meant to be shown (`docs/bundle.md`, "Pictures as shown").

The server computes the same in Rust; the filters in `tests/pictures/shown.json` test both.
"""

import math
import re
from dataclasses import dataclass

MOST_STRETCH = 8
"""A sample aspect ratio beyond this, either way, is taken for a mistake."""
HD = (1280, 577)
"""From this width or height on, pictures that do not say their matrix are BT.709."""
PROGRESSIVE = ["vp8", "vp9", "av1", "theora", "gif", "png", "apng", "webp", "webp_anim", "qtrle"]
ALWAYS_601 = ("vp8", "theora", "mjpeg", "webp")
NOT_YUV = ("rgb", "bgr", "gbr", "pal8", "gray", "mono")
LIGHT = {"smpte2084": "smpte2084", "arib-std-b67": "arib-std-b67"}
PRIMARIES = ("bt2020", "smpte431", "smpte432")
MATRICES = {"gbr": "gbr", "ictcp": "ictcp"} | {m: m for m in ("bt709", "bt2020nc", "bt2020c")}
TONES = (
    ":t=linear:p=bt709:m=gbr:r=full:npl=203,format=gbrpf32le,"
    "tonemap=tonemap=mobius:param=0.5:peak=10:desat=0,zscale=t=bt709:m=gbr:r=full,format=gbrp"
)
UNSAID = ("", "unknown")


@dataclass(frozen=True)
class VideoLine:
    """ffmpeg's description of a video stream."""

    codec: str
    pixel_format: str
    width: int
    height: int
    sar: float
    """Width of a pixel by its height."""
    full_range: bool
    interlaced: bool | None
    matrix: str
    primaries: str
    transfer: str

    @classmethod
    def read(cls, line: str) -> "VideoLine | None":
        text = line.partition(": Video: ")[2]
        size = re.search(r"[ ,](\d+)x(\d+)(?=[ ,]|$)", text)
        if size is None:
            return None
        codec, _, rest = text.partition(", ")
        found = re.match(r"([^(,]*)(\(?)", rest)
        inside = rest[found.end() :].split("), ")[0].rstrip(")") if found[2] else ""
        full_range, interlaced, colours = False, None, ("", "", "")
        for word in inside.split(", ") if inside else ():
            if word in ("tv", "pc"):
                full_range = word == "pc"
            elif word == "progressive":
                interlaced = False
            elif " first" in word:
                interlaced = True
            else:
                parts = word.split("/")
                colours = (parts + parts[:1] * 2)[:3] if len(parts) < 3 else parts[:3]
        ratios = re.findall(r"SAR (\d+):(\d+)", text)
        across, down = (int(n) for n in ratios[-1]) if ratios else (1, 1)
        return cls(
            codec.split(" ")[0],
            found[1],
            int(size[1]),
            int(size[2]),
            across / down if across and down else 1.0,
            full_range,
            interlaced,
            *colours,
        )

    @property
    def stretches(self) -> bool:
        return self.sar != 1 and 1 / MOST_STRETCH <= self.sar <= MOST_STRETCH

    def shown_size(self) -> tuple[int, int]:
        """(width, height) with square pixels: the side that is too short grows."""
        if not self.stretches:
            return self.width, self.height
        if self.sar > 1:
            return math.floor(self.width * self.sar + 0.5), self.height
        return self.width, math.floor(self.height / self.sar + 0.5)

    def filters(self, sampling: str) -> str:
        """ffmpeg's filters, with those that choose frames in their place."""
        chain = [sampling]
        unknown = self.interlaced is None and self.codec not in PROGRESSIVE
        if self.interlaced or unknown:
            chain.insert(0, "bwdif=mode=send_frame:deint=interlaced")
        if colour := self._colour():
            chain.append(colour)
        if self.stretches:
            real = f"between(sar,1/{MOST_STRETCH},{MOST_STRETCH})"
            chain.append(
                f"scale=w='if({real}*gt(sar,1),round(iw*sar),iw)'"
                f":h='if({real}*lt(sar,1),round(ih/sar),ih)',setsar=1"
            )
        return ",".join(chain)

    def _colour(self) -> str | None:
        rgb = any(name in self.pixel_format for name in NOT_YUV)
        light = LIGHT.get(self.transfer)
        primaries = self.primaries if self.primaries in PRIMARIES else "bt709"
        if light and self.primaries in UNSAID:
            primaries = "bt2020"
        hd = self.width >= HD[0] or self.height >= HD[1]
        unsaid = self.matrix in UNSAID
        if rgb:
            matrix = "gbr"
        elif unsaid:
            matrix = "bt2020nc" if light else "bt709" if hd else "170m"
        else:
            matrix = MATRICES.get(self.matrix, "170m")
        if light is None and primaries == "bt709":
            by_size = unsaid and hd and not rgb and self.codec not in ALWAYS_601
            return "setparams=colorspace=bt709" if by_size else None
        span = "full" if self.full_range or rgb else "limited"
        start = f"zscale=tin={light or 'bt709'}:pin={primaries}:min={matrix}:rin={span}"
        return start + (TONES if light else ":t=bt709:p=bt709:m=gbr:r=full,format=gbrp")
