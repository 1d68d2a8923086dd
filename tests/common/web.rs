//! A small web server on loopback that a test fills with files.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};

/// What a path answers.
#[derive(Clone)]
pub enum Page {
    /// A file.
    File(Vec<u8>),
    /// Half of a file, and the rest when the gate is opened.
    Gated(Vec<u8>),
    /// Anything, written as it stands.
    Raw(String),
}

#[derive(Default)]
struct Shared {
    pages: Mutex<HashMap<String, Page>>,
    hits: Mutex<HashMap<String, usize>>,
    open: Mutex<bool>,
    opened: Condvar,
}

/// The server; it ends with the test process.
pub struct Web {
    shared: Arc<Shared>,
    address: SocketAddr,
}

impl Web {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        let served = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&served);
                std::thread::spawn(move || answer(&shared, stream));
            }
        });
        Self { shared, address }
    }

    /// `127.0.0.1:PORT+private`, the rule that allows a server to fetch from this one.
    pub fn rule(&self) -> String {
        format!("{}+private", self.address)
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn put(&self, path: &str, page: Page) {
        self.shared.pages.lock().unwrap().insert(path.to_owned(), page);
    }

    pub fn hits(&self, path: &str) -> usize {
        self.shared.hits.lock().unwrap().get(path).copied().unwrap_or(0)
    }

    /// Lets gated files end.
    pub fn open_gate(&self) {
        *self.shared.open.lock().unwrap() = true;
        self.shared.opened.notify_all();
    }
}

fn answer(shared: &Shared, mut stream: TcpStream) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    let Some(Ok(first)) = lines.next() else { return };
    for line in lines.by_ref().map_while(Result::ok) {
        if line.is_empty() {
            break;
        }
    }
    let path = first.split(' ').nth(1).unwrap_or("").to_owned();
    *shared.hits.lock().unwrap().entry(path.clone()).or_default() += 1;
    let page = shared.pages.lock().unwrap().get(&path).cloned();
    let head =
        |size: usize| format!("HTTP/1.1 200 OK\r\nContent-Length: {size}\r\nConnection: close\r\n\r\n");
    let _ = match page {
        None => stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"),
        Some(Page::Raw(text)) => stream.write_all(text.as_bytes()),
        Some(Page::File(bytes)) => {
            stream.write_all(head(bytes.len()).as_bytes()).and_then(|()| stream.write_all(&bytes))
        }
        Some(Page::Gated(bytes)) => {
            let (first, rest) = bytes.split_at(bytes.len() / 2);
            let begun = stream.write_all(head(bytes.len()).as_bytes()).and_then(|()| stream.write_all(first));
            let mut open = shared.open.lock().unwrap();
            while !*open {
                open = shared.opened.wait(open).unwrap();
            }
            drop(open);
            begun.and_then(|()| stream.write_all(rest))
        }
    };
}
