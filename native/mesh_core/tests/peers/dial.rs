//! A raw client of the mesh port: it has the key and says the protocol that it is told.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;

use mesh_core::PeerSpec;
use ring::rand::SystemRandom;
use ring::signature::Ed25519KeyPair;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{AlwaysResolvesClientRawPublicKeys, Resumption};
use rustls::crypto::ring as provider;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, Error, SignatureScheme, StreamOwned,
};

use crate::nodes::Node;
use crate::support::PATIENCE;

pub const PROTOCOL: &[u8] = b"exmesh/1";

pub type Stream = StreamOwned<ClientConnection, TcpStream>;

/// A gateway of which only the key is real.
pub struct Identity {
    key: Arc<CertifiedKey>,
    public: Vec<u8>,
}

impl Identity {
    pub fn new() -> Identity {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).expect("a key");
        let pkcs8 = PrivatePkcs8KeyDer::from(pkcs8.as_ref().to_vec());
        let provider = provider::default_provider();
        let key = provider.key_provider.load_private_key(pkcs8.into()).expect("a key");
        let public = key.public_key().expect("a public key").to_vec();
        let key = Arc::new(CertifiedKey::new(vec![CertificateDer::from(public.clone())], key));
        Identity { key, public }
    }

    /// What a node is told so that it knows this one.
    pub fn spec(&self) -> PeerSpec {
        PeerSpec {
            id: "dialled".into(),
            name: "dialled".into(),
            key: self.public.clone(),
            addresses: vec![SocketAddr::from(([127, 0, 0, 1], 9))],
        }
    }

    pub fn config(&self) -> ClientConfig {
        let resolver = AlwaysResolvesClientRawPublicKeys::new(Arc::clone(&self.key));
        with_protocol(builder(true).with_client_cert_resolver(Arc::new(resolver)))
    }
}

type Builder = rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert>;

/// Believes every server, whose key is raw or in a certificate.
pub fn builder(raw: bool) -> Builder {
    ClientConfig::builder_with_provider(Arc::new(provider::default_provider()))
        .with_protocol_versions(&[&TLS13])
        .expect("TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Any { raw }))
}

pub fn with_protocol(mut config: ClientConfig) -> ClientConfig {
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    config.resumption = Resumption::disabled();
    config
}

/// A TCP connection from an address of this machine.
pub fn tcp(from: [u8; 4], to: &Node, receive_buffer: Option<usize>) -> TcpStream {
    let socket =
        socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    if let Some(size) = receive_buffer {
        socket.set_recv_buffer_size(size).expect("buffer size");
    }
    let ip = IpAddr::V4(Ipv4Addr::from(from));
    socket.bind(&SocketAddr::new(ip, 0).into()).expect("an address of this machine");
    socket.connect_timeout(&to.info.addresses[0].into(), PATIENCE).expect("cannot connect");
    let tcp: TcpStream = socket.into();
    tcp.set_nodelay(true).expect("nodelay");
    tcp.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    tcp.set_write_timeout(Some(PATIENCE)).expect("a timeout");
    tcp
}

pub fn tls(config: ClientConfig, tcp: TcpStream) -> Stream {
    let name = ServerName::try_from("exmesh").expect("a name");
    let connection = ClientConnection::new(Arc::new(config), name).expect("a client");
    StreamOwned::new(connection, tcp)
}

/// A connection of a known peer.
pub fn known(identity: &Identity, to: &Node) -> Stream {
    tls(identity.config(), tcp([127, 0, 0, 1], to, None))
}

/// Sends, and reads to the end. Returns what has come, and the error that ended it.
pub fn ask(stream: &mut Stream, bytes: &[u8]) -> (Vec<u8>, io::Result<()>) {
    let mut got = Vec::new();
    let ended = stream.write_all(bytes).and_then(|()| stream.read_to_end(&mut got).map(drop));
    (got, ended)
}

/// Reads a head without a body.
pub fn read_head(stream: &mut Stream) -> String {
    let mut got = Vec::new();
    while !got.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap_or_else(|e| panic!("{e}: {:?}", got.escape_ascii()));
        got.push(byte[0]);
    }
    String::from_utf8(got).expect("text")
}

#[derive(Debug)]
struct Any {
    raw: bool,
}

impl ServerCertVerifier for Any {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        self.raw
    }
}
