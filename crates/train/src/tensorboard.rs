//! TensorBoard's event files, written without TensorFlow.
//!
//! A file is a row of records, each `length (u64), checksum of it (u32), data, checksum of the data (u32)`, little-endian; the checksum
//! is CRC-32C rotated right by 15 bits plus a constant. The data is a protobuf message `Event`; the few fields used here:
//!
//! ```text
//! Event      { double wall_time = 1; int64 step = 2; string file_version = 3; Summary summary = 5; SessionLog session_log = 7; }
//! Summary    { repeated Value value = 1; }     Value { string tag = 1; float simple_value = 2; }
//! SessionLog { int32 status = 1; }             status 1 = START: drop what earlier files hold from this step on
//! ```

use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::error::BoxError;
use crate::metrics::{Event, Sink};

/// Writes scalars into a folder of event files, a new file for each process of the run: `train/*` while training, `eval/*` after it.
#[derive(Debug)]
pub struct TensorBoard {
    dir: PathBuf,
    file: Option<File>,
}

impl TensorBoard {
    /// A sink into the folder `dir`, which is made when the run starts.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into(), file: None }
    }

    fn open(&mut self, step: u64) -> std::io::Result<()> {
        fs::create_dir_all(&self.dir)?;
        let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let host: String = host.trim().chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').collect();
        let time = now();
        // The time first: TensorBoard reads the files in the order of their names.
        let name = format!("events.out.tfevents.{:010}.{host}.{}.{:09}", time as u64, std::process::id(), nanos());
        self.file = Some(File::create_new(self.dir.join(name))?);
        self.write(&event(0, |e| e.bytes(3, b"brain.Event:2")))?;
        self.write(&event(step + 1, |e| e.message(7, |log| log.varint(1, 1))))
    }

    fn write(&mut self, data: &[u8]) -> std::io::Result<()> {
        match &mut self.file {
            Some(file) => file.write_all(&record(data)),
            None => Ok(()),
        }
    }

    fn scalars<'a>(
        &mut self,
        step: u64,
        values: impl IntoIterator<Item = (&'a str, &'a str, f64)>,
    ) -> std::io::Result<()> {
        let data = event(step, |e| {
            e.message(5, |summary| {
                for (group, name, value) in values {
                    summary.message(1, |v| {
                        v.bytes(1, format!("{group}/{name}").as_bytes());
                        v.float(2, value as f32);
                    });
                }
            });
        });
        self.write(&data)
    }
}

impl Sink for TensorBoard {
    fn emit(&mut self, event: &Event<'_>) -> Result<(), BoxError> {
        let result = match *event {
            Event::Start { step, .. } => self.open(step),
            Event::Step { step, loss, scalars, lr, grad_norm, samples_per_second, peak_memory, .. } => {
                let own = [
                    ("train", "loss", loss),
                    ("train", "learning_rate", lr),
                    ("train", "grad_norm", grad_norm),
                    ("speed", "samples_per_second", samples_per_second),
                ];
                let memory = peak_memory.map(|bytes| ("speed", "peak_memory_gib", bytes as f64 / f64::from(1 << 30)));
                let more = scalars.iter().map(|(name, value)| ("train", name.as_str(), *value));
                self.scalars(step, own.into_iter().chain(memory).chain(more))
            }
            Event::Eval { step, metrics, .. } => {
                self.scalars(step, metrics.iter().map(|(name, value)| ("eval", name.as_str(), *value)))
            }
            _ => Ok(()),
        };
        result.map_err(|e| format!("writing TensorBoard events into {}: {e}", self.dir.display()).into())
    }
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |t| t.as_secs_f64())
}

fn nanos() -> u32 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |t| t.subsec_nanos())
}

fn event(step: u64, fill: impl FnOnce(&mut Message)) -> Vec<u8> {
    let mut e = Message::default();
    e.0.push(0x09); // field 1, 64 bits
    e.0.extend(now().to_le_bytes());
    e.varint(2, step);
    fill(&mut e);
    e.0
}

/// A protobuf message in the making.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn raw_varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn varint(&mut self, field: u8, value: u64) {
        self.0.push(field << 3);
        self.raw_varint(value);
    }

    fn float(&mut self, field: u8, value: f32) {
        self.0.push(field << 3 | 5);
        self.0.extend(value.to_le_bytes());
    }

    fn bytes(&mut self, field: u8, value: &[u8]) {
        self.0.push(field << 3 | 2);
        self.raw_varint(value.len() as u64);
        self.0.extend(value);
    }

    fn message(&mut self, field: u8, fill: impl FnOnce(&mut Message)) {
        let mut inner = Message::default();
        fill(&mut inner);
        self.bytes(field, &inner.0);
    }
}

