//! Clips per second of our pool (one single-threaded session per core behind the queue) against the obvious
//! alternative: one session with as many intra-op threads as cores, called in a loop. Then the gain of
//! batches on one thread. Both sides run in turns, A B A B, and the medians are compared.
//!
//! `cargo bench --bench towers [-- BUNDLE] [cuda]`; with `cuda` the pool there beside the pool of all cores,
//! and beside one CUDA session asked one by one.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use futures::future::try_join_all;
use ort::session::Session;
use ort::session::builder::GraphOptimizationLevel;
use ort::value::TensorRef;
use triptych::model::{Bundle, Device, Priority, Towers};
use triptych::native::NativeParts;

const ROUNDS: usize = 9;

/// One tower's inputs, laid out side by side.
enum Inputs {
    Frames(Vec<u8>),
    Sound(Vec<f32>),
    Words(Vec<i64>),
}

struct Case {
    name: &'static str,
    /// Shape of one input.
    row: Vec<usize>,
    inputs: Inputs,
    count: usize,
    batch: usize,
}

fn noise(len: usize) -> impl Iterator<Item = u32> {
    (0..len).scan(0x9e37_79b9_u32, |state, _| {
        *state ^= *state << 13;
        *state ^= *state >> 17;
        *state ^= *state << 5;
        Some(*state)
    })
}

fn cases(bundle: &Bundle) -> Vec<Case> {
    let spec = bundle.clip_spec(None);
    let manifest = bundle.manifest_json();
    let words = manifest["preprocessing"]["text"]["max_words"].as_u64().unwrap() as usize;
    let (clips, sounds, texts) = (32, 32, 256);
    let crop = spec.video.crop.unwrap().width;
    let frames = vec![spec.frames(), crop, crop, 3];
    let pixels = clips * frames.iter().product::<usize>();
    let sound = |x: u32| (x >> 8) as f32 / (1 << 24) as f32 - 0.5;
    vec![
        Case {
            name: "video",
            row: frames,
            inputs: Inputs::Frames(noise(pixels).map(|x| (x >> 24) as u8).collect()),
            count: clips,
            batch: 8,
        },
        Case {
            name: "audio",
            row: vec![spec.sound.samples],
            inputs: Inputs::Sound(noise(sounds * spec.sound.samples).map(sound).collect()),
            count: sounds,
            batch: 8,
        },
        Case {
            name: "text",
            row: vec![words],
            inputs: Inputs::Words(noise(texts * words).map(|x| i64::from(x % 8) + 2).collect()),
            count: texts,
            batch: 32,
        },
    ]
}

impl Case {
    fn row_len(&self) -> usize {
        self.row.iter().product()
    }

    /// All inputs through a session, so many at a time.
    fn through(&self, session: &mut Session, batch: usize) {
        let chunk = self.row_len() * batch;
        let shape = |len: usize| -> Vec<i64> {
            std::iter::once(len / self.row_len()).chain(self.row.iter().copied()).map(|n| n as i64).collect()
        };
        match &self.inputs {
            Inputs::Frames(all) => all.chunks(chunk).for_each(|rows| {
                let tensor = TensorRef::from_array_view((shape(rows.len()), rows)).unwrap();
                session.run(ort::inputs![tensor]).unwrap();
            }),
            Inputs::Sound(all) => all.chunks(chunk).for_each(|rows| {
                let tensor = TensorRef::from_array_view((shape(rows.len()), rows)).unwrap();
                session.run(ort::inputs![tensor]).unwrap();
            }),
            Inputs::Words(all) => all.chunks(chunk).for_each(|rows| {
                let tensor = TensorRef::from_array_view((shape(rows.len()), rows)).unwrap();
                session.run(ort::inputs![tensor]).unwrap();
            }),
        }
    }

    /// All inputs through our pool. A text goes through the tokenizer as well.
    async fn through_pool(&self, towers: &Towers) {
        match &self.inputs {
            Inputs::Frames(all) => {
                let rows = all.chunks(self.row_len()).map(Arc::<[u8]>::from);
                try_join_all(rows.map(|row| towers.video(row, Priority::Bulk))).await.unwrap();
            }
            Inputs::Sound(all) => {
                let rows = all.chunks(self.row_len()).map(Arc::<[f32]>::from);
                try_join_all(rows.map(|row| towers.audio(row, Priority::Bulk))).await.unwrap();
            }
            Inputs::Words(_) => {
                let texts = (0..self.count).map(|_| towers.text("a red circle moving left", Priority::Bulk));
                try_join_all(texts).await.unwrap();
            }
        }
    }
}

