//! One scene at a time: descriptors are counted for the whole process.

use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use mesh_core::{Config, UpstreamAddr};

use crate::support::client::Client;
use crate::support::endpoint::Endpoint;
use crate::support::eventually;
use crate::support::mesh::{Mesh, service};

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// A gateway whose service `a.test` leads to `endpoint`, and `b.test` to `other`, which is well.
pub struct Scene {
    pub mesh: Mesh,
    pub endpoint: Endpoint,
    pub other: Endpoint,
    before: usize,
    _turn: MutexGuard<'static, ()>,
}

pub fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("/proc").count()
}

pub fn ms(n: u64) -> Option<Duration> {
    Some(Duration::from_millis(n))
}

impl Scene {
    pub fn new(change: impl FnOnce(&mut Config)) -> Scene {
        Scene::with(Endpoint::start, change)
    }

    pub fn with(endpoint: fn() -> Endpoint, change: impl FnOnce(&mut Config)) -> Scene {
        let turn = ONE_AT_A_TIME.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let before = descriptors();
        let mut config = Config { workers: 2, ..Config::default() };
        change(&mut config);
        let (endpoint, other) = (endpoint(), Endpoint::start());
        let services = vec![
            service("a.test", std::slice::from_ref(&endpoint.address)),
            service("b.test", std::slice::from_ref(&other.address)),
        ];
        let mesh = Mesh::start(config, services, None);
        Scene { mesh, endpoint, other, before, _turn: turn }
    }

    pub fn client(&self) -> Client {
        Client::connect(self.mesh.address())
    }

    pub fn route_to(&self, upstreams: &[UpstreamAddr]) {
        let services = vec![
            service("a.test", upstreams),
            service("b.test", std::slice::from_ref(&self.other.address)),
        ];
        self.mesh.gateway.set_routes(services, None).expect("routes");
    }

    /// The rest of the world is as well as before.
    pub fn others_are_served(&self) {
        let answer =
            self.client().ask("GET /other HTTP/1.1\r\nHost: b.test\r\nConnection: close\r\n\r\n");
        assert_eq!((answer.status, answer.body.as_slice()), (200, b"/other".as_slice()));
    }

    /// Nothing is under way any more, and nothing is left when the gateway has gone.
    pub fn ends_clean(self) {
        self.others_are_served();
        self.mesh.wait_idle();
        assert_eq!(self.mesh.stats().gateway.panics, 0);
        self.ends();
    }

    pub fn ends(self) {
        let Scene { mut mesh, mut endpoint, mut other, before, _turn } = self;
        mesh.stop(Some(Duration::from_secs(5)));
        let stats = mesh.stats();
        assert_eq!(stats.gateway.connections_open, 0);
        for (name, totals) in &stats.services {
            assert_eq!((totals.in_flight, totals.tunnels_open), (0, 0), "{name}");
        }
        drop(mesh);
        endpoint.die();
        other.die();
        drop((endpoint, other));
        eventually("all descriptors are closed", || descriptors() <= before);
    }
}
