//! Exports all vectors as one Parquet file, written while they are read.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use parquet::basic::Compression;
use parquet::data_type::{ByteArray, ByteArrayType, DataType, DoubleType, FloatType, Int64Type};
use parquet::errors::{ParquetError, Result as ParquetResult};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;
use parquet::schema::types::ColumnPath;
use serde::Serialize;
use tokio::sync::mpsc;

use super::recovery::open_closed;
use super::{Collection, LibraryError};
use crate::store::{ClipVector, ExportedClip, Store, StoreError};
use crate::types::{AssetId, AssetKind, ClipId, Space, Track};

/// Clips read per page.
const PAGE: u32 = 256;
/// Pages buffered between the reader and the writer.
const PAGES_AHEAD: usize = 2;
/// Bytes of vectors per row group; memory use is a small multiple of it.
const GROUP_BYTES: usize = 8 << 20;

const SCHEMA: &str = "message embeddings {
    required binary asset_id (UTF8);
    required binary asset_name (UTF8);
    required binary asset_sha256 (UTF8);
    required binary asset_kind (UTF8);
    required int64 clip_id;
    required double start_secs;
    required double end_secs;
    required binary track (UTF8);
    required binary space (UTF8);
    required binary model (UTF8);
    required group embedding (LIST) { repeated group list { required float element; } }
}";

/// Which vectors to export; `None`: all.
#[derive(Debug, Clone, Default)]
pub struct ExportWanted {
    /// Only vectors of this space.
    pub space: Option<Space>,
    /// Only vectors of this track.
    pub track: Option<Track>,
}

/// The result of an export.
#[derive(Debug, Clone, Default, Serialize)]
pub struct ExportReport {
    /// Digest of the model.
    pub model: String,
    /// Number of exported clips.
    pub clips: u64,
    /// Number of vectors, which is the number of rows.
    pub vectors: u64,
    /// Number of damaged clips and vectors left out.
    pub left_out: u64,
}

/// A message from the reader to the writer. Without a final one, the writer does not finish the file.
enum Step {
    Page(Vec<ExportedClip>),
    End { left_out: u64 },
}

impl Collection {
    /// Clips of an asset with their vectors, after a clip.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] and others.
    pub async fn export_page(
        &self,
        asset: AssetId,
        after: ClipId,
        limit: u32,
    ) -> Result<Vec<ExportedClip>, StoreError> {
        self.store.asset(asset).await?;
        let mut cursor = self.store.export(Some(asset), after).await?;
        cursor.next(limit).await
    }

    /// Writes the vectors of all finished assets, as of this moment, to `out`.
    ///
    /// # Errors
    /// [`LibraryError::Export`], and those of the store; the output is then incomplete and cannot be read.
    pub async fn export(
        &self,
        wanted: ExportWanted,
        out: impl Write + Send + 'static,
    ) -> Result<ExportReport, LibraryError> {
        let name = self.embedder.bundle().name().to_owned();
        export(self.store.as_ref(), Some(name), wanted, out).await
    }
}

/// Exports the library of a folder that no server has open; needs no model.
///
/// # Errors
/// [`LibraryError::Backup`] if there is none, [`LibraryError::StoreBehind`] and those of [`Collection::export`].
pub async fn export_folder(
    data_dir: &Path,
    wanted: ExportWanted,
    out: impl Write + Send + 'static,
) -> Result<ExportReport, LibraryError> {
    let (store, _lock) = open_closed(data_dir).await?;
    let report = export(&store, None, wanted, out).await;
    store.close().await?;
    report
}

async fn export(
    store: &dyn Store,
    model_name: Option<String>,
    wanted: ExportWanted,
    out: impl Write + Send + 'static,
) -> Result<ExportReport, LibraryError> {
    let mut cursor = store.export(None, ClipId(0)).await?;
    let (pages, mut coming) = mpsc::channel(PAGES_AHEAD);
    let model = cursor.model().to_owned();
    let writing = tokio::task::spawn_blocking(move || {
        let mut file = Vectors::begin(out, &model, model_name)?;
        while let Some(step) = coming.blocking_recv() {
            match step {
                Step::Page(clips) => clips.iter().try_for_each(|clip| file.add(clip, &wanted))?,
                Step::End { left_out } => return file.end(left_out),
            }
        }
        Err(ParquetError::General("the export was interrupted".to_owned()))
    });
    let reading = async {
        loop {
            let page = cursor.next(PAGE).await?;
            let step =
                if page.is_empty() { Step::End { left_out: cursor.left_out() } } else { Step::Page(page) };
            let ended = matches!(step, Step::End { .. });
            // The writer has failed and reports why.
            if pages.send(step).await.is_err() || ended {
                return Ok::<_, LibraryError>(());
            }
        }
    };
    let read = reading.await;
    drop(pages);
    let written = writing.await.map_err(|_| LibraryError::Panicked)?;
    read?;
    written.map_err(|error| LibraryError::Export(error.to_string()))
}

/// Rows to be written, by column.
#[derive(Default)]
struct Rows {
    asset_id: Vec<ByteArray>,
    asset_name: Vec<ByteArray>,
    asset_sha256: Vec<ByteArray>,
    asset_kind: Vec<ByteArray>,
    clip_id: Vec<i64>,
    start_secs: Vec<f64>,
    end_secs: Vec<f64>,
    track: Vec<ByteArray>,
    space: Vec<ByteArray>,
    model: Vec<ByteArray>,
    values: Vec<f32>,
    /// Parquet's repetition level: 0 at the start of a vector.
    repetition: Vec<i16>,
}