fn session(bundle: &Bundle, native: &NativeParts, tower: &str, threads: usize, cuda: bool) -> Session {
    let file = bundle.manifest_json()["towers"][tower]["file"].as_str().unwrap().to_owned();
    let environment = triptych::model::environment(&native.onnxruntime).unwrap();
    let builder = Session::builder(&environment).unwrap();
    let builder = builder.with_optimization_level(GraphOptimizationLevel::All).ok().unwrap();
    let mut builder = builder.with_intra_threads(threads).ok().unwrap();
    if cuda {
        let provider = ort::ep::CUDA::default().with_tf32(false).build().error_on_failure();
        builder = builder.with_execution_providers([provider]).ok().unwrap();
    }
    builder.commit_from_file(bundle.dir().join(file)).unwrap()
}

/// Inputs per second of both, in turns; the medians.
fn compare(count: usize, mut a: impl FnMut(), mut b: impl FnMut()) -> (f64, f64) {
    let rate = |run: &mut dyn FnMut()| {
        let begun = Instant::now();
        run();
        count as f64 / begun.elapsed().as_secs_f64()
    };
    a();
    b();
    let (mut rates_a, mut rates_b): (Vec<f64>, Vec<f64>) =
        (0..ROUNDS).map(|_| (rate(&mut a), rate(&mut b))).unzip();
    let median = |rates: &mut Vec<f64>| {
        rates.sort_by(f64::total_cmp);
        rates[rates.len() / 2]
    };
    (median(&mut rates_a), median(&mut rates_b))
}

fn main() {
    let mut given: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    let cuda = given.iter().position(|arg| arg == "cuda").map(|at| given.remove(at)).is_some();
    let bundle = given.pop().map_or_else(|| PathBuf::from("models/small-world"), PathBuf::from);
    let bundle = Arc::new(Bundle::open(&bundle).unwrap());
    let native = NativeParts::find().unwrap();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let begun = Instant::now();
    let towers = Towers::load(Arc::clone(&bundle), &native, Device::Cpu, cores).unwrap();
    println!("{}: loaded and self-checked in {:.0} ms", bundle.name(), begun.elapsed().as_secs_f64() * 1e3);
    if cuda {
        return beside_cuda(&bundle, &native, &towers);
    }

    let runtime = runtime();
    println!("\n{:<6} {:>22} {:>30} {:>7}", "tower", "pool, inputs/s", "one session, intra threads", "ratio");
    for case in cases(&bundle) {
        let mut one = session(&bundle, &native, case.name, cores, false);
        let (pool, plain) = compare(
            case.count,
            || runtime.block_on(case.through_pool(&towers)),
            || case.through(&mut one, 1),
        );
        println!("{:<6} {pool:>18.0} x {cores} {plain:>26.0} x {cores} {:>6.2}x", case.name, pool / plain);
    }

    println!("\n{:<6} {:>22} {:>30} {:>7}", "tower", "batches, inputs/s", "one by one (1 thread)", "ratio");
    for case in cases(&bundle) {
        let mut batched = session(&bundle, &native, case.name, 1, false);
        let mut single = session(&bundle, &native, case.name, 1, false);
        let (many, one) =
            compare(case.count, || case.through(&mut batched, case.batch), || case.through(&mut single, 1));
        println!("{:<6} {many:>17.0} x {:<2} {one:>28.0} x 1 {:>6.2}x", case.name, case.batch, many / one);
    }
}

fn beside_cuda(bundle: &Arc<Bundle>, native: &NativeParts, cpu: &Towers) {
    let begun = Instant::now();
    let cuda = Towers::load(Arc::clone(bundle), native, Device::Cuda(0), 1).unwrap();
    println!("on CUDA: loaded and self-checked in {:.0} ms\n", begun.elapsed().as_secs_f64() * 1e3);
    for golden in cuda.goldens() {
        println!("{} {}: worst 1 - cosine {:.1e}", golden.tower, golden.space, golden.worst_one_minus_cosine);
    }
    let runtime = runtime();
    println!(
        "\n{:<6} {:>15} {:>22} {:>7} {:>26} {:>7}",
        "tower", "CUDA pool", "pool of all cores", "ratio", "CUDA session, one by one", "ratio"
    );
    for case in cases(bundle) {
        let pool = || runtime.block_on(case.through_pool(&cuda));
        let (on_cuda, on_cpu) = compare(case.count, pool, || runtime.block_on(case.through_pool(cpu)));
        let mut plain = session(bundle, native, case.name, 1, true);
        let (again, single) = compare(case.count, pool, || case.through(&mut plain, 1));
        let (a, b) = (on_cuda / on_cpu, again / single);
        println!("{:<6} {on_cuda:>15.0} {on_cpu:>22.0} {a:>6.2}x {single:>26.0} {b:>6.2}x", case.name);
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap()
}
