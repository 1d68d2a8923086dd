//! Writes HEIF files box by box: HEVC or AV1 pictures, whole or in tiles, turned, mirrored, cropped.

use std::path::Path;

use crate::{Pattern, ffmpeg_to};

#[derive(Clone, Default)]
pub struct Heif {
    pub av1: bool,
    /// Width and height of a tile.
    pub tile: Option<(usize, usize)>,
    /// Quarter turns anticlockwise.
    pub irot: Option<u8>,
    /// Axis.
    pub imir: Option<u8>,
    /// Orientation in an EXIF item.
    pub exif: Option<u8>,
    /// A small copy beside it.
    pub preview: bool,
    pub brand: Option<&'static [u8; 4]>,
}

fn atom(kind: &[u8; 4], parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    [&(body.len() as u32 + 8).to_be_bytes()[..], kind, &body].concat()
}

fn full(kind: &[u8; 4], version: u8, parts: &[&[u8]]) -> Vec<u8> {
    let head: &[u8] = &[version, 0, 0, 0];
    atom(kind, &[&[head], parts].concat())
}

fn be16(value: usize) -> [u8; 2] {
    (value as u16).to_be_bytes()
}

fn be32(value: usize) -> [u8; 4] {
    (value as u32).to_be_bytes()
}

/// An atom of an MP4 file, with its head.
fn find(file: &[u8], kind: &[u8; 4]) -> Vec<u8> {
    let at = file.windows(4).position(|window| window == kind).unwrap() - 4;
    let len = u32::from_be_bytes(file[at..at + 4].try_into().unwrap()) as usize;
    file[at..at + len].to_vec()
}

/// The decoder's configuration and the coded picture.
fn coded(picture: &Pattern, av1: bool, folder: &Path) -> (Vec<u8>, Vec<u8>) {
    let codec = if av1 {
        "-c:v libaom-av1 -still-picture 1 -cpu-used 8 -crf 5"
    } else {
        "-c:v libx265 -x265-params log-level=none -tag:v hvc1 -crf 8"
    };
    let colour =
        "-vf scale=out_color_matrix=bt601:out_range=pc,format=yuv420p -color_range pc -colorspace smpte170m";
    let file = ffmpeg_to(folder, "coded.mp4", Some(picture), &format!("{colour} {codec} -frames:v 1"));
    let bytes = std::fs::read(file).unwrap();
    (find(&bytes, if av1 { b"av1C" } else { b"hvcC" }), find(&bytes, b"mdat")[8..].to_vec())
}

#[derive(Default)]
struct Items {
    /// Kind, bytes, hidden.
    items: Vec<([u8; 4], Vec<u8>, bool)>,
    properties: Vec<Vec<u8>>,
    /// Of each item: its properties, with the bit for those that must be understood.
    of: Vec<Vec<u8>>,
    references: Vec<Vec<u8>>,
}

impl Items {
    fn property(&mut self, item: usize, property: Vec<u8>, essential: bool) {
        self.properties.push(property);
        self.of[item - 1].push(self.properties.len() as u8 | if essential { 0x80 } else { 0 });
    }

    fn add(&mut self, kind: &[u8; 4], bytes: Vec<u8>, hidden: bool) -> usize {
        self.items.push((*kind, bytes, hidden));
        self.of.push(Vec::new());
        self.items.len()
    }

    fn refer(&mut self, kind: &[u8; 4], from: usize, to: &[usize]) {
        let to: Vec<u8> = to.iter().flat_map(|id| be16(*id)).collect();
        self.references.push(atom(kind, &[&be16(from), &be16(to.len() / 2), &to]));
    }

    fn picture(&mut self, picture: &Pattern, how: &Heif, hidden: bool, folder: &Path) -> usize {
        let (config, bytes) = coded(picture, how.av1, folder);
        let item = self.add(if how.av1 { b"av01" } else { b"hvc1" }, bytes, hidden);
        self.property(item, config, true);
        self.extent(item, picture.width, picture.height);
        item
    }

    fn extent(&mut self, item: usize, width: usize, height: usize) {
        self.property(item, full(b"ispe", 0, &[&be32(width), &be32(height)]), false);
    }

