//! Finds the files that an ONNX graph takes its weights from. ONNX Runtime would open any file that a graph
//! names, which no hash in the manifest covers; so only files that the bundle lists may be named, and only by
//! the graph's own initializers, which can be handed to ONNX Runtime as verified bytes.
//!
//! This parser knows only the protobuf wire format and the few messages on the way to a tensor.

use std::collections::BTreeSet;

/// Deeper than the nesting of any real graph.
const MAX_DEPTH: usize = 64;

/// The messages that can contain a tensor.
#[derive(Clone, Copy)]
enum Message {
    Model,
    Training,
    Graph,
    Node,
    Attribute,
    SparseTensor,
    Function,
    Tensor,
}

impl Message {
    fn child(self, field: u64) -> Option<Self> {
        Some(match (self, field) {
            (Self::Model, 7) | (Self::Training, 1 | 2) | (Self::Attribute, 6 | 11) => Self::Graph,
            (Self::Model, 20) => Self::Training,
            (Self::Model, 25) => Self::Function,
            (Self::Graph, 1) | (Self::Function, 7) => Self::Node,
            (Self::Graph, 5) | (Self::Attribute, 5 | 10) | (Self::SparseTensor, 1 | 2) => Self::Tensor,
            (Self::Graph, 15) | (Self::Attribute, 22 | 23) => Self::SparseTensor,
            (Self::Node, 5) | (Self::Function, 11) => Self::Attribute,
            _ => return None,
        })
    }
}

const GRAPH_INITIALIZER: u64 = 5;
const MODEL_GRAPH: u64 = 7;
const TENSOR_EXTERNAL_DATA: u64 = 13;
const TENSOR_DATA_LOCATION: u64 = 14;

/// Where a tensor lies in the file.
#[derive(Clone, Copy)]
struct Place {
    depth: usize,
    /// Whether the way so far is that to an initializer of the main graph.
    own: bool,
}

/// The files that an ONNX model's initializers name; the error is a message.
pub(super) fn external_files(bytes: &[u8]) -> Result<BTreeSet<String>, String> {
    if bytes.get(4..8) == Some(b"ORTM") {
        return Err("expected an ONNX file, got the .ort format".to_owned());
    }
    let mut files = BTreeSet::new();
    walk(bytes, Message::Model, Place { depth: 0, own: true }, &mut files)?;
    Ok(files)
}

fn walk(bytes: &[u8], message: Message, place: Place, files: &mut BTreeSet<String>) -> Result<(), String> {
    if place.depth > MAX_DEPTH {
        return Err("its graphs are nested too deeply".to_owned());
    }
    if matches!(message, Message::Tensor) {
        return tensor(bytes, place.own, files);
    }
    let mut reader = Reader { rest: bytes };
    while !reader.rest.is_empty() {
        let (field, value) = reader.field().ok_or(MALFORMED)?;
        if let (Some(child), Value::Bytes(inner)) = (message.child(field), value) {
            let leads_on = matches!(
                (message, field),
                (Message::Model, MODEL_GRAPH) | (Message::Graph, GRAPH_INITIALIZER)
            );
            let place = Place { depth: place.depth + 1, own: place.own && leads_on };
            walk(inner, child, place, files)?;
        }
    }
    Ok(())
}

const MALFORMED: &str = "it is not an ONNX file (malformed protobuf)";

fn tensor(bytes: &[u8], own: bool, files: &mut BTreeSet<String>) -> Result<(), String> {
    let mut reader = Reader { rest: bytes };
    let (mut external, mut location) = (false, None);
    while !reader.rest.is_empty() {
        match reader.field().ok_or(MALFORMED)? {
            (TENSOR_EXTERNAL_DATA, Value::Bytes(entry)) => {
                external = true;
                if let Some(named) = location_of(entry)? {
                    location = Some(named);
                }
            }
            (TENSOR_EXTERNAL_DATA, _) => external = true,
            (TENSOR_DATA_LOCATION, Value::Number(place)) => external |= place != 0,
            _ => {}
        }
    }
    match (external, location) {
        (false, _) => Ok(()),
        (true, _) if !own => {
            Err("a tensor other than the graph's own weights has its data outside the file".to_owned())
        }
        (true, Some(location)) => {
            files.insert(location);
            Ok(())
        }
        (true, None) => Err("a tensor has its data outside the file, but names no file".to_owned()),
    }
}

