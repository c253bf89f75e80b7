//! The packed file of a task: seeds in their order, and per anchor row its seeds in time order.

use std::path::Path;

use super::staged::remove_if_there;
use crate::csr::{Children, time_order};
use crate::error::{Error, Result};
use crate::format::{FileKind, FileReader, FileWriter, task};

/// No vocabulary id.
pub(super) const NO_TEXT: u32 = u32::MAX;
/// Of a task without lists; these are two more.
const NUM_SECTIONS: usize = 13;
/// Beside the file it will replace.
const DRAFT_FOLDER: &str = ".draft";

/// Everything a task file holds; one entry per seed unless said otherwise.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct TaskFile {
    /// Rows of the anchor table.
    pub num_anchors: usize,
    /// Anchor row.
    pub rows: Vec<u32>,
    /// Observation time.
    pub times: Vec<i64>,
    /// 0 train, 1 val, 2 test.
    pub splits: Vec<u8>,
    /// Label as z-score, or 0 and 1.
    pub values: Vec<f32>,
    /// Label as vocabulary id, else [`NO_TEXT`].
    pub vocab: Vec<u32>,
    /// 1 where there is no label.
    pub is_null: Vec<u8>,
    /// Labels of a timestamp target, else empty.
    pub label_times: Vec<i64>,
    /// Where the list of each seed of a link task lies in `targets`, else empty.
    pub target_indptr: Vec<u32>,
    /// Rows that the seeds of a link task name, else empty.
    pub targets: Vec<u32>,
    /// Texts the task adds to the vocabulary; the first has the id `first_text`.
    pub texts: Vec<String>,
    /// Vocabulary id of the first of `texts`.
    pub first_text: u32,
}

impl TaskFile {
    /// Reads the file `root/name`.
    pub(super) fn read(root: &Path, name: &str) -> Result<Self> {
        let file = FileReader::open(root, name, FileKind::Task)?;
        file.verify()?;
        let texts = (0..file.num_texts()?).map(|idx| file.text(idx)).collect::<Result<_>>()?;
        Ok(Self {
            num_anchors: file.values::<u32>(task::INDPTR)?.len().saturating_sub(1),
            rows: file.values(task::ROWS)?.to_vec(),
            times: file.values(task::TIMES)?.to_vec(),
            splits: file.values(task::SPLITS)?.to_vec(),
            values: file.values(task::VALUES)?.to_vec(),
            vocab: file.values(task::VOCAB)?.to_vec(),
            is_null: file.values(task::IS_NULL)?.to_vec(),
            label_times: file.values(task::LABEL_TIMES)?.to_vec(),
            target_indptr: file.optional(task::TARGET_INDPTR)?.to_vec(),
            targets: file.optional(task::TARGETS)?.to_vec(),
            first_text: file.exactly::<u32>(task::FIRST_TEXT, 1)?[0],
            texts,
        })
    }

    /// Writes the file `root/name`, which is complete from the moment it has that name.
    pub(super) fn write(&self, root: &Path, name: &str, build_id: u64) -> Result<()> {
        let index = Children::scatter(self.num_anchors, &self.rows, &self.times, &time_order(&self.times));
        let drafts = root.join(DRAFT_FOLDER);
        let has_lists = !self.target_indptr.is_empty();
        let num_sections = NUM_SECTIONS + if has_lists { 2 } else { 0 };
        let mut file = FileWriter::create(&drafts, name, FileKind::Task, build_id, num_sections)?;
        file.values(task::ROWS, &self.rows)?;
        file.values(task::TIMES, &self.times)?;
        file.values(task::SPLITS, &self.splits)?;
        file.values(task::VALUES, &self.values)?;
        file.values(task::VOCAB, &self.vocab)?;
        file.values(task::IS_NULL, &self.is_null)?;
        file.values(task::INDPTR, &index.indptr)?;
        file.values(task::INDICES, &index.indices)?;
        file.values(task::INDEX_TIMES, &index.times)?;
        file.values(task::LABEL_TIMES, &self.label_times)?;
        file.values(task::FIRST_TEXT, &[self.first_text])?;
        if has_lists {
            file.values(task::TARGET_INDPTR, &self.target_indptr)?;
            file.values(task::TARGETS, &self.targets)?;
        }
        file.texts(&self.texts)?;
        file.finish()?;
        let (draft, path) = (drafts.join(name), root.join(name));
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(|source| Error::io(parent, source))?;
        }
        remove_if_there(&path)?;
        std::fs::rename(&draft, &path).map_err(|source| Error::io(&path, source))?;
        std::fs::remove_dir_all(&drafts).map_err(|source| Error::io(&drafts, source))
    }

    /// Moves the task's own texts to the vocabulary ids from `first_text` on.
    ///
    /// # Errors
    /// [`Error::Schema`] when the vocabulary outgrows its ids.
    pub(super) fn move_texts(&mut self, task: &str, first_text: u32) -> Result<()> {
        let before = self.first_text;
        if first_text.checked_add(self.texts.len() as u32).is_none_or(|end| end == NO_TEXT) {
            return Err(Error::schema(format!("task `{task}`"), "the vocabulary has more texts than 32-bit ids"));
        }
        for id in self.vocab.iter_mut().filter(|id| **id != NO_TEXT && **id >= before) {
            *id = *id - before + first_text;
        }
        self.first_text = first_text;
        Ok(())
    }

    /// Vocabulary ids the labels take, ascending.
    pub(super) fn classes(&self) -> Vec<u32> {
        let mut ids: Vec<u32> = self.vocab.iter().copied().filter(|&id| id != NO_TEXT).collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    }
}