struct Vectors<W: Write + Send> {
    writer: SerializedFileWriter<W>,
    rows: Rows,
    model: ByteArray,
    report: ExportReport,
}

impl<W: Write + Send> Vectors<W> {
    fn begin(out: W, model: &str, model_name: Option<String>) -> ParquetResult<Self> {
        let values = ColumnPath::from(vec!["embedding".to_owned(), "list".to_owned(), "element".to_owned()]);
        let named = model_name.map(|name| KeyValue::new("triptych.model_name".to_owned(), name));
        let model_id = KeyValue::new("triptych.model".to_owned(), model.to_owned());
        let properties = WriterProperties::builder()
            .set_created_by(concat!("triptych ", env!("CARGO_PKG_VERSION")).to_owned())
            // Vectors do not compress, and names are in dictionaries.
            .set_compression(Compression::UNCOMPRESSED)
            .set_statistics_enabled(EnabledStatistics::Chunk)
            .set_offset_index_disabled(true)
            .set_column_dictionary_enabled(values.clone(), false)
            .set_column_statistics_enabled(values, EnabledStatistics::None)
            .set_key_value_metadata(Some([Some(model_id), named].into_iter().flatten().collect()))
            .build();
        let schema = Arc::new(parse_message_type(SCHEMA)?);
        Ok(Self {
            writer: SerializedFileWriter::new(out, schema, Arc::new(properties))?,
            rows: Rows::default(),
            model: ByteArray::from(model),
            report: ExportReport { model: model.to_owned(), ..ExportReport::default() },
        })
    }

    fn add(&mut self, exported: &ExportedClip, wanted: &ExportWanted) -> ParquetResult<()> {
        let clip = &exported.clip;
        let [id, name, sha256] = [&clip.asset.to_string(), &exported.asset_name, &exported.asset_sha256]
            .map(|text| ByteArray::from(text.as_str()));
        let kind = ByteArray::from(exported.asset_kind.map_or("", AssetKind::as_str));
        let rows = &mut self.rows;
        let before = rows.clip_id.len();
        for ClipVector { track, space, vector } in &exported.vectors {
            if wanted.track.is_some_and(|wanted| wanted != *track)
                || wanted.space.as_ref().is_some_and(|wanted| wanted != space)
            {
                continue;
            }
            rows.asset_id.push(id.clone());
            rows.asset_name.push(name.clone());
            rows.asset_sha256.push(sha256.clone());
            rows.asset_kind.push(kind.clone());
            rows.clip_id.push(clip.id.0);
            rows.start_secs.push(clip.span.start_secs);
            rows.end_secs.push(clip.span.end_secs);
            rows.track.push(ByteArray::from(track.as_str()));
            rows.space.push(ByteArray::from(space.as_str()));
            rows.model.push(self.model.clone());
            let values = vector.as_slice();
            rows.values.extend_from_slice(values);
            rows.repetition.extend((0..values.len()).map(|at| i16::from(at > 0)));
        }
        let added = rows.clip_id.len() - before;
        self.report.vectors += added as u64;
        self.report.clips += u64::from(added > 0);
        if rows.values.len() * size_of::<f32>() >= GROUP_BYTES { self.write_group() } else { Ok(()) }
    }

    fn write_group(&mut self) -> ParquetResult<()> {
        let rows = std::mem::take(&mut self.rows);
        if rows.clip_id.is_empty() {
            return Ok(());
        }
        let mut group = self.writer.next_row_group()?;
        for texts in [&rows.asset_id, &rows.asset_name, &rows.asset_sha256, &rows.asset_kind] {
            put::<ByteArrayType, W>(&mut group, texts, None)?;
        }
        put::<Int64Type, W>(&mut group, &rows.clip_id, None)?;
        put::<DoubleType, W>(&mut group, &rows.start_secs, None)?;
        put::<DoubleType, W>(&mut group, &rows.end_secs, None)?;
        for texts in [&rows.track, &rows.space, &rows.model] {
            put::<ByteArrayType, W>(&mut group, texts, None)?;
        }
        let definition = vec![1; rows.values.len()];
        put::<FloatType, W>(&mut group, &rows.values, Some((&definition, &rows.repetition)))?;
        group.close().map(drop)
    }

    fn end(mut self, left_out: u64) -> ParquetResult<ExportReport> {
        self.write_group()?;
        let damaged = KeyValue::new("triptych.left_out".to_owned(), left_out.to_string());
        self.writer.append_key_value_metadata(damaged);
        self.writer.finish()?;
        self.writer.inner_mut().flush()?;
        Ok(ExportReport { left_out, ..self.report })
    }
}

/// Writes the next column of a row group; for a list, also the levels that say where its values belong.
fn put<T: DataType, W: Write + Send>(
    group: &mut SerializedRowGroupWriter<'_, W>,
    values: &[T::T],
    levels: Option<(&[i16], &[i16])>,
) -> ParquetResult<()> {
    let column = group.next_column()?;
    let mut column =
        column.ok_or_else(|| ParquetError::General("no such column in the schema".to_owned()))?;
    let (definition, repetition) = levels.unzip();
    column.typed::<T>().write_batch(values, definition, repetition)?;
    column.close()
}