fn masked_crc(data: &[u8]) -> u32 {
    crc32c::crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

fn record(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    [&length[..], &masked_crc(&length).to_le_bytes(), data, &masked_crc(data).to_le_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fields of a protobuf message: number, and the value as bytes (varints as 8 bytes).
    fn fields(mut data: &[u8]) -> Vec<(u8, Vec<u8>)> {
        fn varint(data: &mut &[u8]) -> u64 {
            let mut value = 0;
            for shift in (0..).step_by(7) {
                let byte = data[0];
                *data = &data[1..];
                value |= u64::from(byte & 0x7f) << shift;
                if byte < 0x80 {
                    break;
                }
            }
            value
        }
        let mut found = Vec::new();
        while !data.is_empty() {
            let key = varint(&mut data) as u8;
            let length = match key & 7 {
                0 => {
                    found.push((key >> 3, varint(&mut data).to_le_bytes().to_vec()));
                    continue;
                }
                1 => 8,
                2 => varint(&mut data) as usize,
                5 => 4,
                wire => panic!("wire type {wire}"),
            };
            found.push((key >> 3, data[..length].to_vec()));
            data = &data[length..];
        }
        found
    }

    fn records(mut content: &[u8]) -> Vec<Vec<u8>> {
        let mut found = Vec::new();
        while !content.is_empty() {
            let number =
                |at: usize, size: usize| content[at..at + size].iter().rev().fold(0u64, |n, b| n << 8 | u64::from(*b));
            let length = number(0, 8) as usize;
            assert_eq!(number(8, 4) as u32, masked_crc(&content[..8]));
            let data = &content[12..12 + length];
            assert_eq!(number(12 + length, 4) as u32, masked_crc(data));
            found.push(data.to_vec());
            content = &content[16 + length..];
        }
        found
    }

    #[test]
    fn the_checksum_is_the_published_one() {
        // RFC 3720, B.4: 32 bytes of zeros.
        assert_eq!(crc32c::crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(masked_crc(&[0; 32]), 0x8a91_36aa_u32.rotate_right(15).wrapping_add(0xa282_ead8));
    }

    #[test]
    fn what_is_written_reads_back() {
        let dir = tempfile::tempdir().unwrap();
        let mut sink = TensorBoard::new(dir.path().join("tensorboard"));
        let start = |step| Event::Start {
            step,
            epoch: 0,
            resumed: step > 0,
            total_steps: 9,
            steps_per_epoch: 9,
            epochs: 1,
            parameters: 1,
        };
        sink.emit(&start(300)).unwrap();
        let metrics = [("accuracy".to_owned(), 0.875), ("loss".to_owned(), 1e-3)];
        sink.emit(&Event::Eval { step: 301, epoch: 1, metrics: &metrics, best: false, seconds: 0.0 }).unwrap();
        sink.emit(&start(301)).unwrap();

        let mut files: Vec<_> =
            fs::read_dir(dir.path().join("tensorboard")).unwrap().map(|e| e.unwrap().path()).collect();
        files.sort();
        assert_eq!(files.len(), 2, "a resume writes a file of its own");
        assert!(files[0].file_name().unwrap().to_str().unwrap().starts_with("events.out.tfevents."));
        let events: Vec<_> = records(&fs::read(&files[0]).unwrap()).iter().map(|data| fields(data)).collect();
        assert_eq!(events.len(), 3);
        let step = |i: usize| u64::from_le_bytes(events[i][1].1.clone().try_into().unwrap());
        assert_eq!(events[0][2], (3, b"brain.Event:2".to_vec()));
        assert_eq!(
            (step(1), events[1][2].0, fields(&events[1][2].1)),
            (301, 7, vec![(1, 1u64.to_le_bytes().to_vec())])
        );
        assert_eq!((step(2), events[2][2].0), (301, 5));
        let values: Vec<_> = fields(&events[2][2].1).iter().map(|(_, value)| fields(value)).collect();
        assert_eq!(values[0], [(1, b"eval/accuracy".to_vec()), (2, 0.875f32.to_le_bytes().to_vec())]);
        assert_eq!(values[1], [(1, b"eval/loss".to_vec()), (2, 1e-3f32.to_le_bytes().to_vec())]);
    }
}