/// The file, if this key and value name it.
fn location_of(entry: &[u8]) -> Result<Option<String>, String> {
    let mut reader = Reader { rest: entry };
    let (mut is_location, mut value) = (false, None);
    while !reader.rest.is_empty() {
        match reader.field().ok_or(MALFORMED)? {
            (1, Value::Bytes(key)) => is_location = key == b"location",
            (2, Value::Bytes(text)) => value = Some(text),
            _ => {}
        }
    }
    let named = value.filter(|_| is_location).map(|text| std::str::from_utf8(text).map(str::to_owned));
    named.transpose().map_err(|_| "a tensor names a file whose name is not text".to_owned())
}

/// An initializer of the main graph whose data is outside the file.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct External {
    pub name: String,
    /// Element type, as ONNX numbers them.
    pub dtype: i64,
    pub dims: Vec<i64>,
    pub location: String,
    pub offset: usize,
    pub length: usize,
}

/// The initializers whose data is outside the file, at a stated place; the error is a message.
pub(super) fn external_tensors(bytes: &[u8]) -> Result<Vec<External>, String> {
    let mut found = Vec::new();
    each(bytes, MODEL_GRAPH, |graph| {
        each(graph, GRAPH_INITIALIZER, |tensor| {
            found.extend(external(tensor)?.filter(|tensor| tensor.length > 0));
            Ok(())
        })
    })?;
    Ok(found)
}

/// Calls for each field of this number that holds bytes.
fn each<'a>(
    bytes: &'a [u8],
    number: u64,
    mut call: impl FnMut(&'a [u8]) -> Result<(), String>,
) -> Result<(), String> {
    let mut reader = Reader { rest: bytes };
    while !reader.rest.is_empty() {
        if let (field, Value::Bytes(inner)) = reader.field().ok_or(MALFORMED)?
            && field == number
        {
            call(inner)?;
        }
    }
    Ok(())
}

fn external(tensor: &[u8]) -> Result<Option<External>, String> {
    let mut reader = Reader { rest: tensor };
    let (mut found, mut is_external) = (External::default(), false);
    while !reader.rest.is_empty() {
        match reader.field().ok_or(MALFORMED)? {
            (1, Value::Number(dim)) => found.dims.push(dim.cast_signed()),
            (1, Value::Bytes(packed)) => {
                let mut packed = Reader { rest: packed };
                while !packed.rest.is_empty() {
                    found.dims.push(packed.varint().ok_or(MALFORMED)?.cast_signed());
                }
            }
            (2, Value::Number(dtype)) => found.dtype = dtype.cast_signed(),
            (8, Value::Bytes(name)) => found.name = String::from_utf8_lossy(name).into_owned(),
            (TENSOR_EXTERNAL_DATA, Value::Bytes(entry)) => {
                is_external = true;
                let (key, value) = key_and_value(entry)?;
                match key {
                    b"location" => found.location = String::from_utf8_lossy(value).into_owned(),
                    b"offset" => found.offset = number(value).unwrap_or(0),
                    b"length" => found.length = number(value).unwrap_or(0),
                    _ => {}
                }
            }
            _ => {}
        }
    }
    Ok(is_external.then_some(found))
}

fn key_and_value(entry: &[u8]) -> Result<(&[u8], &[u8]), String> {
    let mut reader = Reader { rest: entry };
    let (mut key, mut value) = (&[][..], &[][..]);
    while !reader.rest.is_empty() {
        match reader.field().ok_or(MALFORMED)? {
            (1, Value::Bytes(bytes)) => key = bytes,
            (2, Value::Bytes(bytes)) => value = bytes,
            _ => {}
        }
    }
    Ok((key, value))
}

