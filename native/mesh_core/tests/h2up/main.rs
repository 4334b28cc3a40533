//! Endpoints that speak HTTP/2: clients of both protocols get what the endpoint sends, streams keep their pace, and
//! what ends early ends as the other side ended it.

#[path = "../support/mod.rs"]
mod support;

mod connections;
mod floods;
mod grpc;
mod observer;
mod places;
mod rapid_resets;
mod requests;
mod resets;
mod streams;
mod websocket;
