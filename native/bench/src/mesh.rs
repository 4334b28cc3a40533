//! Gateways in a mesh, as on several nodes: a process for each. The first one serves the clients and has no
//! endpoint; each of the others has one. They learn of each other by pipes, in the place of the Erlang
//! distribution.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;

use mesh_core::config::MeshConfig;
use mesh_core::{Config, Gateway, PeerSpec, ServiceSpec, UpstreamAddr};
use serde_json::{Value, json};

use crate::args::Args;
use crate::gateway::upstream;

const STATS: &str = "stats";

/// Starts the nodes. `--stats PATH` is a socket that tells every node's counters.
pub fn run(args: &Args) -> io::Result<()> {
    let mut nodes = vec![Node::start(&["node", args.word(0)])?];
    for upstream in args.words().iter().skip(1) {
        nodes.push(Node::start(&["node", "0", upstream])?);
    }
    let mut known = Vec::new();
    for (number, node) in nodes.iter_mut().enumerate() {
        let mut info: Value = serde_json::from_str(&node.read()?)?;
        info["id"] = number.to_string().into();
        known.push(info);
    }
    for (number, node) in nodes.iter_mut().enumerate() {
        let mut others = known.clone();
        others.remove(number);
        node.write(&Value::from(others).to_string())?;
    }
    let path = args.text("stats", "");
    if !path.is_empty() {
        let _ = std::fs::remove_file(path);
        let socket = UnixListener::bind(path)?;
        for asking in socket.incoming() {
            let mut all = Vec::new();
            for node in &mut nodes {
                node.write(STATS)?;
                all.push(serde_json::from_str::<Value>(&node.read()?)?);
            }
            asking?.write_all(Value::from(all).to_string().as_bytes())?;
        }
    }
    nodes.iter_mut().try_for_each(|node| node.process.wait().map(|_| ()))
}

/// The counters of every node, from the socket that `--stats` names.
pub fn stats(path: &str) -> io::Result<Vec<Value>> {
    let mut text = String::new();
    UnixStream::connect(path)?.read_to_string(&mut text)?;
    Ok(serde_json::from_str(&text)?)
}

struct Node {
    process: Child,
    /// Not in the process: waiting for it would close the pipe.
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Node {
    fn start(words: &[&str]) -> io::Result<Node> {
        let mut process = Command::new(std::env::current_exe()?)
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let input = process.stdin.take().ok_or(io::ErrorKind::BrokenPipe)?;
        let output = process.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
        Ok(Node { process, input, output: BufReader::new(output) })
    }

    fn read(&mut self) -> io::Result<String> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        Ok(line)
    }

    fn write(&mut self, line: &str) -> io::Result<()> {
        writeln!(self.input, "{line}")
    }
}

/// One node: says where it listens, is told of the others, and ends with the process that has started it.
pub fn run_node(args: &Args) -> io::Result<()> {
    let port = args.word(0).parse().map_err(io::Error::other)?;
    let config = Config { port, ..Config::default() };
    let gateway = Arc::new(Gateway::open(config).map_err(io::Error::other)?);
    let mesh = MeshConfig { ips: vec![Ipv4Addr::LOCALHOST.into()], port: 0, prefer_local: Some(2) };
    let info = gateway.open_mesh(&mesh).map_err(io::Error::other)?;
    println!("{}", json!({ "key": info.key, "addresses": info.addresses }));
    let mut others = String::new();
    io::stdin().read_line(&mut others)?;
    let others: Value = serde_json::from_str(&others)?;
    let others =
        others.as_array().into_iter().flatten().map(peer).collect::<io::Result<Vec<_>>>()?;
    let ids: Vec<String> = others.iter().map(|peer| peer.id.clone()).collect();
    gateway.set_peers(others).map_err(io::Error::other)?;
    let upstreams = match args.word(1) {
        "" => ids.iter().filter_map(|id| gateway.peer(id)).collect::<Vec<UpstreamAddr>>(),
        own => vec![upstream(own)?],
    };
    let service = ServiceSpec::new("bench.local", upstreams);
    gateway.set_routes(vec![service], None).map_err(io::Error::other)?;
    let observed = Arc::clone(&gateway);
    std::thread::spawn(move || {
        for line in io::stdin().lines().map_while(Result::ok) {
            if line == STATS {
                println!("{}", serde_json::to_string(&observed.stats()).unwrap_or_default());
            }
        }
        std::process::exit(0);
    });
    gateway.run_worker(0).map_err(io::Error::other)
}

fn peer(info: &Value) -> io::Result<PeerSpec> {
    let bad = || io::Error::other(format!("not a node: {info}"));
    let array = |name: &str| info[name].as_array().ok_or_else(bad);
    let byte = |byte: &Value| byte.as_u64().and_then(|byte| u8::try_from(byte).ok());
    let address = |text: &Value| text.as_str()?.parse::<SocketAddr>().ok();
    let id = info["id"].as_str().ok_or_else(bad)?.to_string();
    Ok(PeerSpec {
        name: format!("node {id}"),
        id,
        key: array("key")?.iter().map(byte).collect::<Option<_>>().ok_or_else(bad)?,
        addresses: array("addresses")?
            .iter()
            .map(address)
            .collect::<Option<_>>()
            .ok_or_else(bad)?,
    })
}
