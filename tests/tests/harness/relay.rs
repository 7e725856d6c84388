//! Each fault of the relay, seen to happen and seen to heal, with plain sockets.
//!
//! Packets carry a number. Where something must *not* arrive, a later packet is sent after it: the
//! relay keeps their order, so what arrives first tells.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use maitred_tests::relay::{Counts, Faults, Lane, Relay, Who};
use tokio::net::UdpSocket;
use tokio::time::timeout;

/// Far more than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);

async fn socket() -> UdpSocket {
    UdpSocket::bind("127.0.0.1:0").await.unwrap()
}

async fn receive(socket: &UdpSocket) -> (u32, SocketAddr) {
    let mut buffer = [0; 4];
    let got = timeout(PATIENCE, socket.recv_from(&mut buffer)).await;
    let (bytes, from) = got.expect("a packet in time").unwrap();
    assert_eq!(bytes, 4);
    (u32::from_be_bytes(buffer), from)
}

async fn number(socket: &UdpSocket) -> u32 {
    receive(socket).await.0
}

async fn send(socket: &UdpSocket, to: SocketAddr, number: u32) {
    socket.send_to(&number.to_be_bytes(), to).await.unwrap();
}

/// Looks again and again.
async fn until(what: &str, mut is: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is() {
        assert!(Instant::now() < deadline, "{what}");
        tokio::task::yield_now().await;
    }
}

struct Net {
    relay: Relay,
    target: UdpSocket,
    client: UdpSocket,
    me: SocketAddr,
    /// The client as the target sees it.
    seen: SocketAddr,
}

/// A client that has been heard once.
async fn net() -> Net {
    let (target, client) = (socket().await, socket().await);
    let me = client.local_addr().unwrap();
    let relay = Relay::start(target.local_addr().unwrap(), 1).await.unwrap();
    send(&client, relay.address(), 0).await;
    let (number, seen) = receive(&target).await;
    assert_eq!(number, 0);
    Net {
        relay,
        target,
        client,
        me,
        seen,
    }
}

impl Net {
    async fn send(&self, number: u32) {
        send(&self.client, self.relay.address(), number).await;
    }

    /// Sends them all, and waits until the relay has taken them.
    async fn send_all(&self, numbers: std::ops::Range<u32>) {
        for number in numbers {
            let before = self.counts().to_target.received;
            self.send(number).await;
            let taken = || self.counts().to_target.received > before;
            until("the relay takes it", taken).await;
        }
    }

    async fn answer(&self, number: u32) {
        send(&self.target, self.seen, number).await;
    }

    async fn arrivals(&self, count: u64) -> Vec<u32> {
        let mut numbers = Vec::new();
        for _ in 0..count {
            numbers.push(number(&self.target).await);
        }
        numbers
    }

    fn counts(&self) -> Counts {
        self.relay.counts(Who::Source(self.me))
    }

    fn set(&self, to_target: Lane) {
        let from_target = Lane::default();
        let faults = Faults {
            to_target,
            from_target,
        };
        self.relay.faults(Who::Everyone, faults);
    }
}

#[tokio::test]
async fn answers_find_their_way_back() {
    let net = net().await;
    let other = socket().await;
    send(&other, net.relay.address(), 1).await;
    let (_, seen) = receive(&net.target).await;
    assert_ne!(seen, net.seen);
    net.answer(2).await;
    send(&net.target, seen, 3).await;
    assert_eq!(receive(&net.client).await, (2, net.relay.address()));
    assert_eq!(receive(&other).await, (3, net.relay.address()));
    let all = net.relay.counts(Who::Everyone);
    assert_eq!((all.to_target.forwarded, all.from_target.forwarded), (2, 2));
    let mut sources = [net.me, other.local_addr().unwrap()];
    sources.sort();
    assert_eq!(net.relay.sources(), sources);
}

#[tokio::test]
async fn one_source_is_cut_off_in_one_direction_and_comes_back() {
    let net = net().await;
    let other = socket().await;
    let to_target = Lane::dead();
    let faults = Faults {
        to_target,
        ..Faults::default()
    };
    net.relay.faults(Who::Source(net.me), faults);
    net.send_all(1..4).await;
    assert_eq!(net.counts().to_target.cut, 3);
    send(&other, net.relay.address(), 4).await;
    assert_eq!(number(&net.target).await, 4);
    net.answer(5).await;
    assert_eq!(number(&net.client).await, 5);

    net.relay.heal();
    net.send(6).await;
    assert_eq!(number(&net.target).await, 6);
    let others = net.relay.counts(Who::Source(other.local_addr().unwrap()));
    assert_eq!(others.to_target.cut, 0);
}

#[tokio::test]
async fn everyone_is_cut_off_in_both_directions_and_comes_back() {
    let net = net().await;
    net.relay.faults(Who::Everyone, Faults::both(Lane::dead()));
    net.send_all(1..4).await;
    net.answer(5).await;
    let met = || net.counts().from_target.cut == 1;
    until("the answer meets the cut", met).await;
    assert_eq!(net.counts().to_target.cut, 3);

    net.relay.heal();
    net.send(6).await;
    net.answer(7).await;
    assert_eq!(
        (number(&net.target).await, number(&net.client).await),
        (6, 7)
    );
}

