//! `triptych doctor`: which native parts are installed, where, in which version, and what is missing.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use landlock::{ABI, Access, AccessFs, LandlockStatus, Ruleset, RulesetAttr, RulesetError};
use serde::Serialize;

use super::CliError;
use super::table::printable;
use crate::model::Bundle;
use crate::native::{self, NativeError, NativeParts};

/// Flags of `doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Model bundle folder to check.
    #[arg(long, env = "TRIPTYCH_MODEL", default_value = "models/small-world")]
    model: PathBuf,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// The report of `doctor`.
#[derive(Debug, Serialize)]
struct Report {
    /// Whether everything necessary is there.
    ok: bool,
    triptych: &'static str,
    onnxruntime: PartReport,
    ffmpeg: PartReport,
    cpu: CpuReport,
    cuda: FeatureReport,
    landlock: FeatureReport,
    model: ModelReport,
}

#[derive(Debug, Default, Serialize)]
struct PartReport {
    path: Option<PathBuf>,
    /// Version that the part itself reports.
    version: Option<String>,
    /// Package that it was installed from.
    package: Option<String>,
    error: Option<ErrorReport>,
}

#[derive(Debug, Serialize)]
struct ErrorReport {
    code: &'static str,
    message: String,
}

#[derive(Debug, Serialize)]
struct CpuReport {
    arch: &'static str,
    cores: usize,
    features: Vec<&'static str>,
}

#[derive(Debug, Serialize)]
struct FeatureReport {
    available: bool,
    detail: String,
}

#[derive(Debug, Serialize)]
struct ModelReport {
    path: PathBuf,
    name: Option<String>,
    id: Option<String>,
    error: Option<ErrorReport>,
}

/// Runs `doctor`.
pub async fn run(args: DoctorArgs) -> Result<ExitCode, CliError> {
    let report = tokio::task::spawn_blocking(move || examine(&args.model))
        .await
        .map_err(|error| CliError::other("doctor_failed", error.to_string()))
        .map(|report| (report, args.json))?;
    let (report, json) = report;
    if json {
        let text = serde_json::to_string_pretty(&report);
        say!("{}", text.map_err(|error| CliError::other("doctor_failed", error.to_string()))?);
    } else {
        print(&report);
    }
    Ok(if report.ok { ExitCode::SUCCESS } else { ExitCode::from(3) })
}

fn examine(model: &Path) -> Report {
    let onnxruntime = part(NativeParts::find_onnxruntime(), native::onnxruntime_version);
    let ffmpeg = part(NativeParts::find_ffmpeg(), native::ffmpeg_version);
    let cuda = match &onnxruntime.path {
        Some(library) => match native::cuda_problem(library) {
            Some(problem) => FeatureReport { available: false, detail: problem.reason },
            None => FeatureReport { available: true, detail: "driver, CUDA and cuDNN load".to_owned() },
        },
        None => FeatureReport { available: false, detail: "no ONNX Runtime".to_owned() },
    };
    let model = examine_model(model);
    Report {
        ok: onnxruntime.error.is_none() && ffmpeg.error.is_none() && model.error.is_none(),
        triptych: env!("CARGO_PKG_VERSION"),
        onnxruntime,
        ffmpeg,
        cpu: cpu(),
        cuda,
        landlock: landlock_support(),
        model,
    }
}

fn part(
    found: Result<PathBuf, NativeError>,
    version: fn(&Path) -> Result<String, NativeError>,
) -> PartReport {
    let failed = |error: NativeError| Some(ErrorReport { code: error.code(), message: error.to_string() });
    let path = match found {
        Ok(path) => path,
        Err(error) => return PartReport { error: failed(error), ..PartReport::default() },
    };
    let package = native::installed_version(&path);
    match version(&path) {
        Ok(version) => PartReport { path: Some(path), version: Some(version), package, error: None },
        Err(error) => PartReport { path: Some(path), version: None, package, error: failed(error) },
    }
}

fn examine_model(path: &Path) -> ModelReport {
    let report = ModelReport { path: path.to_owned(), name: None, id: None, error: None };
    match Bundle::open(path) {
        Ok(bundle) => {
            ModelReport { name: Some(bundle.name().to_owned()), id: Some(bundle.id().to_string()), ..report }
        }
        Err(error) => {
            let error = ErrorReport { code: error.code(), message: error.to_string() };
            ModelReport { error: Some(error), ..report }
        }
    }
}

