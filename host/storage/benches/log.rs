//! What a durable write costs: batches of 256-byte entries with a hard state, one `fdatasync` each.

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput};
use maitred_protocol::HostName;
use maitred_storage::{DataDir, HostIdentity, Log, LogOptions};
use raft::eraftpb::{Entry, HardState};

/// Bytes of an entry's data.
const ENTRY_BYTES: usize = 256;
/// Entries after which the log is cut, so that the disk does not fill.
const KEEP: u64 = 200_000;

fn durable_batches(criterion: &mut Criterion) {
    let root = tempfile::tempdir().expect("a temporary directory");
    let name = HostName::new("bench").expect("a good name");
    let identity = HostIdentity::joining(1, name);
    let dir = DataDir::create(root.path(), &identity).expect("a data directory");
    let (mut log, _) = Log::open(&dir, &LogOptions::default()).expect("a log");
    let data = Bytes::from(vec![0x5a; ENTRY_BYTES]);
    let mut group = criterion.benchmark_group("durable batch");
    for size in [1, 16, 128, 1024] {
        group.throughput(Throughput::Elements(size));
        group.bench_function(BenchmarkId::from_parameter(size), |bencher| {
            bencher.iter(|| {
                let first = log.last_index() + 1;
                let batch: Vec<Entry> = (first..first + size)
                    .map(|index| Entry {
                        index,
                        term: 1,
                        data: data.clone(),
                        ..Entry::default()
                    })
                    .collect();
                let state = HardState {
                    term: 1,
                    commit: first - 1,
                    ..HardState::default()
                };
                log.write(&batch, Some(&state)).expect("a write");
                if log.last_index() - log.start().index > KEEP {
                    log.compact(log.last_index() - 1).expect("a compaction");
                }
            });
        });
    }
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    durable_batches(&mut criterion);
    criterion.final_summary();
}