    /// The `meta` box; the items' bytes lie from `base` on.
    fn meta(&self, primary: usize, base: usize) -> Vec<u8> {
        let (mut places, mut inside, mut at) = (Vec::new(), Vec::new(), base);
        for (n, (kind, bytes, _)) in self.items.iter().enumerate() {
            let grid = kind == b"grid";
            let offset = if grid { inside.len() } else { at };
            places.extend([be16(n + 1), be16(usize::from(grid)), be16(0), be16(1)].concat());
            places.extend([be32(offset), be32(bytes.len())].concat());
            if grid { inside.extend(bytes) } else { at += bytes.len() }
        }
        let count = be16(self.items.len());
        let entries = self.items.iter().enumerate().map(|(n, (kind, _, hidden))| {
            let mut entry = full(b"infe", 2, &[&be16(n + 1), &[0, 0], kind, &[0]]);
            entry[11] = u8::from(*hidden);
            entry
        });
        let entries: Vec<u8> = entries.flatten().collect();
        let used = self.of.iter().enumerate().filter(|(_, of)| !of.is_empty());
        let links: Vec<Vec<u8>> =
            used.map(|(n, of)| [&be16(n + 1)[..], &[of.len() as u8], of].concat()).collect();
        let properties = atom(
            b"iprp",
            &[
                &atom(b"ipco", &[&self.properties.concat()]),
                &full(b"ipma", 0, &[&be32(links.len()), &links.concat()]),
            ],
        );
        full(
            b"meta",
            0,
            &[
                &full(b"hdlr", 0, &[&[0; 4], b"pict", &[0; 13]]),
                &full(b"pitm", 0, &[&be16(primary)]),
                &full(b"iloc", 1, &[&[0x44, 0], &count, &places]),
                &full(b"iinf", 0, &[&count, &entries]),
                &full(b"iref", 0, &[&self.references.concat()]),
                &properties,
                &atom(b"idat", &[&inside]),
            ],
        )
    }
}

/// A whole file of one picture.
pub fn write(picture: &Pattern, how: &Heif, folder: &Path) -> Vec<u8> {
    let mut items = Items::default();
    let primary = match how.tile {
        None => items.picture(picture, how, false, folder),
        Some((width, height)) => {
            let (columns, rows) = (picture.width.div_ceil(width), picture.height.div_ceil(height));
            let places = (0..rows * columns).map(|n| (n % columns * width, n / columns * height));
            let tiles: Vec<usize> = places
                .map(|(x, y)| items.picture(&picture.part(x, y, width, height), how, true, folder))
                .collect();
            let shape = [0, 0, rows as u8 - 1, columns as u8 - 1];
            let grid = [&shape[..], &be16(picture.width), &be16(picture.height)].concat();
            let grid = items.add(b"grid", grid, false);
            items.extent(grid, picture.width, picture.height);
            items.refer(b"dimg", grid, &tiles);
            grid
        }
    };
    let colour = [&b"nclx"[..], &be16(1), &be16(13), &be16(6), &[0x80]].concat();
    items.property(primary, atom(b"colr", &[&colour]), false);
    if let Some(turns) = how.irot {
        items.property(primary, atom(b"irot", &[&[turns]]), true);
    }
    if let Some(axis) = how.imir {
        items.property(primary, atom(b"imir", &[&[axis]]), true);
    }
    if how.preview {
        let small = items.picture(&picture.part(0, 0, 64, 64), how, false, folder);
        items.refer(b"thmb", small, &[primary]);
    }
    if let Some(orientation) = how.exif {
        let tiff = [&[0; 4][..], b"MM\0*", &be32(8), &be16(1), &be16(0x112), &be16(3), &be32(1)].concat();
        let exif = items.add(b"Exif", [&tiff[..], &[0, orientation, 0, 0], &[0; 4]].concat(), true);
        items.refer(b"cdsc", exif, &[primary]);
    }
    let brand = how.brand.unwrap_or(if how.av1 { b"avif" } else { b"heic" });
    let head = atom(b"ftyp", &[brand, &[0; 4], b"mif1", if how.av1 { b"avif" } else { b"heic" }]);
    let base = head.len() + items.meta(primary, 0).len() + 8;
    let held: Vec<&[u8]> =
        items.items.iter().filter(|item| &item.0 != b"grid").map(|item| item.1.as_slice()).collect();
    [head, items.meta(primary, base), atom(b"mdat", &held)].concat()
}