macro_rules! detected {
    ($detect:ident: $($name:tt)*) => {
        [$(($name, std::arch::$detect!($name))),*].into_iter().filter(|(_, has)| *has).map(|(name, _)| name).collect()
    };
}

fn cpu() -> CpuReport {
    #[cfg(target_arch = "x86_64")]
    let features = detected!(is_x86_feature_detected: "sse4.1" "avx2" "fma" "f16c" "avx512f" "avx512bw" "avx512vnni" "avx512bf16" "avxvnni");
    #[cfg(target_arch = "aarch64")]
    let features = detected!(is_aarch64_feature_detected: "neon" "dotprod" "i8mm" "bf16" "sve");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let features = Vec::new();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    CpuReport { arch: std::env::consts::ARCH, cores, features }
}

/// Tests Landlock by restricting a thread that then ends, the only way to know that it works.
fn landlock_support() -> FeatureReport {
    let restrict = || -> Result<LandlockStatus, RulesetError> {
        let ruleset = Ruleset::default().handle_access(AccessFs::from_all(ABI::V1))?.create()?;
        Ok(ruleset.restrict_self()?.landlock)
    };
    let outcome = std::thread::spawn(restrict).join();
    let (available, detail) = match outcome {
        Ok(Ok(LandlockStatus::Available { effective_abi, .. })) => {
            (true, format!("ABI {}", effective_abi as i32))
        }
        Ok(Ok(LandlockStatus::NotEnabled)) => (false, "supported by the kernel, but not enabled".to_owned()),
        Ok(Ok(LandlockStatus::NotImplemented)) => (false, "not supported by the kernel".to_owned()),
        Ok(Err(error)) => (false, error.to_string()),
        Err(_) => (false, "trying it failed".to_owned()),
    };
    FeatureReport { available, detail }
}

fn print(report: &Report) {
    say!("triptych      {}", report.triptych);
    print_part("ONNX Runtime", &report.onnxruntime);
    print_part("ffmpeg", &report.ffmpeg);
    let cpu = &report.cpu;
    say!("CPU           {}, {} cores, {}", cpu.arch, cpu.cores, cpu.features.join(" "));
    for (name, feature) in [("CUDA", &report.cuda), ("Landlock", &report.landlock)] {
        say!("{name:<13} {}: {}", if feature.available { "yes" } else { "no" }, feature.detail);
    }
    let model = &report.model;
    match (&model.name, &model.id, &model.error) {
        (Some(name), Some(id), _) => say!(
            "model         {} {} in {} (`triptych model verify` runs its golden vectors)",
            printable(name),
            &id[..12.min(id.len())],
            model.path.display()
        ),
        (_, _, Some(error)) => {
            say!("model         MISSING [{}] {}", error.code, printable(&error.message))
        }
        _ => {}
    }
    say!("{}", if report.ok { "everything needed is installed" } else { "something is missing; see above" });
}

fn print_part(name: &str, part: &PartReport) {
    match (&part.error, &part.path, &part.version) {
        (Some(error), _, _) => say!("{name:<13} MISSING [{}] {}", error.code, printable(&error.message)),
        (None, Some(path), Some(version)) => {
            let package = part.package.as_deref().map(|p| format!(" (from {p})")).unwrap_or_default();
            say!("{name:<13} {version}{package} at {}", path.display());
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_said_with_its_code() {
        let dir = tempfile::tempdir().unwrap();
        let report = examine_model(dir.path());
        assert_eq!(report.error.unwrap().code, "model_missing");
        let missing =
            NativeError::Missing { part: "ffmpeg", looked: "x".into(), variable: "TRIPTYCH_FFMPEG" };
        let report = part(Err(missing), native::ffmpeg_version);
        assert_eq!(report.error.unwrap().code, "native_part_missing");
        let report = part(Ok(dir.path().join("absent.so")), native::onnxruntime_version);
        assert!(report.version.is_none() && report.error.is_some());
    }

    #[test]
    fn looking_at_landlock_restricts_nobody_else() {
        let _ = landlock_support();
        assert!(std::fs::read_dir("/").is_ok());
    }
}
