//! One request served by the child, and its possible outcomes.

use crate::ffmpeg::said::MOST_CHARS;
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use super::protocol::{Failure, GO, Reply, Request, Started};
use super::sandbox;

/// Why the child stops without output.
#[derive(Debug)]
pub struct Refusal {
    pub failure: Failure,
    pub detail: String,
}

impl Refusal {
    pub fn new(failure: Failure, detail: impl std::fmt::Display) -> Self {
        Self { failure, detail: detail.to_string().chars().take(MOST_CHARS).collect() }
    }
}

/// Result of an in-process decoder.
pub enum Decoded {
    /// Everything was written; `damaged` packets did not decode.
    Done { damaged: u64 },
    /// ffmpeg may be able to decode the file, with these demuxers.
    TryFfmpeg(&'static str),
}

/// One request with its files and its connection to the parent.
pub struct Job {
    pub media: File,
    pub sound: Option<File>,
    pub control: UnixStream,
    pub request: Request,
    pub landlock: bool,
}

impl Job {
    /// Reports to the parent that decoding starts.
    pub fn start(&mut self, mut started: Started) -> Result<(), Refusal> {
        started.landlock = self.landlock;
        self.say(&Reply::Started(started))
    }

    /// Waits until the parent has reserved memory, then limits this process to it.
    pub fn reserve(&mut self, child_bytes: u64, server_bytes: u64) -> Result<(), Refusal> {
        self.say(&Reply::Need { child_bytes, server_bytes })?;
        let mut answer = [0];
        let internal = |e: &dyn std::fmt::Display| Refusal::new(Failure::Internal, e);
        self.control.read_exact(&mut answer).map_err(|e| internal(&e))?;
        if answer != [GO] {
            return Err(internal(&"the answer about memory is malformed"));
        }
        sandbox::limit_data(child_bytes, self.request.address_space_bytes).map_err(|e| internal(&e))
    }

    pub fn say(&mut self, reply: &Reply) -> Result<(), Refusal> {
        let mut line = serde_json::to_vec(reply).map_err(|e| Refusal::new(Failure::Internal, e))?;
        line.push(b'\n');
        self.control.write_all(&line).map_err(|e| Refusal::new(Failure::Internal, e))
    }
}
