//! How streams and connections end.

use std::time::Duration;

use outrigger_operator::api::{DRAIN, MAX_AGE, SILENCE, SPREAD};
use outrigger_proto::operator::ResourceEventType;
use tokio::time::Instant;

use crate::{
    fixture::{CART, Fixture, shop_updates},
    support::soon,
};

#[tokio::test]
async fn streams_end_well_when_the_operator_stops() {
    let fixture = Fixture::synced();
    let mut cart = fixture.server.client(CART).await;
    let mut stream = cart.component_update(shop_updates()).await.unwrap().into_inner();
    fixture.stop.cancel();
    assert_eq!(
        soon("the end of the stream", stream.message()).await.unwrap(),
        None,
        "status OK"
    );
    fixture.server.ended().await;
}

#[tokio::test(start_paused = true)]
async fn who_does_not_let_go_is_cut_off_at_the_drain_deadline() {
    let fixture = Fixture::synced();
    let silent = fixture.server.silent(CART).await;
    let mut cart = fixture.server.client(CART).await;
    let mut stream = cart.component_update(shop_updates()).await.unwrap().into_inner();
    let start = Instant::now();
    fixture.stop.cancel();
    assert_eq!(stream.message().await.unwrap(), None, "status OK, and at once");
    assert!(start.elapsed() < DRAIN);
    fixture.server.ended().await;
    assert_eq!(start.elapsed().as_secs(), DRAIN.as_secs());
    drop(silent);
}

#[tokio::test(start_paused = true)]
async fn connections_end_at_their_age_each_at_its_own_moment() {
    let fixture = Fixture::synced();
    let start = Instant::now();
    let mut ends = Vec::new();
    for _ in 0..3 {
        let mut cart = fixture.server.client(CART).await;
        let mut stream = cart.component_update(shop_updates()).await.unwrap().into_inner();
        ends.push(tokio::spawn(async move {
            (stream.message().await.unwrap(), Instant::now())
        }));
    }
    let mut times = Vec::new();
    for end in ends {
        let (message, at) = end.await.unwrap();
        assert_eq!(message, None, "status OK");
        assert!(
            at - start >= MAX_AGE && at - start <= MAX_AGE + SPREAD + SILENCE,
            "{:?}",
            at - start
        );
        times.push(at);
    }
    times.dedup();
    assert_eq!(times.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_silent_sidecar_is_cut_off_and_counted_and_a_quiet_one_stays() {
    let fixture = Fixture::synced();
    let mut quiet = fixture.server.client(CART).await;
    let mut stream = quiet.component_update(shop_updates()).await.unwrap().into_inner();
    let silent = fixture.server.silent(CART).await;
    tokio::time::timeout(Duration::from_secs(30), silent.closed())
        .await
        .expect("within half a minute");
    assert_eq!(fixture.metrics.stalled.get(), 1);
    // On the paused clock: pings come and go.
    tokio::time::sleep(Duration::from_secs(300)).await;
    fixture.component("db", "state.redis");
    assert_eq!(
        stream.message().await.unwrap().unwrap().r#type(),
        ResourceEventType::Created
    );
    assert_eq!(fixture.metrics.stalled.get(), 1);
    assert_eq!(fixture.metrics.subscribers.get(), 1);
}