fn number(digits: &[u8]) -> Option<usize> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    Fixed,
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn field(&mut self) -> Option<(u64, Value<'a>)> {
        let key = self.varint()?;
        let value = match key & 7 {
            0 => Value::Number(self.varint()?),
            1 => self.take(8).map(|_| Value::Fixed)?,
            2 => {
                let length = usize::try_from(self.varint()?).ok()?;
                Value::Bytes(self.take(length)?)
            }
            5 => self.take(4).map(|_| Value::Fixed)?,
            _ => return None,
        };
        Some((key >> 3, value))
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0_u64;
        for shift in (0..70).step_by(7) {
            let (&byte, rest) = self.rest.split_first()?;
            self.rest = rest;
            value |= u64::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(taken)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn field(number: u8, inner: &[u8]) -> Vec<u8> {
        let key = u16::from(number) << 3 | 2;
        let mut bytes =
            if key < 128 { vec![key as u8] } else { vec![(key & 0x7f) as u8 | 0x80, (key >> 7) as u8] };
        bytes.push(u8::try_from(inner.len()).unwrap());
        bytes.extend(inner);
        bytes
    }

    fn external(location: &str) -> Vec<u8> {
        let entry = [field(1, b"location"), field(2, location.as_bytes())].concat();
        [&[14 << 3, 1][..], &field(8, b"w"), &field(13, &entry)].concat()
    }

    #[test]
    fn the_weights_of_the_graph_may_lie_in_another_file() {
        let initializers = [field(5, &external("a.bin")), field(5, &external("b.bin"))].concat();
        let model = field(7, &initializers);
        let files: Vec<String> = external_files(&model).unwrap().into_iter().collect();
        assert_eq!(files, ["a.bin", "b.bin"]);
        let inline = field(7, &field(5, &field(9, &[0; 16])));
        assert!(external_files(&inline).unwrap().is_empty());
    }

    #[test]
    fn other_external_tensors_are_found_wherever_they_hide() {
        let unnamed = [&[14 << 3, 1][..], &field(8, b"w")].concat();
        let by_key_alone = field(13, &field(1, b"location"));
        let elsewhere = external("a.bin");
        let inline = field(9, &[0; 16]);
        for (tensor, refused) in
            [(&unnamed, true), (&by_key_alone, true), (&elsewhere, true), (&inline, false)]
        {
            let constant = field(7, &field(1, &field(5, &field(5, tensor))));
            let in_branch = field(7, &field(1, &field(5, &field(6, &field(5, tensor)))));
            let in_function = field(25, &field(7, &field(5, &field(5, tensor))));
            let sparse = field(7, &field(15, &field(1, tensor)));
            for model in [constant, in_branch, in_function, sparse] {
                assert_eq!(external_files(&model).is_err(), refused, "{model:?}");
            }
        }
        for nameless in [unnamed, by_key_alone] {
            assert!(external_files(&field(7, &field(5, &nameless))).is_err());
        }
    }

    #[test]
    fn a_tensor_outside_the_file_says_where_it_lies() {
        let entry = |key: &str, value: &str| {
            field(13, &[field(1, key.as_bytes()), field(2, value.as_bytes())].concat())
        };
        let tensor = [
            field(1, &[0x80, 0x01, 3]),
            vec![2 << 3, 1],
            field(8, b"w"),
            entry("location", "a.bin"),
            entry("offset", "4096"),
            entry("length", "1536"),
            vec![14 << 3, 1],
        ];
        let found = external_tensors(&field(7, &field(5, &tensor.concat()))).unwrap();
        let wanted = External {
            name: "w".into(),
            dtype: 1,
            dims: vec![128, 3],
            location: "a.bin".into(),
            offset: 4096,
            length: 1536,
        };
        assert_eq!(found, [wanted]);
        assert!(external_tensors(&field(7, &field(5, &field(9, &[0; 16])))).unwrap().is_empty());
    }

    #[test]
    fn another_format_is_refused() {
        assert!(external_files(b"\0\0\0\0ORTM....").is_err());
        assert!(external_files(b"<html>").is_err());
    }

    proptest! {
        #[test]
        fn hostile_bytes_end_in_an_answer(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = external_files(&bytes);
            let _ = external_tensors(&bytes);
        }
    }
}
