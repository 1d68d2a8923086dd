//! Decodes base64 piece by piece.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::Event;

/// Length of the pieces in which base64 is decoded.
const PIECE_BYTES: usize = 16 << 10;

/// Decodes padded base64 in pieces; ignores white space around it.
#[derive(Debug, Default)]
pub(super) struct Base64 {
    text: Vec<u8>,
    problem: Option<String>,
}

impl Base64 {
    pub(super) fn push(&mut self, text: &[u8], events: &mut Vec<Event>) {
        if self.problem.is_some() {
            return;
        }
        let mut text = text;
        if self.text.is_empty() {
            text = text.trim_ascii_start();
        }
        while !text.is_empty() {
            let room = PIECE_BYTES.saturating_sub(self.text.len()).max(1024).min(text.len());
            self.text.extend_from_slice(&text[..room]);
            text = &text[room..];
            if self.text.len() >= PIECE_BYTES {
                self.decode(events);
            }
        }
    }

    /// Decodes all complete groups but the last one, the only one that may be padded.
    fn decode(&mut self, events: &mut Vec<Event>) {
        // White space may be the end of the data, so it is not decoded yet.
        let solid = self.text.trim_ascii_end().len();
        let whole = solid.saturating_sub(4) / 4 * 4;
        if whole == 0 {
            // Nothing but white space after the first group.
            if self.text.len() > 2 * PIECE_BYTES {
                self.problem = Some("white space within".to_owned());
                self.text = Vec::new();
            }
            return;
        }
        if self.text[..whole].contains(&b'=') {
            self.problem = Some("padding within".to_owned());
            self.text = Vec::new();
            return;
        }
        match STANDARD.decode(&self.text[..whole]) {
            Ok(bytes) => {
                self.text.drain(..whole);
                events.push(Event::Bytes(bytes));
            }
            Err(error) => {
                self.problem = Some(error.to_string());
                self.text = Vec::new();
            }
        }
    }

    pub(super) fn finish(&mut self, events: &mut Vec<Event>) -> Result<(), String> {
        if let Some(problem) = self.problem.take() {
            return Err(problem);
        }
        let text = std::mem::take(&mut self.text);
        let bytes = STANDARD.decode(text.trim_ascii_end()).map_err(|error| error.to_string())?;
        if !bytes.is_empty() {
            events.push(Event::Bytes(bytes));
        }
        Ok(())
    }
}
