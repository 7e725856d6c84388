//! What the wire costs: encoding and decoding a request and an answer of the usual size.
//!
//! `cargo bench -p maitred-protocol`

#![expect(
    clippy::unwrap_used,
    reason = "a benchmark that cannot go on should stop here"
)]

use criterion::{Criterion, criterion_group, criterion_main};
use maitred_protocol::{
    Chooser, ClientId, Digest, Incarnation, ModuleName, NodeEpoch, NodeName, ProcessKey,
    ProcessRecord, ProcessState, Request, Response, Revision, SetProcess, Why, codec,
};
use std::hint::black_box;

fn request() -> Request {
    let set = SetProcess {
        key: ProcessKey::new("player", "1000001").unwrap(),
        node: NodeName::new("eu-1").unwrap(),
        epoch: NodeEpoch(17),
        pid: "pid-1000001".to_owned(),
        share: vec![7; 64],
        incarnation: None,
    };
    Request::SetProcess(ClientId(3), Box::new(set))
}

fn response() -> Response {
    let chooser = Chooser::Selector {
        name: ModuleName::new("least-loaded").unwrap(),
        version: 1,
        digest: Digest([9; 32]),
        config: 7,
        canary: false,
    };
    let record = ProcessRecord {
        key: ProcessKey::new("player", "1000001").unwrap(),
        state: ProcessState::Running,
        node: NodeName::new("eu-1").unwrap(),
        node_epoch: NodeEpoch(17),
        address: "10.0.0.1:7000".to_owned(),
        incarnation: Incarnation(123_456),
        pid: "pid-1000001".to_owned(),
        share: vec![7; 64],
        revision: Revision(123_457),
        created_ms: 1_700_000_000_000,
        attempt: 1,
        args_bytes: 64,
        demand: 1,
        group: None,
        why: Why {
            chooser,
            seed: 1,
            micros: 2,
            candidates: 8,
        },
    };
    Response::Process {
        record: Box::new(record),
        revision: Revision(123_457),
    }
}

fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("codec");
    let mut out = Vec::with_capacity(4096);
    let (request, response) = (request(), response());
    group.bench_function("encode set_process", |bencher| {
        bencher.iter(|| {
            out.clear();
            codec::encode(1, black_box(&request), &mut out).unwrap();
        });
    });
    group.bench_function("encode process answer", |bencher| {
        bencher.iter(|| {
            out.clear();
            codec::encode(1, black_box(&response), &mut out).unwrap();
        });
    });
    let mut bytes = Vec::new();
    codec::encode(1, &request, &mut bytes).unwrap();
    group.bench_function("decode set_process", |bencher| {
        bencher.iter(|| {
            let frame = codec::split(black_box(&bytes)).unwrap().unwrap();
            codec::decode::<Request>(&frame).unwrap()
        });
    });
    let mut bytes = Vec::new();
    codec::encode(1, &response, &mut bytes).unwrap();
    group.bench_function("decode process answer", |bencher| {
        bencher.iter(|| {
            let frame = codec::split(black_box(&bytes)).unwrap().unwrap();
            codec::decode::<Response>(&frame).unwrap()
        });
    });
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
