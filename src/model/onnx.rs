//! Searches an ONNX file for tensors with external data. ONNX Runtime would read such a file, or even an
//! address in memory, which no hash in the manifest covers; so such a graph is refused before it is loaded.
//!
//! This parser knows only the protobuf wire format and the few messages on the way to a tensor.

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

const TENSOR_EXTERNAL_DATA: u64 = 13;
const TENSOR_DATA_LOCATION: u64 = 14;

/// Refuses a file that is not a self-contained ONNX model; the error is a message.
pub(super) fn refuse_external_data(bytes: &[u8]) -> Result<(), String> {
    if bytes.get(4..8) == Some(b"ORTM") {
        return Err("expected an ONNX file, got the .ort format".to_owned());
    }
    walk(bytes, Message::Model, 0)
}

fn walk(bytes: &[u8], message: Message, depth: usize) -> Result<(), String> {
    if depth > MAX_DEPTH {
        return Err("its graphs are nested too deeply".to_owned());
    }
    let mut reader = Reader { rest: bytes };
    while !reader.rest.is_empty() {
        let (field, value) = reader.field().ok_or("it is not an ONNX file (malformed protobuf)")?;
        if matches!(message, Message::Tensor) {
            let external = match (field, &value) {
                (TENSOR_EXTERNAL_DATA, _) => true,
                (TENSOR_DATA_LOCATION, Value::Number(location)) => *location != 0,
                _ => false,
            };
            if external {
                return Err("a tensor has its data outside the file, which is not supported".to_owned());
            }
        }
        if let (Some(child), Value::Bytes(inner)) = (message.child(field), value) {
            walk(inner, child, depth + 1)?;
        }
    }
    Ok(())
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

    #[test]
    fn external_tensors_are_found_wherever_they_hide() {
        let external = [&[14 << 3, 1][..], &field(8, b"w")].concat();
        let by_location = field(13, b"x");
        let inline = field(9, &[0; 16]);
        for (tensor, refused) in [(&external, true), (&by_location, true), (&inline, false)] {
            let initializer = field(7, &field(5, tensor));
            let constant = field(7, &field(1, &field(5, &field(5, tensor))));
            let in_branch = field(7, &field(1, &field(5, &field(6, &field(5, tensor)))));
            let in_function = field(25, &field(7, &field(5, &field(5, tensor))));
            let sparse = field(7, &field(15, &field(1, tensor)));
            for model in [initializer, constant, in_branch, in_function, sparse] {
                assert_eq!(refuse_external_data(&model).is_err(), refused, "{model:?}");
            }
        }
    }

    #[test]
    fn another_format_is_refused() {
        assert!(refuse_external_data(b"\0\0\0\0ORTM....").is_err());
        assert!(refuse_external_data(b"<html>").is_err());
    }

    proptest! {
        #[test]
        fn hostile_bytes_end_in_an_answer(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = refuse_external_data(&bytes);
        }
    }
}
