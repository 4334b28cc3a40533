//! A gateway's key, and the pinned keys of its peers: TLS 1.3 with raw public keys (RFC 7250).
//!
//! A key lives as long as its gateway. There are no certificates, names or dates: a peer is who has told its
//! key over the Erlang distribution.

use std::io;
use std::sync::Arc;

use arc_swap::ArcSwap;
use hashbrown::HashSet;
use ring::rand::SystemRandom;
use ring::signature::Ed25519KeyPair;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{AlwaysResolvesClientRawPublicKeys, Resumption, UnbufferedClientConnection};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, ring as provider};
use rustls::pki_types::{
    CertificateDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime,
};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{
    AlwaysResolvesServerRawPublicKeys, NoServerSessionStorage, UnbufferedServerConnection,
};
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use rustls::{
    ClientConfig, DigitallySignedStruct, DistinguishedName, Error, ServerConfig, SignatureScheme,
};

use crate::transport::TlsSide;

/// The protocol between two gateways. Another version gets another name.
const PROTOCOL: &[u8] = b"exmesh/1";

/// The public keys of the peers.
pub type Pins = ArcSwap<HashSet<Vec<u8>>>;

pub struct Identity {
    /// The public key as SubjectPublicKeyInfo (RFC 5280 section 4.1.2.7).
    pub public_key: Vec<u8>,
    provider: Arc<CryptoProvider>,
    key: Arc<CertifiedKey>,
    server: Arc<ServerConfig>,
}

impl Identity {
    pub fn new(pins: Arc<Pins>) -> io::Result<Identity> {
        let provider = Arc::new(provider::default_provider());
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new())
            .map_err(|_| io::Error::other("the system gives no random numbers"))?;
        let pkcs8 = PrivatePkcs8KeyDer::from(pkcs8.as_ref().to_vec());
        let key = provider.key_provider.load_private_key(pkcs8.into()).map_err(io::Error::other)?;
        let public_key = key.public_key().map(|key| key.to_vec());
        let public_key =
            public_key.ok_or_else(|| io::Error::other("the key has no public part"))?;
        let key = CertifiedKey::new(vec![CertificateDer::from(public_key.clone())], key);
        let key = Arc::new(key);
        let algorithms = provider.signature_verification_algorithms;
        let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&TLS13])
            .map_err(io::Error::other)?
            .with_client_cert_verifier(Arc::new(KnownPeers { pins, algorithms }))
            .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(Arc::clone(&key))));
        server.alpn_protocols = vec![PROTOCOL.to_vec()];
        // Connections live long. A ticket that was not read would make an idle one look busy.
        server.send_tls13_tickets = 0;
        server.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(Identity { public_key, provider, key, server: Arc::new(server) })
    }

    /// The accepting side of a connection.
    pub fn accept(&self) -> io::Result<TlsSide> {
        let server = UnbufferedServerConnection::new(Arc::clone(&self.server));
        Ok(TlsSide::Server(Box::new(server.map_err(io::Error::other)?)))
    }

    /// The settings for connections to the peer with this key.
    pub fn client(&self, peer_key: Vec<u8>) -> io::Result<Arc<ClientConfig>> {
        let algorithms = self.provider.signature_verification_algorithms;
        let verifier = ThisPeer { key: peer_key, algorithms };
        let mut client = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&TLS13])
            .map_err(io::Error::other)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(
                Arc::clone(&self.key),
            )));
        client.alpn_protocols = vec![PROTOCOL.to_vec()];
        client.resumption = Resumption::disabled();
        client.enable_sni = false;
        Ok(Arc::new(client))
    }
}

/// The connecting side of a connection.
pub fn connect(config: Arc<ClientConfig>) -> io::Result<TlsSide> {
    let name = ServerName::try_from("exmesh").map_err(io::Error::other)?;
    let client = UnbufferedClientConnection::new(config, name);
    Ok(TlsSide::Client(Box::new(client.map_err(io::Error::other)?)))
}

/// Whether both sides speak this protocol. rustls refuses another one, but lets a peer name none.
pub fn is_protocol(agreed: Option<&[u8]>) -> bool {
    agreed == Some(PROTOCOL)
}

const UNKNOWN: Error =
    Error::InvalidCertificate(rustls::CertificateError::ApplicationVerificationFailure);

fn verify(
    message: &[u8],
    key: &CertificateDer<'_>,
    signed: &DigitallySignedStruct,
    algorithms: &WebPkiSupportedAlgorithms,
) -> Result<HandshakeSignatureValid, Error> {
    let key = SubjectPublicKeyInfoDer::from(key.as_ref());
    rustls::crypto::verify_tls13_signature_with_raw_key(message, &key, signed, algorithms)
}

/// What both verifiers of rustls ask alike: Ed25519 keys, and TLS 1.3 only.
macro_rules! raw_keys {
    () => {
        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Err(UNKNOWN)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            key: &CertificateDer<'_>,
            signed: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            verify(message, key, signed, &self.algorithms)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            vec![SignatureScheme::ED25519]
        }

        fn requires_raw_public_keys(&self) -> bool {
            true
        }
    };
}

/// Accepts clients whose keys are pinned.
struct KnownPeers {
    pins: Arc<Pins>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ClientCertVerifier for KnownPeers {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        key: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let known = self.pins.load().contains(key.as_ref());
        if known { Ok(ClientCertVerified::assertion()) } else { Err(UNKNOWN) }
    }

    raw_keys!();
}

impl std::fmt::Debug for KnownPeers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KnownPeers")
    }
}

/// Accepts the server that has this key.
#[derive(Debug)]
struct ThisPeer {
    key: Vec<u8>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for ThisPeer {
    fn verify_server_cert(
        &self,
        key: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if key.as_ref() == self.key { Ok(ServerCertVerified::assertion()) } else { Err(UNKNOWN) }
    }

    raw_keys!();
}