#[tokio::test]
async fn some_packets_are_lost() {
    let net = net().await;
    net.set(Lane {
        loss: 0.05,
        ..Lane::default()
    });
    let mut arrived = 0;
    for batch in 0..40 {
        net.send_all(batch * 50..(batch + 1) * 50).await;
        let through = net.counts().to_target.received - 1 - net.counts().to_target.lost;
        net.arrivals(through - arrived).await;
        arrived = through;
    }
    let lost = net.counts().to_target.lost;
    assert!((50..=160).contains(&lost), "{lost} of 2000");
    assert_eq!(arrived + lost, 2_000);

    net.relay.heal();
    net.send_all(0..50).await;
    assert_eq!(net.arrivals(50).await, Vec::from_iter(0..50));
    assert_eq!(net.counts().to_target.lost, lost);
}

#[tokio::test]
async fn packets_are_late_and_in_order() {
    let net = net().await;
    let (delay, jitter) = (Duration::from_millis(50), Duration::from_millis(20));
    net.set(Lane {
        delay,
        jitter,
        ..Lane::default()
    });
    let start = Instant::now();
    net.send(1).await;
    assert_eq!(number(&net.target).await, 1);
    assert!(start.elapsed() >= delay, "{:?}", start.elapsed());
    net.send_all(2..52).await;
    assert_eq!(net.arrivals(50).await, Vec::from_iter(2..52));
    assert_eq!(net.counts().to_target.delayed, 51);

    net.relay.heal();
    net.send(52).await;
    assert_eq!(number(&net.target).await, 52);
    assert_eq!(net.counts().to_target.delayed, 51);
}

#[tokio::test]
async fn what_is_under_way_when_the_line_is_cut_is_lost() {
    let net = net().await;
    let delay = Duration::from_secs(1);
    net.set(Lane {
        delay,
        ..Lane::default()
    });
    net.send_all(1..4).await;
    net.set(Lane::dead());
    until("all meet the cut", || net.counts().to_target.cut == 3).await;
    assert_eq!(net.counts().to_target.delayed, 3);
    net.relay.heal();
    net.send(4).await;
    assert_eq!(number(&net.target).await, 4);
}

#[tokio::test]
async fn packets_arrive_twice() {
    let net = net().await;
    net.set(Lane {
        duplicate: 1.0,
        ..Lane::default()
    });
    net.send_all(1..4).await;
    assert_eq!(net.arrivals(6).await, [1, 1, 2, 2, 3, 3]);
    assert_eq!(net.counts().to_target.duplicated, 3);
    net.relay.heal();
    net.send_all(4..6).await;
    assert_eq!(net.arrivals(2).await, [4, 5]);
}

#[tokio::test]
async fn packets_pass_one_another() {
    let net = net().await;
    net.set(Lane {
        reorder: 0.3,
        ..Lane::default()
    });
    net.send_all(1..101).await;
    let mut arrived = net.arrivals(100).await;
    assert!(!arrived.is_sorted(), "{arrived:?}");
    arrived.sort_unstable();
    assert_eq!(arrived, Vec::from_iter(1..101));
    let reordered = net.counts().to_target.reordered;
    assert!((10..60).contains(&reordered), "{reordered} of 100");

    net.relay.heal();
    net.send_all(101..151).await;
    assert_eq!(net.arrivals(50).await, Vec::from_iter(101..151));
}

#[tokio::test]
async fn a_source_changes_its_address() {
    let net = net().await;
    let address = net.relay.rebind(net.me).await.unwrap();
    assert_ne!(address, net.seen);
    net.send(1).await;
    assert_eq!(receive(&net.target).await, (1, address));
    // The old address is nobody's.
    net.answer(2).await;
    send(&net.target, address, 3).await;
    assert_eq!(number(&net.client).await, 3);
    assert_eq!(net.counts().rebinds, 1);

    let stranger = SocketAddr::from(([127, 0, 0, 1], 9));
    let no = net.relay.rebind(stranger).await.unwrap_err();
    assert_eq!(no.kind(), io::ErrorKind::NotFound);
}

#[tokio::test]
async fn a_target_comes_late_and_moves() {
    let (client, first, second) = (socket().await, socket().await, socket().await);
    let relay = Relay::start(None, 1).await.unwrap();
    send(&client, relay.address(), 1).await;
    let met = || relay.counts(Who::Everyone).to_target.cut == 1;
    until("there is no target", met).await;
    relay.set_target(first.local_addr().unwrap());
    send(&client, relay.address(), 2).await;
    assert_eq!(number(&first).await, 2);
    relay.set_target(second.local_addr().unwrap());
    send(&client, relay.address(), 3).await;
    let (got, seen) = receive(&second).await;
    assert_eq!(got, 3);
    send(&second, seen, 4).await;
    assert_eq!(number(&client).await, 4);
}

#[tokio::test]
async fn a_target_that_dies_and_comes_back_is_found_again() {
    let net = net().await;
    let address = net.target.local_addr().unwrap();
    drop(net.target);
    for number in 1..4 {
        let before = net.relay.counts(Who::Everyone).to_target.forwarded;
        send(&net.client, net.relay.address(), number).await;
        let tried = || net.relay.counts(Who::Everyone).to_target.forwarded > before;
        until("the relay tries", tried).await;
    }
    let target = UdpSocket::bind(address).await.unwrap();
    send(&net.client, net.relay.address(), 4).await;
    let (number, seen) = receive(&target).await;
    assert_eq!((number, seen), (4, net.seen));
    send(&target, seen, 5).await;
    assert_eq!(self::number(&net.client).await, 5);
}

#[tokio::test]
async fn a_relay_that_is_dropped_is_gone() {
    let net = net().await;
    let address = net.relay.address();
    drop(net.relay);
    let deadline = Instant::now() + PATIENCE;
    // Its port is free again.
    while UdpSocket::bind(address).await.is_err() {
        assert!(Instant::now() < deadline, "the port is still taken");
        tokio::task::yield_now().await;
    }
}
