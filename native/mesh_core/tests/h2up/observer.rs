//! What operators get.

use std::sync::mpsc::{Receiver, Sender, channel};

use mesh_core::observe::{AccessLog, CountedNotice, Notice, ObserveConfig, Record, Sink};

use crate::support::PATIENCE;
use crate::support::mesh::Mesh;

pub struct Observer {
    notices: Receiver<CountedNotice>,
    lines: Receiver<String>,
}

struct Pass(Sender<CountedNotice>, Sender<String>);

impl Sink for Pass {
    fn records(&mut self, _: &[&Record]) -> bool {
        true
    }

    fn lines(&mut self, lines: &[Vec<u8>]) -> bool {
        lines.iter().all(|line| self.1.send(String::from_utf8_lossy(line).into()).is_ok())
    }

    fn notices(&mut self, notices: Vec<CountedNotice>) {
        notices.into_iter().for_each(|notice| drop(self.0.send(notice)));
    }
}

impl Observer {
    pub fn of(mesh: &Mesh, access_log: Option<AccessLog>) -> Observer {
        let ((tell, notices), (write, lines)) = (channel(), channel());
        let sink: Box<dyn Sink> = Box::new(Pass(tell, write));
        let observe = ObserveConfig { access_log, sample: 0.0, sink: Some(sink) };
        mesh.gateway.observe(observe).expect("observed");
        Observer { notices, lines }
    }

    /// What the next notice of this kind is about.
    pub fn notice(&self, kind: Notice) -> String {
        loop {
            let next = self.notices.recv_timeout(PATIENCE).expect("a notice");
            if next.notice == kind {
                return next.about;
            }
        }
    }

    /// The next line of the access log.
    pub fn line(&self) -> String {
        self.lines.recv_timeout(PATIENCE).expect("a line")
    }
}
