//! The bucket client against a stand-in of the service.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::s3::{self, Endless, S3};
use futures::TryStreamExt;
use triptych::outbound::OutboundConfig;
use triptych::outbound::bucket::{AccessKey, Bucket, BucketConfig, Buckets};

fn open(s3: &S3) -> Bucket {
    let config = BucketConfig {
        allow: vec!["s3://box".parse().unwrap()],
        endpoint: Some(s3.endpoint().parse().unwrap()),
        access: Some(AccessKey { id: s3::KEY_ID.into(), secret: s3::SECRET.into(), token: None }),
        ..BucketConfig::default()
    };
    Buckets::new(config, &OutboundConfig::default()).unwrap().open("box").unwrap()
}

async fn read(bucket: &Bucket, key: &str, max_bytes: u64) -> Result<Vec<u8>, &'static str> {
    let mut download = bucket.get(key, max_bytes).await.map_err(|error| error.code())?;
    let mut all = Vec::new();
    while let Some(chunk) = download.next().await.map_err(|error| error.code())? {
        all.extend_from_slice(&chunk);
    }
    Ok(all)
}

#[tokio::test]
async fn objects_are_written_listed_read_and_deleted() {
    let s3 = S3::start();
    let bucket = open(&s3);
    assert_eq!(bucket.put("a/one", &b"hello"[..]).await.unwrap(), 5);
    assert_eq!(bucket.put("a/none", &b""[..]).await.unwrap(), 0);
    let large: Vec<u8> = (0..20_000_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    assert_eq!(bucket.put("a/b/large ü%20", large.as_slice()).await.unwrap(), 20_000_000);
    bucket.put("ab", &b"x"[..]).await.unwrap();
    assert!(s3.get("box/a/b/large ü%20").unwrap() == large.as_slice(), "the parts come together in order");
    assert_eq!(s3.open_parts(), 0);

    let keys = |folder: &'static str| {
        let bucket = &bucket;
        async move { bucket.list(folder).map_ok(|object| object.key).try_collect::<Vec<_>>().await.unwrap() }
    };
    assert_eq!(keys("a").await, ["a/b/large ü%20", "a/none", "a/one"]);
    assert_eq!(keys("").await.len(), 4);
    assert_eq!(read(&bucket, "a/one", 5).await.unwrap(), b"hello");
    assert_eq!(read(&bucket, "a/one", 4).await, Err("url_too_large"));
    assert_eq!(read(&bucket, "a/two", 5).await, Err("url_refused"));
    assert!(read(&bucket, "a/b/large ü%20", 1 << 30).await.unwrap() == large);
    bucket.delete("a/one").await.unwrap();
    bucket.delete("a/one").await.unwrap();
    assert_eq!(keys("a").await.len(), 2);
}

#[tokio::test]
async fn an_upload_that_breaks_off_leaves_nothing() {
    let s3 = S3::start();
    let bucket = open(&s3);
    let failing = tokio_util::io::StreamReader::new(futures::stream::iter([
        Ok(bytes::Bytes::from(vec![1; 9 << 20])),
        Err(std::io::Error::other("the disk is gone")),
    ]));
    let error = bucket.put("half", failing).await.unwrap_err();
    assert_eq!((error.code(), s3.names().len(), s3.open_parts()), ("url_failed", 0, 0));
}

#[tokio::test]
async fn keys_that_cannot_be_read_are_listed_all_the_same() {
    let s3 = S3::start();
    let bucket = open(&s3);
    let odd = ["a/../b.wav", "a/./c.wav", "a//d.wav", "a/line\nbreak.wav", "a/é&<>+ %.wav", "a/z.wav"];
    for key in odd {
        s3.put(&format!("box/{key}"), b"x".to_vec());
    }
    let mut keys: Vec<String> = bucket.list("a").map_ok(|object| object.key).try_collect().await.unwrap();
    keys.sort_unstable();
    let mut wanted = odd.map(str::to_owned);
    wanted.sort_unstable();
    assert_eq!(keys, wanted);
    assert_eq!(read(&bucket, "a/é&<>+ %.wav", 5).await.unwrap(), b"x");
}

#[tokio::test]
async fn a_listing_without_an_end_is_refused_soon() {
    let s3 = S3::start();
    let bucket = open(&s3);
    for (how, most_calls) in [(Endless::SameToken, 2), (Endless::NewTokens, 100), (Endless::LongToken, 1)] {
        s3.list_without_end(how);
        let before = s3.calls().len();
        let error = bucket.list("").try_collect::<Vec<_>>().await.unwrap_err();
        assert_eq!(error.code(), "url_refused", "{error}");
        assert!(error.to_string().len() < 1000);
        assert!(s3.calls().len() - before <= most_calls, "{} calls", s3.calls().len() - before);
    }
}
