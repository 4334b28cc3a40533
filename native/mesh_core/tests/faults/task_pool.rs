//! Connections that come after others: what is kept for the next one is as good as new.

use std::time::{Duration, Instant};

use crate::support::client::{Client, End, get, get_target};
use crate::support::scene::{Scene, ms};

#[test]
fn waves_of_connections_are_all_answered() {
    let scene = Scene::new(|_| {});
    for wave in 0..3 {
        let mut clients: Vec<Client> = (0..200).map(|_| scene.client()).collect();
        for (i, client) in clients.iter_mut().enumerate() {
            client.send(get_target(&format!("/{wave}/{i}")));
        }
        for (i, client) in clients.iter_mut().enumerate() {
            assert_eq!(client.response().body, format!("/{wave}/{i}").as_bytes());
        }
        assert_eq!(scene.mesh.stats().gateway.connections_open, 200);
        drop(clients);
        scene.mesh.eventually("all have left", |s| s.gateway.connections_open == 0);
    }
    scene.ends_clean();
}

/// Whether the one before was closed for being idle, or left before that.
#[test]
fn each_connection_has_its_own_idle_timeout() {
    const IDLE: Duration = Duration::from_millis(300);
    let scene = Scene::new(|config| config.timeouts.idle = ms(300));
    let idles = |mut client: Client| {
        assert_eq!(client.ask(get("")).status, 200);
        let began = Instant::now();
        assert_eq!(client.read_to_end(), End::Closed);
        assert!(began.elapsed() >= IDLE / 2, "closed after {:?}", began.elapsed());
    };
    for _ in 0..3 {
        let mut hasty = scene.client();
        assert_eq!(hasty.ask(get("")).status, 200);
        drop(hasty);
        scene.mesh.eventually("it has left", |s| s.gateway.connections_open == 0);
        idles(scene.client());
        idles(scene.client());
    }
    scene.ends_clean();
}
