//! Traces over OTLP (http/protobuf), with the feature `otlp`. Nothing is sent unless the operator names a
//! collector in the standard variables, `OTEL_EXPORTER_OTLP_ENDPOINT` or `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`.

use std::sync::OnceLock;
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::Metadata;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::FilterFn;
use tracing_subscriber::layer::Layer;
use tracing_subscriber::registry::Registry;

static PROVIDER: OnceLock<SdkTracerProvider> = OnceLock::new();
/// Longest time for the last spans to leave when the process ends.
const LAST_SPANS: Duration = Duration::from_secs(5);

/// The layer that sends our spans; `None` where no collector is named.
pub(super) fn layer() -> Option<impl Layer<Registry> + Send + Sync + 'static> {
    let said = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let disabled = std::env::var("OTEL_SDK_DISABLED").is_ok_and(|value| value.eq_ignore_ascii_case("true"));
    let named = said("OTEL_EXPORTER_OTLP_ENDPOINT") || said("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT");
    if disabled || !named {
        return None;
    }
    let exporter = match SpanExporter::builder().with_http().with_protocol(Protocol::HttpBinary).build() {
        Ok(exporter) => exporter,
        Err(error) => {
            // The logs are not there yet: this decides where they go.
            eprintln!("traces are not sent: {error}");
            return None;
        }
    };
    let mut resource =
        Resource::builder().with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
    if !said("OTEL_SERVICE_NAME") {
        resource = resource.with_service_name("triptych");
    }
    let provider =
        SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource.build()).build();
    let tracer = provider.tracer("triptych");
    let _ = PROVIDER.set(provider);
    let ours = |data: &Metadata<'_>| data.is_span() && data.target().starts_with("triptych");
    let filter = FilterFn::new(ours).with_max_level_hint(LevelFilter::DEBUG);
    Some(tracing_opentelemetry::layer().with_tracer(tracer).with_filter(filter))
}

/// Sends what has not been sent yet. Waits for the collector, for a while.
pub(super) fn flush() {
    if let Some(provider) = PROVIDER.get()
        && let Err(error) = provider.shutdown_with_timeout(LAST_SPANS)
    {
        tracing::warn!(%error, "the last traces could not be sent");
    }
}
