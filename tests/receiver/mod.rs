//! A receiver of webhooks inside the test: records requests and answers as configured.
#![allow(dead_code, unreachable_pub, missing_docs)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::Value;

/// One received request.
#[derive(Debug, Clone)]
pub struct Heard {
    pub path: String,
    pub id: String,
    pub timestamp_secs: i64,
    pub signature: String,
    pub text: String,
    /// What it was answered.
    pub status: u16,
}

impl Heard {
    pub fn body(&self) -> Value {
        serde_json::from_str(&self.text).unwrap()
    }

    /// Checks the signature as the convention says, and that it is of now.
    pub fn is_signed_with(&self, secret: &str) -> bool {
        let key = STANDARD.decode(secret.strip_prefix("whsec_").unwrap()).unwrap();
        let mut mac = Hmac::<sha2::Sha256>::new_from_slice(&key).unwrap();
        mac.update(format!("{}.{}.{}", self.id, self.timestamp_secs, self.text).as_bytes());
        let wanted = format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()));
        let age_secs = chrono::Utc::now().timestamp() - self.timestamp_secs;
        wanted == self.signature && (-5..300).contains(&age_secs)
    }
}

#[derive(Default)]
struct State {
    heard: Vec<Heard>,
    answers: VecDeque<u16>,
    always: Option<u16>,
}

/// Listens on a port of this machine until the test ends.
#[derive(Clone)]
pub struct Receiver {
    port: u16,
    state: Arc<Mutex<State>>,
}

impl Receiver {
    /// Answers with these in turn, then 204.
    pub fn start(answers: &[u16]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = State { answers: answers.iter().copied().collect(), ..State::default() };
        let receiver = Self { port, state: Arc::new(Mutex::new(state)) };
        let own = receiver.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let own = own.clone();
                std::thread::spawn(move || own.serve(stream));
            }
        });
        receiver
    }

    /// From now on every answer is this; `None`: 204.
    pub fn always(&self, status: Option<u16>) {
        self.state.lock().unwrap().always = status;
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// What `--allow-webhook-host` takes for it.
    pub fn rule(&self) -> String {
        format!("127.0.0.1:{}+private", self.port)
    }

    pub fn heard(&self) -> Vec<Heard> {
        self.state.lock().unwrap().heard.clone()
    }

    /// What was heard and accepted.
    pub fn accepted(&self) -> Vec<Heard> {
        self.heard().into_iter().filter(|heard| heard.status < 300).collect()
    }

    fn serve(&self, mut stream: TcpStream) {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        let path = line.split(' ').nth(1).unwrap().to_owned();
        assert!(line.starts_with("POST "), "{line}");
        let mut headers = std::collections::HashMap::new();
        loop {
            line.clear();
            reader.read_line(&mut line).unwrap();
            let Some((name, value)) = line.trim().split_once(": ") else { break };
            headers.insert(name.to_ascii_lowercase(), value.to_owned());
        }
        assert_eq!(headers["content-type"], "application/json");
        let mut body = vec![0; headers["content-length"].parse().unwrap()];
        reader.read_exact(&mut body).unwrap();
        let mut state = self.state.lock().unwrap();
        let status = state.always.or_else(|| state.answers.pop_front()).unwrap_or(204);
        state.heard.push(Heard {
            path,
            id: headers["webhook-id"].clone(),
            timestamp_secs: headers["webhook-timestamp"].parse().unwrap(),
            signature: headers["webhook-signature"].clone(),
            text: String::from_utf8(body).unwrap(),
            status,
        });
        drop(state);
        let head = format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        let _ = stream.write_all(head.as_bytes());
    }
}
